"""Records which images a model is trained on, so that no later test is on these."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from dplq.errors import UserError, few
from dplq.io.files import RECORDED, bytes_digest
from dplq.io.runs.labels import digest_now, relative_to
from dplq.io.runs.trained_images import (
    TRAIN_IMAGES_FILE,
    Mark,
    TrainedImageFinder,
    TrainedImages,
    mark_of,
    read_trained_images,
    write_trained_images,
)
from dplq.io.validation.paths import is_file, is_same_folder
from dplq.methods.trained_names import trained_rows

logger = logging.getLogger(__name__)
KEY = "TEST.ALLOW_TRAIN_IMAGES"


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
            # as earlier versions have it, whose runs go on
            name = os.path.relpath(path, folder) if folder else os.path.basename(path)
            lines.append(f"{part} {name} {item.classname} {_size(path)}")
    text = "\n".join(sorted(lines))
    return bytes_digest(text.encode("utf-8", "surrogateescape"), RECORDED)


def label_digests(trainer: Any) -> dict[str, str]:
    """Return the digests of the files with labels, by their path from DATASET.ROOT.

    They are to be compared without reading the dataset: `dplq run` does so.
    """
    find = getattr(trainer.dm.dataset, "label_files", list)  # a host's datasets have none
    root = os.path.abspath(os.path.expanduser(trainer.cfg.DATASET.ROOT))
    return {relative_to(root, path): digest_now(str(path)) for path in find()}


def image_folder(trainer: Any) -> str:
    """Return the folder that names of images begin in: DATASET.ROOT for a host's datasets."""
    folder = getattr(trainer.dm.dataset, "image_dir", "")
    return folder or os.path.abspath(os.path.expanduser(trainer.cfg.DATASET.ROOT))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # it cannot be read: that is said where it is
        return -1


def write_train_images(trainer: Any) -> None:
    """Write the record of a run that is about to train: its split, and its training images."""
    folder = image_folder(trainer)
    paths = [str(item.impath) for item in trainer.dm.dataset.train_x]
    images = {relative_to(folder, path): mark_of(path) for path in paths}
    record = TrainedImages(1, trainer.cfg.DATASET.NAME, split_hash(trainer), images)
    write_trained_images(trainer.model_dir(trainer.output_dir) / TRAIN_IMAGES_FILE, record)


def check_tested_images(trainer: Any, directory: str) -> None:
    """Compare the images to test with those a model was trained on.

    Datasets that are tested as a whole only cause a warning: their images are asked for. So do
    equal images of other names in a host's dataset, whose split is not known: it may hold them
    twice.

    Args:
        trainer: with the dataset that is to be tested.
        directory: folder of the training run.

    Raises:
        UserError: training images would be tested, and the config does not ask for that.
    """
    path = trainer.model_dir(directory) / TRAIN_IMAGES_FILE
    if not is_file(path):
        logger.info("%s is not there: whether training images are tested is not known", path)
        return
    if is_same_folder(directory, trainer.recorded_in):
        return  # the best epoch of this very run
    record = read_trained_images(path)
    if record.dataset == trainer.cfg.DATASET.NAME and not _differs(record, trainer):
        return  # what the dataset may hold twice, `data check` reports
    tested = [str(item.impath) for item in tested_items(trainer)]
    shared = TrainedImageFinder(record.train).names_of(tested)
    if not shared:
        return
    message = (
        f"{len(shared)} of the {len(tested)} images to test are among the {len(record.train)} "
        f"that the model in {directory} was trained on: "
        + few((f"{name} = {path}" for path, name in shared.items()), 3)
    )
    is_asked_for = getattr(trainer.dm.dataset, "test_only", False)
    if split_hash(trainer) is None and record.split is None:
        folder = image_folder(trainer)
        names = {relative_to(folder, path) for path in shared} | set(map(os.path.basename, shared))
        is_asked_for |= names.isdisjoint(record.train)
    if not is_asked_for and not trainer.cfg.TEST.get("ALLOW_TRAIN_IMAGES", False):
        raise UserError(
            f"{message}. Test other images, or with the split of the training; {KEY} True tests "
            "them all the same."
        )
    logger.warning("%s. They are tested, too: the accuracy is too high.", message)


def check_tested_classes(trainer: Any, header: Mapping[str, Any], directory: str) -> None:
    """Compare the classes to test with those of a model that was trained on the same split.

    Which classes are base and which are new is a matter of their order (classes.json, a split
    file), which can change between a training and its test.

    Args:
        trainer: with the dataset that is to be tested.
        header: of the model's checkpoint.
        directory: folder of the training run; a run may test the classes that it trains.

    Raises:
        UserError: the model was trained on classes that are to be tested as new ones.
    """
    split, learned = header.get("split"), header.get("classnames") or ()
    if is_same_folder(directory, trainer.recorded_in):
        return
    if not split or split != split_hash(trainer):
        return  # another dataset may have classes of the same names
    which, names = trainer.cfg.DATASET.SUBSAMPLE_CLASSES, trainer.dm.dataset.classnames
    rows = trained_rows(names, learned)
    trained = [name for name, row in zip(names, rows, strict=True) if row is not None]
    if which == "new" and len(trained) == len(names) and len(learned) >= 2 * len(names):
        logger.warning(
            "DATASET.SUBSAMPLE_CLASSES is new, but the model was trained on all classes: this is "
            "no accuracy on new ones."
        )
    elif which == "new" and trained:
        message = (
            f"DATASET.SUBSAMPLE_CLASSES is new, but the model was trained on {len(trained)} of "
            f"these {len(names)} classes ({few(trained)}): it was trained on new ones, or the "
            "order of the classes has changed since (classes.json, the split file)"
        )
        if not trainer.cfg.TEST.get("ALLOW_TRAIN_IMAGES", False):
            raise UserError(
                f"{message}. Test with the classes and the order of the training; {KEY} True tests "
                "them all the same."
            )
        logger.warning("%s. They are tested all the same.", message)
    if which == "base" and len(trained) < len(names):
        others = [name for name in names if name not in trained]
        logger.warning(
            "DATASET.SUBSAMPLE_CLASSES is base, but the model was not trained on %d of these %d "
            "classes (%s): the order of the classes may have changed since.",
            *(len(others), len(names), few(others)),
        )


def _differs(record: TrainedImages, trainer: Any) -> bool:
    """Warn of, and return, whether split or images are not those of the training any more."""
    name, ours, theirs = record.dataset, split_hash(trainer), record.split
    if ours is None and theirs is None:
        return True  # a host's dataset: the images tell
    if ours is None or ours != theirs:
        logger.warning(
            "The model was trained on another split of %s (hash %s) than this one (hash %s)",
            name,
            theirs,
            ours,
        )
        return True
    if _is_unchanged(record.train, image_folder(trainer)):
        return False
    logger.warning("Images of %s have changed since the model was trained on them", name)
    return True


def _is_unchanged(trained: dict[str, Mark], folder: str) -> bool:
    """Return whether the images that were trained on are what their names stand for now."""
    for name, (size, digest) in trained.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != size:
            return False
        if mark_of(path) != (size, digest):
            return False
    return True


def tested_items(trainer: Any) -> list[Any]:
    """Return the dataset's items that the final test uses."""
    data = trainer.dm.dataset
    return list(data.val if trainer.cfg.TEST.SPLIT == "val" and data.val else data.test)
