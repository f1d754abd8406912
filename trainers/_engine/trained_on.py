"""``prompt_learner/train_images.json``: which images a model was trained on.

It lies beside the checkpoints, so that no later test is on these images.
"""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from dplq.errors import UserError, few
from dplq.io.atomic import write_bytes_atomically
from dplq.io.files import bytes_digest, file_digest
from dplq.io.validation.paths import is_file, is_same_folder
from dplq.io.validation.schema import Count, Name, read_json

logger = logging.getLogger(__name__)
FILE = "train_images.json"
DIGEST = "blake2b-128"
KEY = "TEST.ALLOW_TRAIN_IMAGES"
Mark = tuple[Count, Name]  # size and digest of an image


class Record(msgspec.Struct):
    """What the file says: dataset, hash of its split, mark of every image by name."""

    format: Literal[1]
    dataset: Name
    split: str | None
    train: dict[Name, Mark]


def split_hash(trainer: Any) -> str | None:
    """Return the hash of the split in use; None for a host's datasets."""
    return getattr(trainer.dm.dataset, "split_hash", None)


def data_digest(trainer: Any) -> str:
    """Return the digest of the images in use: part, name, class and size of each file.

    A corrected label or a replaced image makes another run of the same split.
    """
    data, lines = trainer.dm.dataset, []
    folder = getattr(data, "image_dir", "")
    for part, items in (("train", data.train_x), ("val", data.val), ("test", data.test)):
        for item in items or ():
            path = str(item.impath)
            lines.append(f"{part} {_name(path, folder)} {item.classname} {_size(path)}")
    text = "\n".join(sorted(lines))
    return bytes_digest(text.encode("utf-8", "surrogateescape"), DIGEST)


def _name(path: str, folder: str) -> str:
    """Return an image's path below the folder of images; its name where there is none."""
    return os.path.relpath(path, folder) if folder else os.path.basename(path)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it cannot be read: that is said where it is
        return -1


def write_train_images(trainer: Any) -> None:
    """Write the record of a run that is about to train: its split, and its training images.

    Images are known by their content, so that another folder or another name hides none of them.
    """
    images: dict[str, Mark] = {}
    folder = getattr(trainer.dm.dataset, "image_dir", "")
    for item in trainer.dm.dataset.train_x:
        path = str(item.impath)
        images[_name(path, folder)] = (os.path.getsize(path), file_digest(path, DIGEST))
    record = Record(1, trainer.cfg.DATASET.NAME, split_hash(trainer), images)
    path = trainer.model_dir(trainer.output_dir) / FILE
    content = json.dumps(msgspec.to_builtins(record), indent=0)  # names may be no UTF-8
    write_bytes_atomically(path, content.encode())


def check_tested_images(trainer: Any, directory: str) -> None:
    """Compare the images to test with those a model was trained on.

    Datasets that are tested as a whole only cause a warning: their images are asked for.

    Args:
        trainer: with the dataset that is to be tested.
        directory: folder of the training run.

    Raises:
        UserError: training images would be tested, and the config does not ask for that.
    """
    path = trainer.model_dir(directory) / FILE
    if not is_file(path):
        logger.info("%s is not there: whether training images are tested is not known", path)
        return
    if is_same_folder(directory, trainer.recorded_in):
        return  # the best epoch of this very run
    record = _read(path)
    if record.dataset == trainer.cfg.DATASET.NAME and not _differs(record, trainer):
        return  # what the dataset may hold twice, `data check` reports
    tested = [str(item.impath) for item in tested_items(trainer)]
    shared = _shared(record.train, tested)
    if not shared:
        return
    message = (
        f"{len(shared)} of the {len(tested)} images to test are among the {len(record.train)} "
        f"that the model in {directory} was trained on: "
        + few((f"{name} = {path}" for path, name in shared.items()), 3)
    )
    all_test = getattr(trainer.dm.dataset, "test_only", False)  # which asks for every image
    if not all_test and not trainer.cfg.TEST.get("ALLOW_TRAIN_IMAGES", False):
        raise UserError(
            f"{message}. Test other images, or with the split of the training; {KEY} True tests "
            "them all the same."
        )
    logger.warning("%s. They are tested, too: the accuracy is too high.", message)


def _differs(record: Record, trainer: Any) -> bool:
    """Warn of, and return, whether split or images are not those of the training any more."""
    name, ours, theirs = record.dataset, split_hash(trainer), record.split
    if ours is None or ours != theirs:
        logger.warning(
            "The model was trained on another split of %s (hash %s) than this one (hash %s)",
            name,
            theirs,
            ours,
        )
        return True
    if _is_unchanged(record.train, getattr(trainer.dm.dataset, "image_dir", "")):
        return False
    logger.warning("Images of %s have changed since the model was trained on them", name)
    return True


def _is_unchanged(trained: dict[str, Mark], folder: str) -> bool:
    """Return whether the images that were trained on are what their names stand for now."""
    for name, (size, digest) in trained.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return False
        if file_digest(path, DIGEST) != digest:
            return False
    return True


def tested_items(trainer: Any) -> list[Any]:
    """Return the dataset's items that the final test uses."""
    data = trainer.dm.dataset
    return list(data.val if trainer.cfg.TEST.SPLIT == "val" and data.val else data.test)


def _shared(trained: dict[str, Mark], tested: Iterable[str]) -> dict[str, str]:
    """Return the name in training of every tested image that was trained on; sizes differ first."""
    by_size: dict[int, dict[str, str]] = defaultdict(dict)
    for name, (size, digest) in trained.items():
        by_size[size][digest] = name
    shared = {}
    for path in tested:
        known = by_size.get(os.path.getsize(path))
        found = known.get(file_digest(path, DIGEST)) if known else None
        if found:
            shared[path] = found
    return shared


def _read(path: Path) -> Record:
    remedy = (
        "It is the record of a run's training images: restore it, or delete it to test without "
        "this check."
    )
    return read_json(path, Record, remedy=remedy)
