"""Tiny datasets in the folder layouts that the trees' dataset files read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PETS = ("Abyssinian", "beagle", "Birman", "pug")
TEXTURES = ("banded", "dotted", "woven")
LANDS = ("AnnualCrop", "Forest", "River")


def _image(path: Path, draw: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 255, (36, 40, 3)).astype(np.uint8)).save(path)


def write_folders(root: Path, classes: tuple[str, ...], count: int = 10) -> None:
    """Write `count` images per class into <root>/<class>/ (DTD, EuroSAT, RSSCN7, ...)."""
    draw = np.random.default_rng(len(classes))
    for name in classes:
        for number in range(count):
            _image(root / name / f"{name}_{number}.jpg", draw)


def write_pets(root: Path) -> None:
    """Write Oxford Pets: <root>/images/<Breed>_<n>.jpg and <root>/annotations/*.txt."""
    draw = np.random.default_rng(0)
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, breed in enumerate(PETS, start=1):
        for number in range(8):
            _image(root / "images" / f"{breed}_{number}.jpg", draw)
            part = "trainval" if number < 5 else "test"
            lines[part].append(f"{breed}_{number} {label} 1 1")
    (root / "annotations").mkdir()
    for part, rows in lines.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(rows) + "\n")


def write_all(root: Path) -> Path:
    """Write the three datasets of the trainer tests under `root`."""
    write_pets(root / "oxford_pets")
    write_folders(root / "dtd" / "images", TEXTURES)
    write_folders(root / "eurosat" / "2750", LANDS)
    return root
