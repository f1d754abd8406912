"""The plug-in in host trees, both Dassls, and the peers' configs and scripts in ours."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dplq.host import dassl as dassl_compat
from dplq.host.config import all_keys
from dplq.images.reader import ImageFile
from dplq.images.settings import ReadSettings
from dplq.io import checkpoint
from dplq.io.nodes import flatten
from dplq.plugin import extend_cfg
from tests.interpreter import printed, python
from tests.packaged import build_wheel
from tests.peers import peer
from tests.runner import PROJECT, make_project, train


def run(arguments, *, cwd=PROJECT, dassl=None, stream="stdout", **environment):
    """Return a fresh process's output; `dassl`: folder of a real Dassl, None: ours."""
    variables = {**os.environ, **environment, **path_with(dassl)}
    if dassl is None:
        variables["DPLQ_DASSL"] = "fallback"
    done = subprocess.run(arguments, cwd=cwd, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return getattr(done, stream)


def failure(arguments, *, cwd=PROJECT, dassl=None, **environment):
    """Return the exit code and stderr of a fresh process."""
    variables = {**os.environ, **environment, **path_with(dassl)}
    done = subprocess.run(arguments, cwd=cwd, env=variables, capture_output=True, text=True)
    return done.returncode, done.stderr


def path_with(dassl):
    """Return the variable of a path with a real Dassl, or None, before what is on it already.

    Libraries may have been carried, not installed.
    """
    ahead = [str(dassl)] if dassl else []
    return {"PYTHONPATH": os.pathsep.join([*ahead, os.environ.get("PYTHONPATH", "")])}


def last_line(text):
    return text.strip().splitlines()[-1]


def numbers(name, text):
    return [float(value) for value in re.findall(rf"{name} ([0-9.e+-]+)", text)]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    return folder, make_project(folder)


def test_real_dassl_and_fallback_agree(project, tmp_path):
    """The same command produces the same losses, accuracy and weights."""
    dassl = peer("Dassl.pytorch")
    _, flags = project
    printed, scores = {}, {}
    for name, dassl_root in (("fallback", None), ("real", dassl)):
        out = tmp_path / name
        command = [sys.executable, "train.py", *flags, "--output-dir", str(out)]
        printed[name] = run(command, dassl=dassl_root)
        assert f"Dassl in use: {name}" in printed[name]
        assert "RANDOM weights" in printed[name]
        scores[name] = json.loads((out / "results.json").read_text())
    losses = {name: numbers("loss", text) for name, text in printed.items()}
    assert len(losses["real"]) == 36
    assert losses["fallback"] == pytest.approx(losses["real"], rel=1e-3)
    for key in ("accuracy", "macro_f1", "per_class_accuracy"):
        assert scores["fallback"][key] == scores["real"][key]
    weights = [
        checkpoint.read(tmp_path / n / "prompt_learner/model-3.safetensors")[0] for n in losses
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


HOSTS = {  # tree -> a trainer of its own, and that trainer's module
    "CoOp": ("CoOp", "trainers.coop"),
    "multimodal-prompt-learning": ("MaPLe", "trainers.maple"),
    "PromptSRC": ("PromptSRC", "trainers.promptsrc"),
    "BiomedCoOp": ("BiomedCoOp_CLIP", "trainers.BiomedCoOp.biomedcoop_clip"),
}


def host_tree(name, folder):
    """Return a copy of a public tree whose train.py has our two lines more."""
    tree = folder / name
    shutil.copytree(peer(name), tree, ignore=shutil.ignore_patterns(".git", "docs", "assets"))
    script = (tree / "train.py").read_text()
    last = re.findall(r"^import trainers\..*$", script, re.M)[-1]
    script = script.replace(f"{last}\n", f"{last}\nimport dplq.plugin\n")
    script = script.replace(
        "    extend_cfg(cfg)\n", "    extend_cfg(cfg)\n    dplq.plugin.extend_cfg(cfg)\n"
    )
    assert script.count("dplq.plugin") == 2
    (tree / "train.py").write_text(script)
    return tree


@pytest.mark.parametrize("name", HOSTS)
def test_two_lines_in_a_host_tree(name, project, tmp_path):
    """With the real Dassl: train, save, --eval-only and reload."""
    dassl, tree = peer("Dassl.pytorch"), host_tree(name, tmp_path)
    if name == "BiomedCoOp":
        pytest.importorskip("transformers")
    _, flags = project
    base = ["DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES"]
    command = [sys.executable, "train.py", *flags]
    trained = run([*command, "--output-dir", "out/base", *base, "base"], cwd=tree, dassl=dassl)
    assert "Dassl in use: real" in trained
    assert "* accuracy: " in trained
    assert (tree / "out/base/prompt_learner/model-3.safetensors").is_file()
    model = ["--eval-only", "--model-dir", "out/base", "--load-epoch", "3"]
    again = run(
        [*command, "--output-dir", "out/again", *model, *base, "base"], cwd=tree, dassl=dassl
    )
    assert re.findall(r"\* accuracy: .*", again) == re.findall(r"\* accuracy: .*", trained)
    run([*command, "--output-dir", "out/new", *model, *base, "new"], cwd=tree, dassl=dassl)
    result = json.loads((tree / "out/new/results.json").read_text())
    assert list(result["per_class_accuracy"]) == ["river", "storage tank"]
    # A mistake of the user's ends in one line there, too, and changes nothing.
    before = (tree / "out/base/results.json").read_bytes()
    mistakes = {
        "kind: there 'test', now 'train'": ["--output-dir", "out/new", *base, "new"],
        "shots: there 4, now 2": ["--output-dir", "out/base", "DATASET.NUM_SHOTS", "2"],
    }
    for words, more in mistakes.items():
        code, err = failure([*command, *more], cwd=tree, dassl=dassl)
        assert code == 1
        assert last_line(err).startswith("error: ")
        assert words in last_line(err)
        assert "Traceback" not in err
    assert (tree / "out/base/results.json").read_bytes() == before
    # The host's own trainers are still the host's.
    own, module = HOSTS[name]
    code = (
        "import train; from dassl.engine import TRAINER_REGISTRY as r;"
        f"print(r.get('{own}').__module__, r.get('QuaternionPrompt').__module__)"
    )
    listed = run([sys.executable, "-c", code], cwd=tree, dassl=dassl)
    assert listed.split()[-2:] == [module, "dplq.trainers.quaternion_prompt"]


@pytest.mark.parametrize("name", ["CoOp", "multimodal-prompt-learning", "PromptSRC", "DPLQ"])
def test_the_peers_config_files_load_unchanged(name):
    dassl_compat.ensure_dassl()
    from dassl.config import get_cfg_default

    from dplq.host.config import merge_file

    files = [
        path
        for path in sorted(peer(name).rglob("*.yaml"))
        if "configs" in path.parts or "config" in path.parts
    ]
    assert len(files) > 10
    for path in files:
        cfg = get_cfg_default()
        extend_cfg(cfg)
        merge_file(cfg, str(path))


def test_maples_scripts_run_with_three_names_changed(tmp_path):
    """base2new_train_maple.sh and base2new_test_maple.sh with DATA, TRAINER and CFG set."""
    maple = peer("multimodal-prompt-learning")
    make_project(tmp_path, images=24)
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("dplq", "trainers", "datasets", "train.py"):
        (tree / name).symlink_to(PROJECT / name)
    (tree / "configs/datasets").mkdir(parents=True)
    (tree / "configs/trainers/QuaternionPrompt").mkdir(parents=True)
    shutil.copy(tmp_path / "dataset.yaml", tree / "configs/datasets/own_images.yaml")
    config = (tmp_path / "trainer.yaml").read_text().replace("MAX_EPOCH: 3", "MAX_EPOCH: 5")
    (tree / "configs/trainers/QuaternionPrompt/tiny_ep5.yaml").write_text(config)
    for phase in ("train", "test"):
        text = (maple / f"scripts/maple/base2new_{phase}_maple.sh").read_text()
        text = re.sub("(?m)^DATA=.*$", f"DATA={tmp_path / 'data'}", text)
        text = re.sub("(?m)^TRAINER=.*$", "TRAINER=QuaternionPrompt", text)
        text = re.sub("(?m)^CFG=.*$", "CFG=tiny_ep5", text)
        (tree / f"{phase}.sh").write_text(text)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        run(["bash", f"{phase}.sh", "own_images", "1"], cwd=tree, PATH=path)
    common = "own_images/shots_16/QuaternionPrompt/tiny_ep5/seed1/results.json"
    base = json.loads((tree / "output/base2new/train_base" / common).read_text())
    new = json.loads((tree / "output/base2new/test_new" / common).read_text())
    assert list(base["per_class_accuracy"]) == ["forest", "parking lot"]
    assert list(new["per_class_accuracy"]) == ["river", "storage tank"]


def named(name, module):
    return type(name, (), {"__module__": module})


@pytest.fixture
def registry():
    dassl_compat.ensure_dassl()
    from dassl.utils import Registry

    return Registry("DATASET")


def test_a_name_clash_warns_once_and_the_first_stays(registry, caplog):
    first, second = (named("EuroSAT", f"{n}datasets.eurosat") for n in ("", "dplq."))
    with caplog.at_level(logging.WARNING):
        registry.register(first)
        assert not caplog.records
        assert dassl_compat._register(registry, second) is second
    assert registry.get("EuroSAT") is first
    assert [record.getMessage() for record in caplog.records] == [
        "Also registered by datasets, whose classes are used, not those of dplq.datasets: EuroSAT"
    ]


def test_a_host_that_registers_later_takes_the_name(registry, caplog):
    """As a decorator and as a function; clashes among its own names still raise."""
    names = ("DTD", "EuroSAT", "UCF101")
    for name in names:
        dassl_compat._register(registry, named(name, "dplq.datasets.ucf101"))
    dtd, eurosat = (named(name, f"datasets.{name.lower()}") for name in names[:2])
    with caplog.at_level(logging.WARNING):
        assert registry.register()(dtd) is dtd
        assert registry.register(eurosat) is None
        with pytest.raises(KeyError, match="DTD"):
            registry.register()(named("DTD", "datasets.another"))
        assert not caplog.records
        dassl_compat.report_clashes()
        dassl_compat.report_clashes()
    assert [registry.get(name).__module__ for name in names] == [
        *("datasets.dtd", "datasets.eurosat", "dplq.datasets.ucf101")
    ]
    assert registry.registered_names() == list(names)
    assert [record.getMessage().rpartition(", ")[0] for record in caplog.records] == [
        "Also registered by datasets, whose classes are used, not those of dplq.datasets: DTD"
    ]


def test_a_folder_of_the_name_of_dassl_is_none(tmp_path):
    """As a clone of its repository in the current folder has it."""
    (tmp_path / "dassl/dassl").mkdir(parents=True)
    code = "import dplq.plugin; from dplq.host.dassl import which_dassl; print(which_dassl())"
    variables = {"DPLQ_DASSL": "", "PYTHONPATH": str(PROJECT)}
    assert last_line(printed(["-c", code], tmp_path, **variables)) == "fallback"


@pytest.mark.parametrize("real", [True, False], ids=["real", "fallback"])
def test_a_coop_tree_that_imports_us_before_its_own(real):
    """Its own datasets and trainers are used, and a line for each of our packages says so."""
    code = """
import dplq.plugin, sys, train
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY as datasets
from dassl.engine import TRAINER_REGISTRY as trainers
dplq.plugin.extend_cfg(get_cfg_default())
for name in ("EuroSAT", "OxfordPets", "RSSCN7"):
    print(datasets.get(name).__module__, file=sys.stderr)
for name in ("CoOp", "MaPLe"):
    print(trainers.get(name).__module__, file=sys.stderr)
"""
    dassl = peer("Dassl.pytorch") if real else None
    command = [sys.executable, "-B", "-c", code]
    lines = run(command, cwd=peer("CoOp"), dassl=dassl, stream="stderr").splitlines()
    assert lines[-5:] == [
        *("datasets.eurosat", "datasets.oxford_pets", "dplq.datasets.rsscn7"),
        *("trainers.coop", "dplq.trainers.maple"),
    ]
    reports = [line.split(": ") for line in lines if line.startswith("Also registered by")]
    assert [(text.split()[-1], names.count(",") + 1) for text, names in reports] == [
        ("dplq.datasets", 15),
        ("dplq.trainers", 4),
    ]


def test_a_checkout_has_one_import_name_for_trainers_and_datasets():
    code = (
        "import dplq.plugin, sys; print([n for n in ('trainers', 'datasets') if n in sys.modules])"
    )
    assert printed(["-c", code], DPLQ_DASSL="fallback") == "[]\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("reel", "DPLQ_DASSL is 'reel'; it must be 'real', 'fallback' or not set"),
        ("real", "DPLQ_DASSL=real, but no Dassl is installed"),
    ],
)
def test_bad_choice_of_dassl(value, message):
    code = (
        "import importlib.util as u; u.find_spec = lambda n, p=None: None\n"
        "from dplq.host.dassl import ensure_dassl\n"
        "from dplq.errors import UserError\n"
        "try: ensure_dassl()\n"
        "except UserError as e: print(e)"
    )
    variables = dict(os.environ, DPLQ_DASSL=value, PYTHONPATH="")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, env=variables, capture_output=True, text=True
    )
    assert message in done.stdout, done.stderr


def test_a_real_dassl_reads_our_images_by_our_reader(monkeypatch, tmp_path):
    """Paths of a host's own datasets are read as before; calling it twice changes nothing."""
    from dassl.data import data_manager

    monkeypatch.setattr(data_manager, "read_image", lambda path: f"as before: {path}")
    dassl_compat._read_our_files()
    wrapped = data_manager.read_image
    dassl_compat._read_our_files()
    assert data_manager.read_image is wrapped
    path = str(tmp_path / "x.png")
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(path)
    assert wrapped(path) == f"as before: {path}"
    ours = wrapped(ImageFile(path, ReadSettings(window=(0, 4095))))
    assert ours.getextrema() == ((255, 255),) * 3


SPAWNED = """
import sys
from dplq.host.dassl import describe_dassl, ensure_dassl, prepare_worker
ensure_dassl()
from dassl.config import get_cfg_default
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dplq.plugin import extend_cfg
from dplq.training.loaders import accelerate_loader

def means(path):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS = (8, 8), ("center_crop",)
    for workers in (0, 1):
        cfg.DATALOADER.NUM_WORKERS = workers
        plain = build_data_loader(
            cfg, "SequentialSampler", [Datum(path, 0, 0, "x")], 1,
            tfm=build_transform(cfg, is_train=False), is_train=False,
        )
        quick = accelerate_loader(plain, cfg, is_train=False, prepare_worker=prepare_worker)
        quick.multiprocessing_context = "spawn" if workers else None
        yield from (round(float(batch["img"].mean()), 3) for batch in quick)

if __name__ == "__main__":
    print(describe_dassl(), *means(sys.argv[1]))
"""


@pytest.mark.parametrize("which", ["fallback", "real"])
def test_spawned_workers_read_as_their_parent_does(tmp_path, which):
    """With the real Dassl's own reader a 16-bit image would be white."""
    (tmp_path / "spawned.py").write_text(SPAWNED)
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.png")
    dassl = peer("Dassl.pytorch") if which == "real" else None
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        command = [sys.executable, str(tmp_path / "spawned.py"), str(tmp_path / "x.png")]
        last = run(command, dassl=dassl).splitlines()[-1]
    assert f"Dassl in use: {which}" in last
    assert last.split()[-2:] == ["0.5", "0.5"]


def test_a_broken_real_dassl_is_reported(tmp_path):
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl/__init__.py").write_text("import no_such_module\n")
    done = python(["train.py"], PYTHONPATH=str(tmp_path), DPLQ_DASSL="")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "The installed Dassl cannot be imported (ModuleNotFoundError" in done.stderr
    assert "DPLQ_DASSL=fallback" in done.stderr


HOST = """
import sys
from dassl.config import get_cfg_default
import dplq.plugin
cfg = get_cfg_default()
dplq.plugin.extend_cfg(cfg)
cfg.merge_from_list(sys.argv[1:])
from dassl.engine import build_trainer
build_trainer(cfg).train()
"""


@pytest.mark.parametrize(
    ("environment", "begins"),
    [({}, "error: "), ({"DPLQ_TRACEBACK": "0"}, "error: "), ({"DPLQ_TRACEBACK": "1"}, "Traceback")],
)
def test_a_users_mistake_is_one_line_in_any_script(tmp_path, environment, begins):
    script = "import dplq.host.dassl as d; d.ensure_dassl()\n" + HOST
    keys = ["DATASET.NAME", "OwnImages", "DATASET.ROOT", str(tmp_path), "TRAINER.NAME", "CoOp"]
    keys += ["MODEL.BACKBONE.NAME", "demo"]
    done = python(["-c", script, *keys], **environment)
    err = done.stderr
    assert done.returncode == 1
    assert begins in err
    assert ("Traceback" in err) == (begins == "Traceback")
    assert str(tmp_path) in err


def test_other_errors_keep_their_traceback():
    code, err = failure([sys.executable, "-c", "import dplq.plugin\n1 / 0"])
    assert code == 1
    assert err.startswith("Traceback")
    assert last_line(err) == "ZeroDivisionError: division by zero"


def test_extend_cfg_keeps_what_the_host_has():
    from yacs.config import CfgNode

    cfg = CfgNode({"TRAINER": {"MAPLE": {"N_CTX": 7}}, "DATASET": {}})
    extend_cfg(cfg)
    assert cfg.TRAINER.MAPLE.N_CTX == 7
    assert cfg.TRAINER.MAPLE.PROMPT_DEPTH == 9
    assert {key for key, _, _ in all_keys()} == set(dict(flatten(cfg)))


def test_keys_that_follow_the_preset_can_be_set():
    from yacs.config import CfgNode

    from dplq.host.config import merge_options

    cfg = CfgNode({"TRAINER": {}, "DATASET": {}})
    extend_cfg(cfg)
    node = "TRAINER.QUATERNIONPROMPT."
    merge_options(cfg, [node + "RESIDUAL", "True", node + "FUSION", "axes"])
    assert cfg.TRAINER.QUATERNIONPROMPT.RESIDUAL is True
    assert cfg.TRAINER.QUATERNIONPROMPT.FUSION == "axes"
    assert cfg.TRAINER.QUATERNIONPROMPT.NOISE is None


def test_wheel_has_one_top_level_name(tmp_path):
    """Only `dplq`, with every file of our packages, data included."""
    import zipfile

    wheel, source = build_wheel(tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dplq"}
    targets = {"dplq": "dplq"} | {
        package: f"dplq/{package}" for package in ("trainers", "datasets", "configs")
    }
    ours = {
        target + str(file).removeprefix(str(source / package))
        for package, target in targets.items()
        for file in (source / package).rglob("*")
        if file.is_file()
    }
    assert {"dplq/demo/assets/clip.safetensors", "dplq/configs/datasets/rsscn7.yaml"} <= ours
    assert ours <= set(names)


@pytest.mark.parametrize("name", ["trainers", "datasets"])
def test_the_short_name_is_refused_in_a_checkout(name):
    """A second name would make second classes, registered a second time."""
    done = python(["-c", f"import dplq.plugin, {name}"])
    assert done.returncode == 1
    assert f"ImportError: This is dplq.{name}: import it under that name." in done.stderr


def test_config_nodes_of_subclasses_and_of_foreign_trainers():
    """A subclass that is registered with Dassl's own decorator shares its parent's node."""
    code = """
import dplq.plugin
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dplq.host.config import all_keys
from dplq.trainers import register_trainer
from dplq.trainers.coop import CoOp
@TRAINER_REGISTRY.register()
class Theirs(CoOp): pass
@register_trainer
class Ours(CoOp): pass
@register_trainer
class Foreign(TrainerX): pass
print(Theirs.node, Ours.node, "TRAINER.OURS.N_CTX" in {key for key, _, _ in all_keys()})
"""
    assert printed(["-c", code], DPLQ_DASSL="fallback").split() == ["COOP", "OURS", "True"]


def print_short_names():
    short = ("trainers", "datasets", "configs")
    print(f"Short names: {[name for name in sys.modules if name.partition('.')[0] in short]}")


def test_a_run_imports_trainers_and_datasets_under_one_name(project, tmp_path):
    """Not as top-level `trainers` and `datasets`, although the checkout's root is on the path."""
    _, flags = project
    flags = [*flags, "--output-dir", str(tmp_path / "o"), "--no-train"]
    done = train(tmp_path / "log", flags, print_short_names)
    assert done.code == 0
    assert "Short names: []" in done.out
    assert "registered by" not in done.out
