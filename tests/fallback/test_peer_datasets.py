"""Unmodified dataset files of the trees, on the fallback."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.fallback.lookalikes import PETS, write_all, write_folders
from tests.fallback.places import FALLBACK, finish, start
from tests.peers import peer

NAMES = ["OxfordPets", "DescribableTextures", "EuroSAT"]
AERIAL = ("aGrass", "bField", "cIndustry", "dRiverLake")


def _build(tree: str, work, names: list[str], dassl=FALLBACK) -> dict:
    write_folders(work / "data" / "RSSCN7" / "RSSCN7", AERIAL)
    out = work / "out.json"
    args = (peer(tree), write_all(work / "data"), out, *names)
    finish(start("peer_datasets.py", *args, path=[dassl], cwd=work))
    return json.loads(out.read_text())


@pytest.mark.parametrize("tree", ["CoOp", "multimodal-prompt-learning", "PromptSRC", "DPLQ"])
def test_builds_splits_samples_and_halves(tree, tmp_path):
    names = [*NAMES, "RSSCN7"] if tree == "DPLQ" else NAMES
    got = _build(tree, tmp_path, names)
    assert got["failed"] == []
    assert got["registered"] == (50 if tree == "DPLQ" else 15)
    for name in names:
        every, base, new = (got[name][half] for half in ("all", "base", "new"))
        classes = len(every["classnames"])
        assert Counter(label for _, label in every["train_x"]) == dict.fromkeys(range(classes), 2)
        assert base["classnames"] + new["classnames"] == every["classnames"]
        assert len(base["classnames"]) == -(-classes // 2)
        for part in ("train_x", "val", "test"):
            halves = [file for half in (base, new) for file, _ in half[part]]
            assert sorted(halves) == sorted(file for file, _ in every[part])
        assert {label for _, label in new["test"]} == set(range(len(new["classnames"])))
    assert got["OxfordPets"]["all"]["classnames"] == [name.lower() for name in PETS]


def test_same_split_and_sample_as_on_the_real_dassl(tmp_path):
    results = []
    for label, dassl in (("real", peer("Dassl.pytorch")), ("ours", FALLBACK)):
        (tmp_path / label).mkdir()
        results.append(_build("CoOp", tmp_path / label, ["OxfordPets"], dassl)["OxfordPets"])
    assert results[0] == results[1]
