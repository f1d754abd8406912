"""Split files travel both ways, and the originals' loaders see what ours see.

The peers' code runs unchanged in a process of its own, on our Dassl and on the real one.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dplq import datasets
from dplq.datasets import DECLARED
from tests.peers import peer

from .lookalikes import make_classes, make_config, parts

PROJECT = Path(datasets.__file__).resolve().parent.parent
PEER_SCRIPT = """
import importlib, json, sys
from types import SimpleNamespace as NS
from dassl.data.datasets import DATASET_REGISTRY
from datasets.oxford_pets import OxfordPets

def plain(items):
    return [[item.impath, item.label, item.classname] for item in items or []]

def answered(asked):
    answer = {"read": [], "loaded": []}
    for path, image_dir in asked.get("read", []):
        answer["read"].append([plain(part) for part in OxfordPets.read_split(path, image_dir)])
    for name, root, subset in asked.get("load", []):
        importlib.import_module("datasets." + name)
        cfg = NS(SEED=1, DATASET=NS(ROOT=root, NUM_SHOTS=-1, SUBSAMPLE_CLASSES=subset))
        data = DATASET_REGISTRY.get(name)(cfg)
        answer["loaded"].append([plain(part) for part in (data.train_x, data.val, data.test)])
    return answer

for line in sys.stdin:
    print("ANSWER" + json.dumps(answered(json.loads(line))), flush=True)
"""
SAMPLED = ("RSSCN7", "WHURS19", "BTMRI")
SAMPLES = PROJECT.parent / "shared" / "data"
DPLQ = [
    "AID",
    "BTMRI",
    "CCBTM",
    "CHMNIST",
    "COVID19",
    "Kvasir",
    "MEMNIST",
    "MLRSNet",
    "MSTAR",
    "PatternNet",
    "RSD46",
    "RSICD",
    "RSSCN7",
    "TMR17",
    "UCM",
    "WHURS19",
    "airplane",
    "nwpu",
    "ship",
]


@pytest.fixture(scope="module")
def ask():
    """`ask(repository, dassl, **asked)` runs a peer's own code; one process serves all tests."""
    running: dict[tuple[Path, str], subprocess.Popen] = {}

    def start(repository: Path, dassl: str) -> subprocess.Popen:
        home = PROJECT / "dplq" / "_fallback" if dassl == "fallback" else peer("Dassl.pytorch")
        path = os.pathsep.join(map(str, [repository, home, PROJECT]))
        return subprocess.Popen(
            [sys.executable, "-c", PEER_SCRIPT],
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(repository: Path, dassl: str = "fallback", **asked: list) -> dict:
        key = (repository, dassl)
        process = running.get(key) or running.setdefault(key, start(*key))
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        lines = iter(process.stdout.readline, "")
        found = next((line for line in lines if line.startswith("ANSWER")), None)
        assert found, f"{repository.name} stopped with {process.wait()}"
        return json.loads(found.removeprefix("ANSWER"))

    yield answer
    for process in running.values():
        process.kill()
        process.communicate()


def folders_of(name: str) -> list[str]:
    """The folder names that the authors' loader of a sampled set expects."""
    rows = getattr(datasets, name).class_table
    return [row[1] if name == "BTMRI" else row[-1] for row in rows]


@pytest.fixture
def roots(tmp_path) -> Path:
    """The three sets as the authors' loaders expect them: real samples where they are."""
    for name in SAMPLED:
        if not (SAMPLES / name).is_dir():
            make_classes(tmp_path / name / name, folders_of(name), 4)
            continue
        data = getattr(datasets, name).at(str(SAMPLES))
        layout = data.find_layout()
        for label, folder in enumerate(folders_of(name)):
            source = Path(layout.image_dir, next(_spelled(layout.image_dir, data.table, label)))
            (tmp_path / name / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / name / folder).symlink_to(source)
    return tmp_path


def _spelled(image_dir: str, table, label: int):
    return (name for name in sorted(os.listdir(image_dir)) if table.label_of(name) == label)


def keys_of(path: Path) -> list[str]:
    """The folder names that an original loader knows: the keys of its table of prompts."""
    tables = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign)]
    return next(list(ast.literal_eval(n.value)) for n in tables if n.targets[0].id == "NEW_CNAMES")


def absolute(dataset) -> list[list[list]]:
    return [
        [[os.path.join(dataset.image_dir, path), label, name] for path, label, name in items]
        for items in parts(dataset).values()
    ]


def without_names(split: list[list[list]]) -> list[list[list]]:
    return [[item[:2] for item in part] for part in split]


def jobs(root: Path) -> list[list[str]]:
    return [[name, str(root), subset] for name in SAMPLED for subset in ("all", "base", "new")]


def test_coop_reads_our_split(roots, ask):
    repository = peer("multimodal-prompt-learning")
    ours = [getattr(datasets, n)(make_config(roots, CHECK_IMAGES=False)) for n in SAMPLED]
    answer = ask(repository, read=[[d.split_path, d.image_dir] for d in ours])
    assert answer["read"] == [absolute(dataset) for dataset in ours]


@pytest.mark.parametrize("dassl", ["fallback", "real"])
def test_authors_loaders_run_on_our_split(roots, dassl, ask):
    repository = peer("DPLQ")
    ours = {}
    for name, _, subset in jobs(roots):
        ours[name, subset] = getattr(datasets, name)(
            make_config(roots, CHECK_IMAGES=False, SUBSAMPLE_CLASSES=subset)
        )
        own = Path(ours[name, subset].split_path)
        shutil.copy(own, roots / name / "kept.json")
    for name in SAMPLED:
        (roots / name / "kept.json").rename(roots / name / f"split_cao_{name}.json")
    theirs = ask(repository, dassl, load=jobs(roots))["loaded"]
    assert theirs == [absolute(ours[name, subset]) for name, _, subset in jobs(roots)]


def test_authors_loaders_and_ours_agree_on_their_split(roots, ask):
    """The authors' loaders make the split: shuffled by them, with their class names."""
    theirs = ask(peer("DPLQ"), load=jobs(roots))["loaded"]
    for (name, _, subset), reference in zip(jobs(roots), theirs, strict=True):
        config = {"SUBSAMPLE_CLASSES": subset}
        dataset = getattr(datasets, name)(make_config(roots, CHECK_IMAGES=False, **config))
        assert dataset.split_path == str(roots / name / f"split_cao_{name}.json")
        assert without_names(absolute(dataset)) == without_names(reference)
        as_theirs = getattr(datasets, name)(
            make_config(roots, CHECK_IMAGES=False, PROTOCOL="reference", **config)
        )
        assert absolute(as_theirs) == reference


def test_every_original_loader_has_our_labels_and_its_prompts_are_our_reference(tmp_path, ask):
    """On folders with the names that it expects, all of DPLQ's and their v2 variants."""
    repository = peer("DPLQ")
    variants = [f"{n}v2" for n in DPLQ if (repository / "datasets" / f"{n}v2.py").is_file()]
    for name in DPLQ:
        inside = "RSD46/train" if name == "RSD46" else name
        make_classes(tmp_path / name / inside, keys_of(repository / f"datasets/{name}.py"), 4)
    names = [*DPLQ, *variants]
    theirs = ask(repository, load=[[name, str(tmp_path), "all"] for name in names])["loaded"]
    for path in tmp_path.glob("*/split_cao_*.json"):
        path.unlink()
    for name, original in zip(names, theirs, strict=True):
        declared = DECLARED[name.replace("nwpu", "NWPU")]
        ours = declared(make_config(tmp_path, PROTOCOL="reference", CHECK_IMAGES=False))
        if name in variants:
            assert sorted(absolute(ours)[2]) == sorted(original[2])
            assert len(original[0]) == len(ours.train_x)
            assert original[1] == []
        assert {tuple(item) for part in absolute(ours) for item in part} == {
            tuple(item) for part in original for item in part
        }
