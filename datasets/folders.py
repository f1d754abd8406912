"""Find the images of a data set: which folder is which class, however it is spelled.

Labels follow a fixed table of classes, never the order of a directory listing: RSSCN7's real
folders (`aGrass`, `bField`, ...) sort differently from the official names, which would change the
labels and with them the base and new classes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from dplq.errors import UserError

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")
NOT_CLASSES = frozenset({"split_fewshot"})  # where CoOp and its relatives keep their caches


class Layout(NamedTuple):
    """Where class folders are: in `parts` (folders, "" for itself) under `image_dir`.

    The paths of a split are relative to `image_dir`. Several parts are merged.
    """

    image_dir: str
    parts: tuple[str, ...] = ("",)

    def folders(self) -> list[str]:
        """The folders that hold class folders."""
        return [os.path.join(self.image_dir, part).rstrip(os.sep) for part in self.parts]


class ClassTable:
    """The classes of a data set in label order, found under any of their spellings.

    Args:
        rows: per class its prompt name, then the folder spellings. The first spelling is the one
            an error message asks for. The prompt name is a spelling too.
    """

    def __init__(self, rows: Iterable[Sequence[str]]) -> None:
        self.rows = [tuple(row) for row in rows]
        self.prompts = [row[0] for row in self.rows]
        self._labels: dict[str, int] = {}
        for label, row in enumerate(self.rows):
            for name in row:
                known = self._labels.setdefault(spelling(name), label)
                if known != label:
                    raise UserError(
                        f"Classes '{self.prompts[known]}' and '{row[0]}' share the spelling "
                        f"'{name}' (case, spaces, '_' and '-' do not count). Rename one."
                    )

    def label_of(self, name: str) -> int | None:
        """The label of a folder or class name, or None if it is not in the table."""
        return self._labels.get(spelling(name))

    def folder_of(self, label: int) -> str:
        """The folder name that is asked for when the class is missing."""
        row = self.rows[label]
        return row[1] if len(row) > 1 else row[0]


def spelling(name: str) -> str:
    """What of a name counts when spellings are compared: not case, spaces, `_` or `-`."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def in_words(folder: str) -> str:
    """Turn a folder name into words: `DenseResidential` and `dense_residential` get a space.

    Only ASCII letters are looked at; `MRIScan` becomes `MRI Scan`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", folder)
    return " ".join(spaced.replace("_", " ").split())


def _visible(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"Cannot list {folder}: {error.strerror}.") from error
    yield from (entry for entry in listed if not entry.name.startswith("."))


def list_folders(folder: str) -> list[str]:
    """Names of the folders in `folder`, sorted by code point, hidden ones skipped."""
    return [entry.name for entry in _visible(folder) if entry.is_dir()]


def list_images(folder: str) -> list[str]:
    """Names of the image files in `folder`, by extension, sorted, hidden ones skipped."""
    return [
        entry.name
        for entry in _visible(folder)
        if entry.name.lower().endswith(IMAGE_EXTENSIONS) and entry.is_file()
    ]


def class_folders(folder: str, table: ClassTable) -> tuple[dict[int, str], list[str]]:
    """Match the folders in `folder` with the table.

    Returns:
        The folder name per label found, and the names that are in no row of the table.

    Raises:
        UserError: two folders for one class.
    """
    found: dict[int, str] = {}
    extra: list[str] = []
    for name in list_folders(folder):
        label = table.label_of(name)
        if label is None:
            extra.append(name)
        elif label in found:
            raise UserError(
                f"{folder}: '{found[label]}' and '{name}' are both class "
                f"'{table.prompts[label]}'. Merge them or move one away."
            )
        else:
            found[label] = name
    return found, extra


def first_layout(layouts: Iterable[Layout], table: ClassTable) -> Layout | None:
    """The first layout with a folder of a known class, reduced to the parts that have one."""
    for layout in layouts:
        pairs = zip(layout.parts, layout.folders(), strict=True)
        parts = tuple(part for part, folder in pairs if class_folders(folder, table)[0])
        if parts:
            if len(parts) < len(layout.parts):
                logger.warning("%s: only %s of %s is there", layout.image_dir, parts, layout.parts)
            return layout._replace(parts=parts)
    return None


def images_by_class(
    layout: Layout, table: ClassTable, name: str, ignore: Iterable[str] = ()
) -> list[list[str]]:
    """List the images of every class.

    Args:
        layout: where to look.
        table: the classes.
        name: of the data set, for messages.
        ignore: folders beside the class folders that need no warning.

    Returns:
        Per label, the POSIX paths of its images relative to `layout.image_dir`, sorted.

    Raises:
        UserError: a class has no folder, or no image.
    """
    images: list[list[str]] = [[] for _ in table.rows]
    seen: set[int] = set()
    for part, folder in zip(layout.parts, layout.folders(), strict=True):
        found, extra = class_folders(folder, table)
        extra = [other for other in extra if other not in {*ignore, *NOT_CLASSES}]
        if extra:
            logger.warning("%s: not a class of %s, ignored: %s", folder, name, ", ".join(extra))
        seen.update(found)
        for label, class_folder in found.items():
            inside = list_images(os.path.join(folder, class_folder))
            images[label] += ["/".join(filter(None, (part, class_folder, i))) for i in inside]
    where = " and ".join(layout.folders())
    for problem, labels in (
        ("no folder", [label for label in range(len(images)) if label not in seen]),
        ("no image", [label for label, paths in enumerate(images) if not paths]),
    ):
        if labels:
            wanted = ", ".join(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in labels)
            have = ", ".join(list_folders(layout.folders()[0])) or "nothing"
            raise UserError(
                f"{name}: {problem} for class {wanted} in {where}; found there: {have}. All "
                f"{len(images)} classes are needed; image files end in "
                f"{' '.join(IMAGE_EXTENSIONS)}."
            )
    return [sorted(paths) for paths in images]
