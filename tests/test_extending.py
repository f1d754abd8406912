"""docs/extending.md, followed literally in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interpreter import printed, python, stand_in
from tests.runner import CLASSES, make_project

PROJECT = Path(__file__).resolve().parents[1]
PAGE = (PROJECT / "docs/extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```\w+ file=(\S+)(?: append=(\S+))?\n(.*?)^```", re.M | re.S)
BLOCKS = {name: (base, text) for name, base, text in BLOCK.findall(PAGE)}
SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.M | re.S)


def text_of(name: str) -> str:
    """A file of the page; `append` names the file whose text it follows."""
    base, text = BLOCKS[name]
    if not base:
        return text
    before = text_of(base) if base != name else (PROJECT / name).read_text(encoding="utf-8")
    return f"{before}\n\n{text}"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text_of(name), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders of small images, and their dataset's config."""
    folder = tmp_path_factory.mktemp("extending")
    make_project(folder, images=8)
    return folder


@pytest.fixture
def tree(tmp_path):
    """A copy of what a run needs of the checkout."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("dplq", "trainers", "datasets", "configs", "scripts"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(PROJECT / "train.py", tmp_path)
    return tmp_path


def run(arguments: list[object], cwd: Path, **environment: str) -> str:
    """Return what ``python ARGUMENTS`` prints in that folder, whose modules it imports."""
    return printed(arguments, cwd, **{"PYTHONPATH": "", **environment})


def flags(data: Path, out: Path) -> list[object]:
    return [
        *("--root", data / "data", "--dataset-config-file", data / "dataset.yaml", "--seed", 1),
        *("--output-dir", out, "--trainer", "ClassBias"),
        *("DATASET.NUM_SHOTS", 4, "OPTIM.MAX_EPOCH", 1),
    ]


def test_no_section_has_more_than_seven_steps():
    steps = {title: re.findall(r"^(\d+)\. ", text, re.M) for title, text in SECTION.findall(PAGE)}
    sections = [
        "A trainer",
        "A head",
        "A dataset",
        "A domain encoder",
        "A metric",
        "A delta method",
    ]
    assert list(steps) == sections
    for title, numbers in steps.items():
        assert numbers == [str(i + 1) for i in range(len(numbers))], title
        assert 1 <= len(numbers) <= 7, title


def test_a_trainer_in_tree_runs_in_compare_sh(tree, data):
    write(tree, "dplq/methods/class_bias.py", "trainers/class_bias.py")
    write(tree, "configs/trainers/ClassBias/demo.yaml")
    with open(tree / "configs/protocols.yaml", "a", encoding="utf-8") as file:
        file.write("ClassBias: {any_classes: false}\n")
    command = ["bash", "scripts/compare.sh", "own_images", "1", "--", "OPTIM.MAX_EPOCH", "1"]
    variables = {"DATA": str(data / "data"), "TRAINERS": "ClassBias", "SHOTS": "4"}
    variables |= {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    with stand_in(tree) as program:
        variables["PYTHON"] = str(program)
        done = subprocess.run(
            command, cwd=tree, env={**os.environ, **variables}, capture_output=True, text=True
        )
    table = done.stdout
    assert done.returncode == 0, table[-3000:] + done.stderr[-3000:]
    assert "ClassBias cannot name other classes than its own: no test on them" in table
    rows = [line.split() for line in table.splitlines() if line.startswith("ClassBias ")]
    (row,) = (words for words in rows if "cannot" not in words)
    assert "2" in row  # learnable parameters: 2 classes
    code = "from dplq.experiments.protocols import trainers; print(*trainers())"
    listed = run(["-c", code], tree)
    assert listed.split()[-1] == "ClassBias"


def test_a_trainer_out_of_tree_runs_and_is_loaded_again(tmp_path, data):
    """Nothing of the project is changed; `dplq.load` knows the method once it is imported."""
    write(tmp_path, "my_class_bias.py")
    (tmp_path / "demo.yaml").write_text(text_of("configs/trainers/ClassBias/demo.yaml"))
    command = [PROJECT / "train.py", "--import", "my_class_bias"]
    said = run([*command, "--config-file", "demo.yaml", *flags(data, tmp_path / "out")], tmp_path)
    assert f"dplq predict {tmp_path}/out IMAGES --import my_class_bias" in said
    result = json.loads((tmp_path / "out/results.json").read_text())
    assert result["trainer"] == "ClassBias"
    assert result["config"]["TRAINER"]["CLASSBIAS"] == {
        "TEMPLATE": "a photo of a {}.",
        "SCALE": 2.0,
        "PREC": "fp32",
    }
    code = "import dplq, my_class_bias; m = dplq.load('out'); print(m.method, len(m.classnames))"
    environment = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{tmp_path}"}
    printed = run(["-c", code], tmp_path, **environment)
    assert printed.split() == ["ClassBias", str(len(CLASSES))]


def test_a_trainer_and_a_dataset_out_of_tree_in_a_sweep(tmp_path, data):
    """Found from the caller's folder; the folder of configs is as one of the project's."""
    write(tmp_path, "my_class_bias.py")
    for name, place in (
        ("datasets/my_scenes.py", "my_scenes.py"),
        ("configs/datasets/my_scenes.yaml", "my_configs/datasets/my_scenes.yaml"),
        ("configs/trainers/ClassBias/demo.yaml", "my_configs/trainers/ClassBias/short.yaml"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text_of(name))
    (tmp_path / "my_configs/protocols.yaml").write_text("ClassBias: {any_classes: false}\n")
    for name, folder in zip(("Forest", "Rivers", "parking"), CLASSES, strict=False):
        shutil.copytree(data / "data" / folder, tmp_path / "data/my_scenes" / name)
    dplq = [PROJECT / "dplq/__main__.py"]
    own = ["--import", "my_scenes"]
    checked = run([*dplq, "data", "check", "MyScenes", *own, "--root", "data"], tmp_path)
    assert "No problems found." in checked
    own += ["--import", "my_class_bias", "--config-folder", "my_configs"]
    words = ["--trainers", "ClassBias", "--data", "data", "--seeds", "1", "--shots", "2"]
    words += ["--", "OPTIM.MAX_EPOCH", "1"]
    said = run([*dplq, "run", "base2new", "my_scenes", *own, *words], tmp_path)
    assert "ClassBias cannot name other classes than its own" in said
    place = "output/base2new/train_base/my_scenes/shots_2/ClassBias/short/seed1"
    result = json.loads((tmp_path / place / "results.json").read_text())
    assert (result["dataset"], result["learnable_parameters"]) == ("MyScenes", 2)
    predict = [*dplq, "predict", tmp_path / place, "data/my_scenes/Forest"]
    assert "forest" in run([*predict, "--import", tmp_path / "my_class_bias.py"], tmp_path)


def test_a_head_runs_on_both_features(tree, data):
    write(tree, "dplq/methods/heads/class_means.py", "trainers/class_means.py")
    words = flags(data, tree / "out")
    words[words.index("ClassBias")] = "ClassMeans"
    config = PROJECT / "configs/trainers/LinearProbe/demo.yaml"
    command = ["train.py", "--config-file", config, *words]
    run([*command, "TRAINER.CLASSMEANS.FEATURES", "both", "DOMAIN.ENCODER", "clip"], tree)
    result = json.loads((tree / "out/results.json").read_text())
    assert result["trainer"] == "ClassMeans"
    assert result["learnable_parameters"] == len(CLASSES) * 2 * 128
    assert result["accuracy"] > 50


def test_a_missing_module_is_one_line(tmp_path, data):
    command = [PROJECT / "train.py", "--import", "no_such_module"]
    done = python([*command, *flags(data, tmp_path / "out")], tmp_path)
    assert done.returncode == 2
    assert "error: --import no_such_module: it cannot be imported (ModuleNot" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dataset(tree, data):
    write(tree, "datasets/my_scenes.py", "configs/datasets/my_scenes.yaml")
    for name, folder in zip(("Forest", "Rivers", "parking"), CLASSES, strict=False):
        shutil.copytree(data / "data" / folder, tree / "data/my_scenes" / name)
    command = ["-m", "dplq.data", "check", "MyScenes", "--root", "data"]
    checked = run(command, tree)
    assert "No problems found." in checked
    assert "car park" in checked


def test_a_metric(tmp_path):
    write(tmp_path, "dplq/evaluation/metrics.py")
    space: dict[str, object] = {}
    exec((tmp_path / "dplq/evaluation/metrics.py").read_text(), space)
    scores = space["scores"]([0, 0, 0, 1], [0, 0, 1, 1], {0: "river", 1: "lake"})
    assert scores["balanced_accuracy"] == pytest.approx((200 / 3 + 100) / 2)
    assert scores["accuracy"] == 75.0


def test_a_domain_encoder_of_timm(tmp_path):
    """The command of the section, for one epoch, on the demo."""
    block = dict(SECTION.findall(PAGE))["A domain encoder"].split("```bash\n")[1].split("```")[0]
    words = block.replace("\\\n", " ").split()
    assert words[:2] == ["python", "train.py"]
    words[words.index("--output-dir") + 1] = str(tmp_path / "out")
    shots = words.index("DATASET.NUM_SHOTS") + 1
    words[shots] = "1"
    printed = run(words[1:], PROJECT)
    assert "Loading domain encoder (test_vit)" in printed
    assert (tmp_path / "out/results.json").is_file()


def test_a_delta_method(tree):
    """Its files and command, for one epoch on the demo; the run is loaded and merged."""
    write(tree, "dplq/methods/deltas/bitfit.py", "trainers/bitfit.py")
    write(tree, "configs/trainers/BitFit/demo.yaml")
    section = dict(SECTION.findall(PAGE))["A delta method"]
    command = section.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    program, *words = command.split()
    assert program == "python"
    words[words.index("DATASET.NUM_SHOTS") + 1] = "1"
    run([*words, "OPTIM.MAX_EPOCH", 1], tree)
    code = "import dplq; m = dplq.load('output/bitfit'); m.merge('m.safetensors'); print(m.method)"
    assert run(["-c", code], tree).split() == ["BitFit"]
    assert (tree / "m.safetensors").is_file()
