"""``prompt_learner/train_images.json``: which images a model was trained on, by their content."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from dplq.io.atomic import write_bytes_atomically
from dplq.io.files import RECORDED, file_digest
from dplq.io.validation.schema import Count, Name, read_json

TRAIN_IMAGES_FILE = "train_images.json"  # beside the checkpoints
Mark = tuple[Count, Name]  # size and digest of an image


class TrainedImages(msgspec.Struct):
    """What the file says: dataset, hash of its split, mark of every image by name."""

    format: Literal[1]
    dataset: Name
    split: str | None
    train: dict[Name, Mark]


def mark_of(path: str) -> Mark:
    """Return what an image is known by, so that another folder or another name hides none."""
    return os.path.getsize(path), file_digest(path, RECORDED)


def write_trained_images(path: Path, record: TrainedImages) -> None:
    """Write the file."""
    content = json.dumps(msgspec.to_builtins(record), indent=0)  # names may be no UTF-8
    write_bytes_atomically(path, content.encode())


def read_trained_images(path: Path) -> TrainedImages:
    """Return what the file says.

    Raises:
        UserError: it is damaged.
    """
    remedy = (
        "It is the record of a run's training images: restore it, or delete it to test without "
        "this check."
    )
    return read_json(path, TrainedImages, remedy=remedy)


class TrainedImageFinder:
    """Finds the images that a model was trained on; a file is read only if its size is one of them.

    Args:
        trained: mark by name in the training.
    """

    def __init__(self, trained: Mapping[str, Mark]) -> None:
        self._by_size: dict[int, dict[str, str]] = defaultdict(dict)
        for name, (size, digest) in trained.items():
            self._by_size[size][digest] = name

    def name_of(self, path: str) -> str:
        """Return an image's name in the training; "" if it was not trained on."""
        known = self._by_size.get(os.path.getsize(path))
        return known.get(file_digest(path, RECORDED), "") if known else ""

    def names_of(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the name in training of those images that were trained on, by path."""
        return {path: name for path in paths if (name := self.name_of(path))}
