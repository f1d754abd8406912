"""Tiny look-alikes of image data sets, made on the fly, and the config that loads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from yacs.config import CfgNode

REPOSITORY_RSSCN7 = (
    "aGrass bField cIndustry dRiverLake eForest fResident gParking".split()
)  # as unpacked
RSSCN7_PROMPTS = [
    "Field",
    "Forest",
    "Grass",
    "Industrial Area",
    "Parking",
    "Residential Area",
    "River or Lake",
]


def make_classes(
    folder: Path, classes: Iterable[str] | Mapping[str, int], per_class: int = 10
) -> Path:
    """Write 8x8 images `<class>/<first letter>NN.jpg`; a mapping gives a count per class."""
    counts = classes if isinstance(classes, Mapping) else dict.fromkeys(classes, per_class)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(folder / name / f"{name[0]}{i:02d}.jpg")
    return folder


def make_config(root: Path, *, seed: int = 1, shots: int = -1, **dataset: Any) -> CfgNode:
    """The part of a Dassl config that data sets read. Keys not given are absent."""
    keys = {"ROOT": str(root), "NUM_SHOTS": shots, **dataset}
    return CfgNode({"SEED": seed, "DATASET": CfgNode(keys)})


def triples(items: Iterable[Any], image_dir: str) -> list[tuple[str, int, str]]:
    """Datums as (path relative to the image folder, label, class name)."""
    return [
        (Path(item.impath).relative_to(image_dir).as_posix(), item.label, item.classname)
        for item in items
    ]


def parts(dataset: Any) -> dict[str, list[tuple[str, int, str]]]:
    """The three parts of a loaded data set."""
    named = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    return {part: triples(items, dataset.image_dir) for part, items in named.items()}


def edit_json(path: Path, **changes: Any) -> None:
    """Replace top-level entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
