"""List the images of every class, and say what lies there that is none and what is missing."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable

from dplq.errors import UserError

from .folders import IMAGE_EXTENSIONS, NOT_CLASSES, ClassTable
from .layouts import Group, Layout, matches

logger = logging.getLogger(__name__)
MAX_NAMES = 5


def images_by_class(
    layout: Layout, table: ClassTable, name: str, ignore: Iterable[str] = ()
) -> list[list[str]]:
    """List the images of every class.

    Args:
        layout: where to look.
        table: the classes.
        name: of the dataset, for messages.
        ignore: folders beside the class folders that need no warning.

    Returns:
        Per label, the POSIX paths of its images relative to `layout.image_dir`, sorted.

    Raises:
        UserError: a class has no folder, or no image.
    """
    images: list[list[str]] = [[] for _ in table.rows]
    seen: set[int] = set()
    strays: list[Group] = []
    for part, found, extra in matches(layout, table):
        folder = os.path.join(layout.image_dir, part)
        extra = [group for group in extra if group.name not in {*ignore, *NOT_CLASSES}]
        _report(folder, extra, table, name)
        strays += extra
        seen.update(found)
        for label, group in found.items():
            images[label] += ["/".join(filter(None, (part, i))) for i in group.images(folder)]
    _require("no folder", set(range(len(images))) - seen, layout, table, name, strays)
    empty = {label for label, paths in enumerate(images) if not paths}
    _require("no image", empty, layout, table, name, strays)
    return [sorted(paths) for paths in images]


def _report(folder: str, extra: Collection[Group], table: ClassTable, name: str) -> None:
    """One warning for what is not a class: the names, and the class that each may stand for."""
    if not extra:
        return
    texts = []
    for group in list(extra)[:MAX_NAMES]:
        near = table.nearest(group.name)
        like = "" if near is None else f" (nearest class: '{table.prompts[near]}')"
        texts.append(group.name + like)
    if len(extra) > MAX_NAMES:
        texts.append(f"and {len(extra) - MAX_NAMES} more")
    place = folder.rstrip(os.sep)
    logger.warning("%s: not a class of %s, ignored: %s", place, name, ", ".join(texts))


def _require(
    problem: str,
    labels: Collection[int],
    layout: Layout,
    table: ClassTable,
    name: str,
    strays: Collection[Group],
) -> None:
    """Refuse a dataset in which classes `labels` are missing, with what may be in their place."""
    if not labels:
        return
    wanted = ", ".join(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in sorted(labels))
    _, found, extra = matches(layout, table)[0]
    have = ", ".join(sorted(g.name for g in [*found.values(), *extra])) or "nothing"
    near = [(group.name, table.nearest(group.name)) for group in strays]
    hints = [f" Rename '{n}' to '{table.folder_of(i)}'?" for n, i in near if i in labels]
    raise UserError(
        f"{name}: {problem} for class {wanted} in {' and '.join(layout.folders())}; found there: "
        f"{have}. All {len(table.rows)} classes are needed; image files end in "
        f"{' '.join(IMAGE_EXTENSIONS)}.{''.join(hints[:MAX_NAMES])}"
    )
