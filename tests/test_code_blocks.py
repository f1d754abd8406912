"""Code blocks and commands of the documentation: parsed by what they are for, some of them run."""

from __future__ import annotations

import ast
import csv
import importlib
import json
import re
import shlex
import sys
from collections import Counter
from typing import Any

import pytest
import yaml

import dplq.plugin  # noqa: F401  registers trainers and datasets
from dplq.__main__ import COMMANDS
from dplq.datasets import DECLARED
from dplq.experiments.requests.request import make_plan
from dplq.io import protocols
from tests.code_names import UNKNOWN, Names
from tests.command_lines import OF_OTHERS, PROGRAMS, Reader, check_keys, default_config, own_names
from tests.documents import BLOCKS, PAGES, Block, command, commands, without_blocks
from tests.packaged import setup_arguments
from tests.report.runs import table as predictions
from tests.results.test_results import write_pairs

LANGUAGES = ("bash", "csv", "json", "python", "text", "yaml")
STARTS = rf"(?:{'|'.join(PROGRAMS)})$|scripts/\w+\.sh$|[A-Z]+="
UNFINISHED = ("required", "expected one argument", "expected at least one argument")
KEY = re.compile(r"[A-Z]+(?:\.[A-Z][A-Z0-9_]*)+")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with what the pages' commands name: data, weights, finished runs."""
    folder = tmp_path_factory.mktemp("pages") / "checkout"
    for name in ("data", "my_data", "../shared/data", "DATA"):
        (folder / name).mkdir(parents=True)
    for declared in DECLARED.values():
        (folder / "DATA" / declared.dataset_dir).mkdir(parents=True, exist_ok=True)
    for out in ("output", "OUT", "output/fair_table"):
        for trainer in ("CoOp", "MaPLe", "PromptSRC"):
            write_pairs(folder / out, "demo_aerial", trainer=trainer)
    for path in folder.glob("*/**/results.json"):
        content = json.loads(path.read_text()) | {"metrics": {"balanced_accuracy": 0.5}}
        path.write_text(json.dumps(content))
    predictions(images=12).write(folder / "output/predictions.csv")
    (folder / "output/metrics.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    for block in BLOCKS:
        if block.language == "yaml" and "protocols" in yaml.safe_load(block.text):
            (folder / "sweep.yaml").write_text(block.text)
    for name in (
        *("my_class_bias.py", "my_scenes.py", "my_configs/datasets/my_scenes.yaml"),
        "my_configs/trainers/ClassBias/vit_b16.yaml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def here(place, monkeypatch):
    """Be in that folder."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(protocols, "_own", [])
    return place


@pytest.fixture(scope="module")
def extras():
    """Names of the extras in setup.py."""
    return set(setup_arguments()["extras_require"])


@pytest.fixture
def reader(monkeypatch, pytestconfig, extras, here):
    # Commands are read as where every extra is installed.
    monkeypatch.setattr("dplq.training.tracking.trackers._is_installed", lambda package: True)
    return Reader(monkeypatch, pytestconfig._parser, extras, here)


def of(*languages: str) -> list[Any]:
    """Return the blocks in these languages as parameters."""
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


def spans() -> list[Any]:
    """Return the command lines in the running text, each once a page."""
    found = {}
    for page, text in PAGES.items():
        for span in re.findall(r"`([^`]+)`", without_blocks(text)):
            usage = " [" in span and '"' not in span  # [--what may be left out]
            line = tuple((re.sub(r"[\[\]]", " ", span) if usage else span).split())
            if len(line) > 1 and re.match(STARTS, line[0]):
                found[page, line] = " ".join(line)
    return [pytest.param(page, line, id=f"{page}: {line}") for (page, _), line in found.items()]


def test_blocks_name_their_language():
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []


def test_commands_stand_in_fences():
    """An indented block would not be tested."""
    words = "|".join((*PROGRAMS, *sorted(OF_OTHERS)))
    found = {
        name: lines
        for name, text in PAGES.items()
        if (lines := re.findall(rf"^ {{4,}}(?:{words}) .+$", without_blocks(text), re.MULTILINE))
    }
    assert found == {}


@pytest.mark.parametrize("block", of("bash"))
def test_command_lines_of_blocks(block, reader):
    lines = list(commands(block))
    assert lines
    for line in lines:
        reader.check(line)


def examples() -> list[Any]:
    """Return the examples in the helps of our commands."""
    found = []
    for name, (module, _) in {"dplq": ("dplq.__main__", ""), **COMMANDS}.items():
        imported = importlib.import_module(module)
        text = getattr(imported, "EPILOG", None) or getattr(imported, "EXAMPLES", "")
        shell = re.sub(r"^(?!    ).*$", "", text.partition("examples:\n")[2], flags=re.MULTILINE)
        lines = list(commands(Block(name, 0, "bash", "", shell)))
        found += [pytest.param(line, id=" ".join(line.words)) for line in lines]
    return found


def test_commands_have_examples():
    counted = Counter(line.values[0].words[1] for line in examples())
    assert counted.keys() == COMMANDS.keys()
    assert counted["run"] > 4


@pytest.mark.parametrize("line", examples())
def test_the_examples_of_the_help(line, reader):
    reader.check(line)


@pytest.mark.parametrize(("page", "line"), spans())
def test_command_lines_in_the_text(page, line, reader):
    """A command may be named without its arguments there."""
    try:
        reader.check(command(shlex.split(line), page))
    except ValueError as error:
        if not any(words in str(error) for words in UNFINISHED):
            raise


def test_config_keys_in_the_text_exist():
    config, found = default_config(), []
    for page, text in PAGES.items():
        for span in re.findall(r"`([^`]+)`", without_blocks(text)):
            key = span.split()[0] if span.split() else ""
            own = {name.upper() for name in own_names(page)}
            if KEY.fullmatch(key) and not own & set(key.split(".")):
                node: Any = config
                for name in key.split("."):
                    node = node.get(name, UNKNOWN) if isinstance(node, dict) else UNKNOWN
                if node is UNKNOWN:
                    found.append(f"{page}: {key}")
    assert found == []


@pytest.mark.parametrize("block", of("python"))
def test_python_blocks(block):
    tree = ast.parse(block.text)
    if "file=" in block.words:
        compile(tree, block.place, "exec")  # test_extending.py runs it
    else:
        Names().visit(tree)


@pytest.mark.parametrize("page", ["docs/metrics.md", "docs/results.md", "docs/tracking.md"])
def test_python_blocks_that_need_only_results_run(page, here):
    pytest.importorskip("matplotlib").use("agg")
    (block,) = (block for block in BLOCKS if (block.page, block.language) == (page, "python"))
    exec(compile(block.text, block.place, "exec"), {})


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_blocks(block, here):
    content = yaml.safe_load(block.text)
    if "protocols" in content:
        from dplq.experiments.requests.sweep import read_sweep

        sweep = read_sweep(here / "sweep.yaml", here)
        assert make_plan(sweep.requests).runs
    elif "file=" not in block.words:  # those are read by test_extending.py
        from benchmarks.fair_table import read_fields

        (here / "fields.yaml").write_text(block.text, encoding="utf-8")
        for field in read_fields(here / "fields.yaml").values():
            for options in (field.options, *field.trainers.values()):
                check_keys([str(word) for pair in options.items() for word in pair])


@pytest.mark.parametrize("block", of("json"))
def test_json_blocks(block):
    """What is left out in them is written ``...``."""
    assert json.loads(re.sub(r",? ?\.\.\.", "", block.text))


@pytest.mark.parametrize("block", of("csv"))
def test_csv_blocks(block):
    header, *rows = csv.reader(block.text.splitlines())
    assert rows
    assert {len(row) for row in rows} == {len(header)}


WRONG_LINES = {
    "dplq trian": "no command trian",
    "dplq predict": "arguments are required",
    "dplq predict output/mine a.png --topl 3": "unrecognized arguments: --topl 3",
    "dplq train --trainer CoOp --dataset-config-file rsscn8 --output-dir o": "Did you mean rsscn7",
    "dplq train --trainer CoOp --dataset-config-file rsscn7 --output-dir o OPTIM.LT 1": "OPTIM.LT",
    "dplq run base2new rsscn7 --config vit_b61": "vit_b61",
    "dplq run base2new rsscn7 -- OPTIM.LT 1": "OPTIM.LT",
    "dplq demo --trainer Coop2": "Coop2 is not in the demo",
    "dplq data info RSSCN8": "There is no dataset 'RSSCN8'",
    "dplq models get biomedclop": "biomedclop",
    "dplq results output --by trainer,shot": "shot",
    "python benchmarks/step.py --sides none": "invalid choice: 'none'",
    "python -m tools.compare_engines condor": "invalid choice: 'condor'",
    "python -m tools.gone": "No module named 'tools.gone'",
    "python -m pytest tests/gone.py": "tests/gone.py",
    "python -m pytest -m gone": "gone",
    "bash scripts/gone.sh": "gone.sh",
    "SHOT=4 bash scripts/base2new.sh": "SHOT",
    "bash scripts/base2new.sh rsscn7 one": "'one' is no seed",
    "torchrun --nproc-per-node 2 train.py --sed 1": "unrecognized arguments: --sed",
    "pip install quaternion-prompt[gone]": "gone",
    "nox -s gone": "gone",
    "make docs": "no test knows the program make",
}


@pytest.mark.parametrize("line", WRONG_LINES)
def test_a_wrong_command_line_is_found(line, reader):
    with pytest.raises(Exception, match=re.escape(WRONG_LINES[line])):
        reader.check(command(shlex.split(line), "README.md"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("import dplq.gone", ImportError, "dplq.gone"),
        ("from dplq import gone", ImportError, "gone"),
        ("import dplq\ndplq.gone()", AttributeError, "gone"),
        ("import dplq\ndplq.load(classnames=['a'])", TypeError, "'path'"),
        ("import dplq\ndplq.QuaternionPromptCLIP(1, 2, 3, nctx=2)", TypeError, "nctx"),
        ("import dplq\ndplq.load('x').gone", AttributeError, "gone"),
        ("import dplq\ndplq.load('x').predict(['a'], top=3)", TypeError, "top"),
        (
            "import dplq\nfor one in dplq.load('x').predict(['a']):\n    print(one.gone)",
            AttributeError,
            "gone",
        ),
        ("model(images)", NameError, "model"),
    ],
)
def test_a_wrong_name_is_found(text, error, message):
    with pytest.raises(error, match=message):
        Names().visit(ast.parse(text))
