"""List the images of every class; report what is no class and what is missing."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable

from dplq.errors import UserError, few

from .folders import IMAGE_EXTENSIONS, NOT_CLASSES, ClassTable
from .layouts import Group, Layout, matches

logger = logging.getLogger(__name__)


def images_by_class(
    layout: Layout, table: ClassTable, name: str, ignore: Iterable[str] = ()
) -> list[list[str]]:
    """Return the images of every class.

    Args:
        layout: where they are.
        table: the classes.
        name: of the dataset, for messages.
        ignore: folders beside the class folders that need no warning.

    Returns:
        Per label, the POSIX paths of its images relative to `layout.image_dir`, sorted.

    Raises:
        UserError: a class has no folder, or no image.
    """
    images: list[list[str]] = [[] for _ in table.rows]
    present: set[int] = set()
    strays: list[Group] = []
    for part, found, extra in matches(layout, table):
        folder = os.path.join(layout.image_dir, part)
        extra = [group for group in extra if group.name not in {*ignore, *NOT_CLASSES}]
        _report(folder, extra, table, name)
        strays += extra
        present.update(found)
        for label, group in found.items():
            images[label] += ["/".join(filter(None, (part, i))) for i in group.images(folder)]
    _require("no folder", set(range(len(images))) - present, layout, table, name, strays)
    empty = {label for label, paths in enumerate(images) if not paths}
    _require("no image", empty, layout, table, name, strays)
    return [sorted(paths) for paths in images]


def _report(folder: str, extra: Collection[Group], table: ClassTable, name: str) -> None:
    """Warn once of what is not a class: the names, and the nearest class of each."""
    if not extra:
        return
    texts = []
    for group in extra:
        near = table.nearest(group.name)
        like = "" if near is None else f" (nearest class: '{table.prompts[near]}')"
        texts.append(group.name + like)
    logger.warning("%s: not a class of %s, ignored: %s", folder.rstrip(os.sep), name, few(texts))


def _require(
    problem: str,
    labels: Collection[int],
    layout: Layout,
    table: ClassTable,
    name: str,
    strays: Collection[Group],
) -> None:
    """Raise if classes are missing, naming the folders that may be misspelt."""
    if not labels:
        return
    wanted = ", ".join(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in sorted(labels))
    _, found, extra = matches(layout, table)[0]
    have = ", ".join(sorted(g.name for g in [*found.values(), *extra])) or "nothing"
    near = [(group.name, table.nearest(group.name)) for group in strays]
    hints = [
        f" Rename '{stray}' to '{table.folder_of(label)}'?"
        for stray, label in near
        if label is not None and label in labels
    ]
    raise UserError(
        f"{name}: {problem} for class {wanted} in {' and '.join(layout.folders())}; found there: "
        f"{have}. All {len(table.rows)} classes are needed; image files end in "
        f"{' '.join(IMAGE_EXTENSIONS)}.{few(hints, separator='')}"
    )
