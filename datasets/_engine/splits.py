"""Split files in CoOp's format, ours and those of other projects.

``{"train": [[path, label, classname], ...], "val": [...], "test": [...]}`` with POSIX paths
relative to the image folder, so that either project reads what the other wrote.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import msgspec

from dplq.errors import UserError, few, printable
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import Count, Name, read_json

from .entries import ONE_NAME, check_class_names, check_labels, check_paths
from .layout.folders import ClassTable, list_folders
from .protocol import Item, Split, check_split
from .tables.image_index import posix

logger = logging.getLogger(__name__)

FOREIGN_NAMES = ("split_cao_{}.json", "split_zhou_{}.json", "split_{}.json")  # DPLQ, CoOp, others
OWN_NAME = "split_dplq_{}.json"
NEW_SPLIT = "delete the split file to have a new split made"  # where a run can do without it
FORMAT = 'A split file is {"train": [[path, label, classname], ...], "val": [...], "test": [...]}.'
Entry = tuple[Name, Count, Name]  # path, label, class name
PREFIX, OWN_PREFIX = "split_", "split_dplq_"


def find_foreign_split(
    dataset_dir: str, name: str, files: Iterable[str] = FOREIGN_NAMES
) -> Path | None:
    """Return the first split file of another project beside the data, if any.

    Args:
        dataset_dir: the data folder.
        name: of the dataset.
        files: names of the file, `{}` for `name`, in order of preference.

    Raises:
        UserError: something else has the name of such a file, such as a link to nothing.
    """
    paths = (Path(dataset_dir, pattern.format(name)) for pattern in files)
    return next(filter(is_file, paths), None)


class SplitFile(msgspec.Struct):
    """What a split file holds; other keys are not read."""

    train: list[Entry]
    val: list[Entry]
    test: list[Entry]


def read_split(path: Path, remedy: str = NEW_SPLIT, same_names: Collection[str] = ()) -> Split:
    """Read a split file; labels, names and order stay as they are in it.

    Args:
        path: the file; the paths in it may have back slashes, as on Windows.
        remedy: what to do with a file that cannot be repaired, for messages.
        same_names: names that several classes may have.

    Raises:
        UserError: it is not a split in CoOp's format: labels are whole numbers from 0 on, every
            class has one name of its own, every image one label and a path in the image folder.
    """
    raw: SplitFile = read_json(path, SplitFile, remedy=f"{FORMAT} Repair it, or {remedy}.")
    split = Split(*([Item(posix(i), k, n) for i, k, n in part] for part in _parts(raw)))
    turned = sum("\\" in row[0] for part in _parts(raw) for row in part)
    if turned:
        logger.info("%s: back slashes in %d paths are read as slashes", path, turned)
    source = printable(str(path))
    check_paths((item.path for part in split for item in part), source, remedy)
    check_split(split, source)
    cure = f"{ONE_NAME}, or {remedy}"
    check_class_names(classes_of(split), source, cure, same_names)
    check_labels(split, source, remedy)
    others = [] if split.val == split.test else split.val  # CoOp's ImageNet has one set for both
    seen = {item.path for item in split.train + others}
    shared = sum(item.path in seen for item in split.test)
    if shared:
        logger.warning("%s: %d test images are also in train or val", path, shared)
    repeats = sum(len(part) - len({item.path for item in part}) for part in split)
    if repeats:
        logger.warning("%s: %d rows name an image of their part again", path, repeats)
    return split


def _parts(raw: SplitFile) -> tuple[list[Entry], list[Entry], list[Entry]]:
    return raw.train, raw.val, raw.test


def with_folders_on_disk(split: Split, candidates: Iterable[str], table: ClassTable) -> Split:
    """Return a split whose class folders are spelled as they are on disk.

    A published split may name them otherwise than the archive does (`normal_retina` for `normal`);
    both spellings are in the table.

    Args:
        split: the content of a published file.
        candidates: image folders, in order of preference; the first with any of the images counts.
        table: the classes.
    """
    for image_dir in dict.fromkeys(candidates):
        folders = _folders_on_disk(split, image_dir, table)
        paths = {path: _moved(path, folders) for path in {i.path for part in split for i in part}}
        if any(os.path.isfile(os.path.join(image_dir, path)) for path in paths.values()):
            for old, new in folders.items():
                logger.info("%s: the folder '%s' of the split is '%s' here", image_dir, old, new)
            return Split(*([i._replace(path=paths[i.path]) for i in part] for part in split))
    return split


def _folders_on_disk(split: Split, image_dir: str, table: ClassTable) -> dict[str, str]:
    """Return the present spelling of the split's folders that `image_dir` does not have."""
    names = {item.path.partition("/")[0] for part in split for item in part if "/" in item.path}
    present = list_folders(image_dir)
    found = {}
    for name in names - set(present):
        label = table.label_of(name)
        same = [other for other in present if label is not None and table.label_of(other) == label]
        if len(same) == 1:
            found[name] = same[0]
    return found


def _moved(path: str, folders: Mapping[str, str]) -> str:
    folder, slash, rest = path.partition("/")
    return folders.get(folder, folder) + slash + rest


def find_image_dir(
    split: Split, path: Path, candidates: Iterable[str], remedy: str = NEW_SPLIT
) -> str:
    """Return the folder that the paths of a split are relative to.

    Args:
        split: the content of the file.
        path: the split file.
        candidates: image folders, in order of preference.
        remedy: what to do with the file where the images cannot be had, for messages.

    Returns:
        The first candidate that holds any of the images.

    Raises:
        UserError: images of the split do not exist.
    """
    folders = list(dict.fromkeys(candidates))
    items = [item for part in split for item in part]

    def exists(folder: str, item: Item) -> bool:
        return os.path.isfile(os.path.join(folder, item.path))

    holding = (f for f in folders if any(exists(f, item) for item in items))
    image_dir = next(holding, folders[0])
    absent = [item.path for item in items if not exists(image_dir, item)]
    if absent:
        raise UserError(
            f"{path} names {len(absent)} image(s) (of {len(items)}) that do not exist in "
            f"{image_dir}: {few(absent, 3)}. Put them back, or {remedy}."
        )
    return image_dir


def classes_of(split: Split) -> list[str]:
    """Return the class names of a split in label order."""
    names = {item.label: item.classname for item in split.train}
    return [names[label] for label in sorted(names)]


def with_our_prompts(split: Split, table: ClassTable, path: Path) -> Split:
    """Return a published split with our prompt names; labels stay.

    Nothing is replaced where two classes would get one name, or where the split is what names the
    classes. Another class order than the official one is reported: base and new classes then
    differ too.
    """
    theirs = classes_of(split)
    labels = [table.label_of(name) for name in theirs]
    known = [label for label in labels if label is not None]
    if len(set(known)) < len(known) or not table.rows:
        return split
    if known != list(range(len(table.rows))) or len(known) < len(labels):
        logger.warning(
            "%s: its classes or their order are not those of the dataset; its labels are kept, "
            "so base and new classes follow it: %s",
            path,
            ", ".join(theirs),
        )
    pairs = zip(theirs, labels, strict=True)
    ours = [name if label is None else table.prompts[label] for name, label in pairs]
    return Split(*([item._replace(classname=ours[item.label]) for item in part] for part in split))


def with_folder_prompts(split: Split, prompts: Mapping[str, str]) -> Split:
    """Return the split with the prompts that `prompts` has for image folders.

    Args:
        split: any split.
        prompts: folder name, exactly as on disk, to prompt.
    """

    def renamed(item: Item) -> Item:
        folders = (name for name in item.path.split("/")[:-1] if name in prompts)
        return item._replace(classname=prompts.get(next(folders, ""), item.classname))

    return Split(*([renamed(item) for item in part] for part in split))
