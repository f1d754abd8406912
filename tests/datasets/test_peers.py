"""Split files travel both ways: what the peers read is what we read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import datasets
from tests.peers import peer

from .lookalikes import make_classes, make_config, parts

PEER_SCRIPT = """
import importlib, json, sys
from types import SimpleNamespace as NS
from datasets.oxford_pets import OxfordPets

def plain(items):
    return [[item.impath, item.label, item.classname] for item in items]

read, loaded = json.loads(sys.argv[1])
answer = {"read": [], "loaded": []}
for split_path, image_dir in read:
    answer["read"].append([plain(part) for part in OxfordPets.read_split(split_path, image_dir)])
for name, root, subset in loaded:
    cfg = NS(SEED=1, DATASET=NS(ROOT=root, NUM_SHOTS=-1, SUBSAMPLE_CLASSES=subset))
    data = getattr(importlib.import_module("datasets." + name), name)(cfg)
    answer["loaded"].append([plain(part) for part in (data.train_x, data.val, data.test)])
print("ANSWER" + json.dumps(answer))
"""


def ask(repository: Path, read: list, loaded: list) -> dict:
    """Run the peer's own code in a process of its own."""
    path = os.pathsep.join([str(repository), str(peer("Dassl.pytorch"))])
    done = subprocess.run(
        [sys.executable, "-c", PEER_SCRIPT, json.dumps([read, loaded])],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("ANSWER")[1])


@pytest.fixture
def roots(tmp_path) -> Path:
    """The three data sets in the layout and with the folder names of the authors' loaders."""
    for name in ("RSSCN7", "WHURS19", "BTMRI"):
        folders = [row[-1] for row in getattr(datasets, name).class_table]
        if name == "BTMRI":
            folders = ["glioma", "meningioma", "notumor", "pituitary"]
        make_classes(tmp_path / name / name, folders, 4)
    return tmp_path


def absolute(dataset) -> list[list[list]]:
    return [
        [[os.path.join(dataset.image_dir, path), label, name] for path, label, name in items]
        for items in parts(dataset).values()
    ]


def test_coop_reads_our_split(roots):
    repository = peer("multimodal-prompt-learning")
    ours = [getattr(datasets, n)(make_config(roots)) for n in ("RSSCN7", "WHURS19", "BTMRI")]
    answer = ask(repository, [[d.split_path, d.image_dir] for d in ours], [])
    assert answer["read"] == [absolute(dataset) for dataset in ours]


def test_authors_loaders_and_ours_agree_on_one_split(roots):
    repository = peer("DPLQ")
    names = ("RSSCN7", "WHURS19", "BTMRI")
    for name in names:  # the authors' split file: shuffled by them, with their class names
        own = Path(getattr(datasets, name)(make_config(roots)).split_path)
        split = {
            part: [[path, label, path.split("/")[0]] for path, label, _ in reversed(items)]
            for part, items in json.loads(own.read_text()).items()
        }
        own.with_name(f"split_cao_{name}.json").write_text(json.dumps(split))
    jobs = [[name, str(roots), subset] for name in names for subset in ("all", "base", "new")]
    theirs = ask(repository, [], jobs)["loaded"]
    for (name, _, subset), reference in zip(jobs, theirs, strict=True):
        dataset = getattr(datasets, name)(make_config(roots, SUBSAMPLE_CLASSES=subset))
        assert [[item[:2] for item in part] for part in absolute(dataset)] == [
            [item[:2] for item in part] for part in reference
        ]
