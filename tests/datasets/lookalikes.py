"""Tiny look-alikes of image datasets, made on the fly, and the config that loads them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from yacs.config import CfgNode

from dplq.datasets._engine.layout.layouts import Layout
from dplq.datasets._engine.official import labelled
from dplq.datasets._engine.protocol import split_classes

REPOSITORY_RSSCN7 = [
    "aGrass",
    "bField",
    "cIndustry",
    "dRiverLake",
    "eForest",
    "fResident",
    "gParking",
]  # as unpacked
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
    """The part of a Dassl config that datasets read. Keys not given are absent."""
    keys = {"ROOT": str(root), "NUM_SHOTS": shots, **dataset}
    return CfgNode({"SEED": seed, "DATASET": CfgNode(keys)})


def triples(items: Iterable[Any], image_dir: str) -> list[tuple[str, int, str]]:
    """Datums as (path relative to the image folder, label, class name)."""
    return [
        (Path(item.impath).relative_to(image_dir).as_posix(), item.label, item.classname)
        for item in items
    ]


def parts(dataset: Any) -> dict[str, list[tuple[str, int, str]]]:
    """The three parts of a loaded dataset."""
    named = {"train": dataset.train_x, "val": dataset.val, "test": dataset.test}
    return {part: triples(items, dataset.image_dir) for part, items in named.items()}


def edit_json(path: Path, **changes: Any) -> None:
    """Replace top-level entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


CLASSES = ("red fox", "barn owl", "river otter", "grass snake", "tree frog")  # where a file names
LISTS = {"FGVCAircraft": ("variants.txt", "{file} {name}\n")}  # its class names, a line of a list


def make_lookalike(
    declared: Any, root: Path, layout: Layout | None = None, per_class: int = 4
) -> tuple[Path, list[str], tuple[int, int, int]]:
    """Make a tiny dataset with the folders and files that a declaration asks for.

    Args:
        declared: a class of `datasets.DECLARED`.
        root: `DATASET.ROOT` to be.
        layout: one of its `layouts()`; the first of them if it is not given.
        per_class: images of every class, in each part of the layout.

    Returns:
        Its folder, the prompt names by label, and the sizes of train, val and test of a class.
    """
    data = declared.at(str(root))
    folder = Path(data.dataset_dir)
    folder.mkdir(parents=True, exist_ok=True)
    layout = layout or data.layouts()[0]
    if declared.list_files:
        return folder, list(CLASSES), _make_lists(declared, folder, per_class)
    if declared.class_file:
        lines = (f"n{label:08d} {name}\n" for label, name in enumerate(CLASSES))
        (folder / declared.class_file).write_text("".join(lines))
        data = declared.at(str(root))
    rows = data.table.rows or [(name,) for name in CLASSES]
    images = [_make_images(layout, row[1] if row[1:] else row[0], per_class) for row in rows]
    prompts = [row[0] for row in rows]
    split = split_classes(labelled(images, prompts), declared.__name__)
    sizes = tuple(len(part) // len(rows) for part in split)
    if declared.needs_split:
        name = declared.split_files[0].format(declared.__name__)
        (folder / name).write_text(json.dumps(split._asdict()))
    elif layout.kept:
        sizes = {
            "half": (per_class, per_class // 2, per_class // 2),
            "test": (per_class, per_class, per_class),
        }[declared.val_from]
    return folder, prompts, (len(images[0]), 0, len(images[0])) if declared.test_only else sizes


def _make_images(layout: Layout, name: str, count: int) -> list[str]:
    """Write one class; the paths relative to the image folder."""
    pattern = layout.pattern.replace("?", "0").replace("{class}", name)
    *steps, last = pattern.split("/")
    steps = ["any" if step == "*" else step for step in steps]
    paths = [
        "/".join(filter(None, [part, *steps, last.replace("*", f"{i:02d}.jpg")]))
        for part in layout.parts
        for i in range(count)
    ]
    for path in paths:
        write_image(Path(layout.image_dir, path))
    return paths


def _make_lists(declared: Any, folder: Path, count: int) -> tuple[int, int, int]:
    """Write the lists of file names, the class names and the images; `count` in every part."""
    names, line = LISTS[declared.__name__]
    (folder / names).write_text("".join(f"{name}\n" for name in CLASSES))
    number = 0
    for file in declared.list_files:
        lines = []
        for name in CLASSES * count:
            number += 1
            lines.append(line.format(file=f"{number:07d}", name=name))
            write_image(folder / declared.list_image.format(file=f"{number:07d}"))
        (folder / file).write_text("".join(lines))
    return (count, count, count)


def write_image(path: Path) -> None:
    """Write an 8x8 JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_JPEG)


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 60)).save(file, "JPEG")
    return file.getvalue()


_JPEG = _jpeg()
