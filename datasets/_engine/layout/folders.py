"""Class tables and directory listings: which class a folder is, however spelled.

Labels follow a fixed table of classes, never the order of a directory listing: RSSCN7's real
folders (`aGrass`, `bField`, ...) sort differently from the official names, which would change the
labels and with them the base and new classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from dplq.errors import UserError, few, nearest, printable, shown
from dplq.images.reader import EXTENSIONS
from dplq.io.spelling import spelling
from dplq.io.validation.paths import name_problem
from dplq.io.validation.schema import read_text

from .names import is_system_file, mask_of

FEWSHOT_DIR = "split_fewshot"  # where CoOp and its relatives keep their caches
CHECKED_FILE = "images_checked.json"  # our cache of the images that could be decoded
CLASSES_FILE = "classes.json"  # class names of OwnImages
CLASSNAMES_FILE = "classnames.txt"  # class names of ImageNet
USUAL_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
NOT_CLASSES = frozenset({FEWSHOT_DIR})
NOT_IMAGES = frozenset({CHECKED_FILE, CLASSES_FILE, CLASSNAMES_FILE})
MASK_FOLDERS = frozenset(
    {"mask", "masks", "groundtruth", "gt", "segmentation", "segmentations", "annotations"}
)


class ClassTable:
    """The classes of a dataset in label order, found under any of their spellings.

    Args:
        rows: per class its prompt name, then the folder spellings. Error messages name the first
            spelling. The prompt name is a spelling too.
        same_prompts: two classes may have one prompt name, as in CLIP's list for ImageNet; a
            folder of that name is then neither.
    """

    def __init__(self, rows: Iterable[Sequence[str]], same_prompts: bool = False) -> None:
        self.rows = [tuple(row) for row in rows]
        self.prompts = [row[0] for row in self.rows]
        self._labels: dict[str, int] = {}
        taken = [spelling(prompt) for prompt in self.prompts]
        for label, row in enumerate(self.rows):
            shared = same_prompts and taken.count(taken[label]) > 1
            for name in row[1:] if shared else row:
                known = self._labels.setdefault(spelling(name), label)
                if known != label:
                    raise UserError(
                        f"Classes {shown(self.prompts[known])} and {shown(row[0])} share the "
                        f"spelling {shown(name)} (case, spaces, '_' and '-' do not count). "
                        "Rename one."
                    )

    @classmethod
    def read(cls, path: Path) -> ClassTable:
        """Return the table in a file of lines `folder prompt name`, CoOp's `classnames.txt`.

        Raises:
            UserError: it cannot be read, or a line has no prompt name.
        """
        expected = "Expected: one line 'folder prompt name' per class, in label order."
        lines = read_text(path, remedy=f"{expected} Repair it, or get it again.").splitlines()
        try:
            pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
            rows = [(prompt.strip(), folder, str(i)) for i, (folder, prompt) in enumerate(pairs)]
        except ValueError as error:
            raise UserError(
                f"The class names {path} cannot be read: {error}. {expected}"
            ) from error
        return cls(rows, same_prompts=True)

    def label_of(self, name: str) -> int | None:
        """Return the label of a folder or class name, None if it is not in the table."""
        return self._labels.get(spelling(name))

    def nearest(self, name: str) -> int | None:
        """Return the label of the class spelled most like `name`, None if none is near."""
        near = nearest(spelling(name), self._labels, limit=1, cutoff=0.7)
        return self._labels[near[0]] if near else None

    def only(self, labels: Collection[int]) -> ClassTable:
        """Return the table of these classes alone; labels count from 0 again."""
        rows = [row for label, row in enumerate(self.rows) if label in labels]
        return ClassTable(rows, same_prompts=True)

    def folder_of(self, label: int) -> str:
        """Return the folder name that messages about a missing class name."""
        row = self.rows[label]
        return row[1] if len(row) > 1 else row[0]


def extensions_text() -> str:
    """Return the usual extensions of image files, and how many more the reader opens."""
    return few(dict.fromkeys([*USUAL_EXTENSIONS, *EXTENSIONS]), len(USUAL_EXTENSIONS), " ")


def in_words(folder: str) -> str:
    """Return a folder name as words: `DenseResidential` -> `Dense Residential`.

    Underscores become spaces. Only ASCII letters count; `MRIScan` becomes `MRI Scan`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", folder)
    return " ".join(spaced.replace("_", " ").split())


def _visible(folder: str, above: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """Yield what is in a folder, sorted, without links to a folder that it is in.

    Args:
        folder: it need not exist.
        above: folders through which it was reached; a link may lead from elsewhere into them.

    Raises:
        UserError: it cannot be listed, or a name cannot be written: it is not UTF-8, or has control
            characters.
    """
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"Cannot list {folder}: {error.strerror}.") from error
    for entry in listed:
        if entry.name.startswith(".") or is_system_file(entry.name):
            continue
        if problem := name_problem(entry.name):
            name = printable(os.path.join(folder, entry.name))
            raise UserError(f"{name}: this name {problem}. Rename it.")
        if not (entry.is_symlink() and _leads_back(entry, (*above, folder))):
            yield entry


def _leads_back(link: os.DirEntry[str], above: Iterable[str]) -> bool:
    """Return whether a link leads to itself, to one of the folders, or to what holds one."""
    if not _is_folder(link):
        return False
    target = Path(os.path.realpath(link.path))
    return any(Path(os.path.realpath(folder)).is_relative_to(target) for folder in above)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to what may not be seen
        return False


def is_dead_link(path: str) -> bool:
    """Return whether a path is a link that leads to nothing, or to itself."""
    return os.path.islink(path) and not os.path.exists(path)


def list_folders(folder: str) -> list[str]:
    """Return the names of the folders in `folder`, sorted by code point.

    Hidden ones and those of operating systems are not listed, here and below.
    """
    return [entry.name for entry in _visible(folder) if _is_folder(entry)]


def list_images(folder: str) -> list[str]:
    """Return the names of the image files in `folder`, sorted, without hidden ones."""
    return list(list_files(folder, shallow=True).images)


def has_image(folder: str, nested: bool = False) -> bool:
    """Return whether there is any image in `folder`; stops at the first.

    Args:
        folder: it need not exist.
        nested: look into its sub-folders, too.
    """
    return _has_image(folder, nested, ())


def _has_image(folder: str, nested: bool, above: tuple[str, ...]) -> bool:
    try:
        visible = list(_visible(folder, above))
    except UserError:
        return False
    if any(_is_image(entry) for entry in visible):
        return True
    above = (*above, folder)
    return nested and any(_has_image(e.path, True, above) for e in visible if _is_folder(e))


class Files(NamedTuple):
    """Files in one folder: names or POSIX paths relative to it, sorted, without hidden ones.

    Attributes:
        images: what the reader can open, by its extension.
        masks: segmentation masks of them.
        others: what is neither.
        below: images in sub-folders that are not read.
    """

    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    below: tuple[str, ...] = ()


def list_files(
    folder: str,
    *,
    nested: bool = False,
    shallow: bool = False,
    mask_patterns: Sequence[str] = (),
    find_masks: bool = False,
) -> Files:
    """List the files in a folder.

    Args:
        folder: it need not exist.
        nested: read its sub-folders, too.
        shallow: do not even look into them.
        mask_patterns: names of masks, as in `fnmatch`.
        find_masks: take for a mask what is called like one and lies beside its image, and
            everything in a sub-folder that is called like a folder of masks.
    """
    return _list_files(folder, (), nested, shallow, mask_patterns, find_masks)


def _list_files(
    folder: str,
    above: tuple[str, ...],
    nested: bool,
    shallow: bool,
    mask_patterns: Sequence[str],
    find_masks: bool,
) -> Files:
    entries = list(_visible(folder, above))
    names = [entry.name for entry in entries if _is_image(entry)]
    masks = {name for name in names if any(fnmatch(name.lower(), p) for p in mask_patterns)}
    masks |= set(mask_of(names)) if find_masks else set()
    images = [name for name in names if name not in masks]
    others = [e.name for e in entries if not _is_folder(e) and not _is_image(e)]
    below: list[str] = []
    for entry in entries:
        if shallow or not _is_folder(entry) or entry.name in NOT_CLASSES:
            continue
        inner = _list_files(entry.path, (*above, folder), True, False, mask_patterns, find_masks)
        inside = [[f"{entry.name}/{name}" for name in part] for part in inner]
        if find_masks and spelling(entry.name) in MASK_FOLDERS:
            masks.update(inside[0], inside[1])
        elif nested:
            images += inside[0]
            masks.update(inside[1])
            others += inside[2]
        else:
            below += inside[0]
    return Files(*(tuple(sorted(part)) for part in (images, masks, others, below)))


def _is_image(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name.lower().endswith(EXTENSIONS) and entry.is_file()
    except OSError:  # as in _is_folder
        return False
