"""RSSCN7 in miniature, and the command line run on it."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from dplq.data.__main__ import main
from dplq.data.catalogue import registered
from tests.datasets.lookalikes import REPOSITORY_RSSCN7


def dataset(name: str):
    import dplq.plugin  # noqa: F401

    return registered()[name]


def noisy(folder: Path, classes=REPOSITORY_RSSCN7, per_class: int = 6) -> Path:
    """Class folders of images that all differ."""
    for i, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for k in range(per_class):
            picture = Image.effect_noise((24 + i, 24), 20 + k).convert("RGB")
            picture.save(folder / name / f"{name[0]}{k:02d}.jpg")
    return folder


def run(capsys, *arguments) -> tuple[int, str]:
    """Exit code and output, with blanks joined."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def check(capsys, root: Path, *options) -> tuple[int, str]:
    return run(capsys, "check", "rsscn7", "--root", root, *options)


def write_split(root: Path, train: list, val: list, test: list) -> None:
    prompts = dataset("RSSCN7").at(str(root)).table.prompts
    parts = [[[path, i, prompts[i]] for i, path in part] for part in (train, val, test)]
    text = json.dumps(dict(zip(("train", "val", "test"), parts, strict=True)))
    (root / "RSSCN7" / "split_cao_RSSCN7.json").write_text(text)


def by_part(folder: Path) -> list[list[tuple[int, str]]]:
    """Three images of each class in train, one in val, two in test."""
    folders = ["bField", "eForest", "aGrass", "cIndustry", "gParking", "fResident", "dRiverLake"]
    paths = [
        [(i, f"{name}/{name[0]}{k:02d}.jpg") for k in range(6)] for i, name in enumerate(folders)
    ]
    return [[item for items in paths for item in items[a:b]] for a, b in ((0, 3), (3, 4), (4, 6))]
