"""Folder layouts: where the images of a dataset are, and of which class each is.

A layout is a pattern of path steps below a folder: `{class}/*` (class folders, the usual one),
`*/{class}/*` (nested), `{class}/images/*`, `??_{class}/*` (a number before the name), or
`{class}_*` (one flat folder, the class in the file name). `*` is any text, `?` any character.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from dplq.errors import UserError
from dplq.io.spelling import spelling

from .folders import (
    NOT_CLASSES,
    ClassTable,
    Files,
    has_image,
    list_files,
    list_folders,
    list_images,
)

logger = logging.getLogger(__name__)

CLASS = "{class}"
CLASS_FOLDERS = "{class}/*"
MAX_TREE_FOLDERS = 3  # class folders listed in the expected tree


class Reading(NamedTuple):
    """How the files of class folders are read: see `folders.list_files`."""

    nested: bool = False
    mask_patterns: tuple[str, ...] = ()
    find_masks: bool = False


class Group(NamedTuple):
    """Candidate for one class: its `name` on disk, its folder, its image files.

    `path` is the folder's POSIX path below the part of the layout. `files` is None until listed;
    in a flat folder it is known at once.
    """

    name: str
    path: str
    files: tuple[str, ...] | None = None

    def listed(self, folder: str, reading: Reading) -> Files:
        """Return its files, POSIX paths relative to the part at `folder`."""
        if self.files is not None:
            return Files(tuple(_join(self.path, name) for name in self.files))
        found = list_files(
            os.path.join(folder, self.path),
            nested=reading.nested,
            mask_patterns=reading.mask_patterns,
            find_masks=reading.find_masks,
        )
        return Files(*(tuple(_join(self.path, name) for name in part) for part in found))

    def images(self, folder: str) -> list[str]:
        """Return the POSIX paths of the images in its folder, relative to the part at `folder`."""
        return list(self.listed(folder, Reading()).images)

    def has_image(self, folder: str, nested: bool = False) -> bool:
        """Return whether it has any image."""
        return bool(self.files) or has_image(os.path.join(folder, self.path), nested)


class Layout(NamedTuple):
    """One folder layout: `pattern` in each of `parts` under `image_dir`.

    A part is a folder in `image_dir`, "" for `image_dir` itself.
    The paths of a split are relative to `image_dir`. The images of several parts are merged,
    unless they are `kept`: then they are train, val and test folders.
    """

    image_dir: str
    parts: tuple[str, ...] = ("",)
    pattern: str = CLASS_FOLDERS
    kept: bool = False

    def has_class_folders(self) -> bool:
        """Return whether classes are folders, not names of files in one flat folder."""
        return CLASS not in self.pattern.rsplit("/", 1)[-1]

    def folders(self) -> list[str]:
        """Return the folders in which the pattern begins."""
        return [os.path.join(self.image_dir, part).rstrip(os.sep) for part in self.parts]


def declared_layouts(
    dataset_dir: str, roots: Iterable[str | tuple[str, ...]], split_folders: Sequence[str] = ()
) -> list[Layout]:
    """Return the layouts that a declaration names.

    Args:
        dataset_dir: the data folder.
        roots: folders or patterns below it; a tuple names folders that are merged.
        split_folders: names of train, val and test folders ("" if absent) that may be in a
            root; then they come before the root itself.
    """
    parts = tuple(dict.fromkeys(filter(None, split_folders)))
    layouts: list[Layout] = []
    for root in dict.fromkeys(roots):
        if isinstance(root, tuple):
            layouts.append(Layout(dataset_dir, root))
            continue
        steps = root.split("/")
        fixed = next((i for i, step in enumerate(steps) if re.search(r"[*?{]", step)), len(steps))
        image_dir = os.path.join(dataset_dir, *steps[:fixed]).rstrip(os.sep)
        layout = Layout(image_dir, pattern="/".join(steps[fixed:]) or CLASS_FOLDERS)
        layouts += [layout._replace(parts=parts, kept=True), layout] if parts else [layout]
    return layouts


@lru_cache
def _regex(step: str) -> re.Pattern[str]:
    text = re.escape(step).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(text.replace(re.escape(CLASS), "(?P<name>.+)"))


def find_groups(folder: str, pattern: str = CLASS_FOLDERS) -> list[Group]:
    """Return the class candidates in `folder`, by the pattern.

    A name without the decoration of the pattern counts too (`TUMOR` for `??_{class}`);
    whether it is a class, the table decides.

    Args:
        folder: one of `Layout.folders()`; it need not exist.
        pattern: of a layout.
    """
    steps = pattern.split("/")
    at = next(i for i, step in enumerate(steps) if CLASS in step)
    above = [""]
    for step in steps[:at]:
        above = [path for parent in above for path in _matching(folder, parent, step)]
    if at == len(steps) - 1:
        return [group for path in above for group in _flat(folder, path, steps[at])]
    tail = steps[at + 1 : -1]
    return [
        Group(_class_name(name, steps[at]), _join(path, name, *tail))
        for path in above
        for name in list_folders(os.path.join(folder, path))
        if name not in NOT_CLASSES
    ]


def _join(*names: str) -> str:
    return "/".join(filter(None, names))


def _matching(folder: str, parent: str, step: str) -> list[str]:
    names = list_folders(os.path.join(folder, parent))
    return [_join(parent, name) for name in names if _regex(step).fullmatch(name)]


def _class_name(name: str, step: str) -> str:
    match = _regex(step).fullmatch(name)
    return match["name"] if match else name


def _flat(folder: str, path: str, step: str) -> list[Group]:
    """Group the files of one folder by the class in their names; case does not count."""
    named: dict[str, tuple[str, list[str]]] = {}
    for file in list_images(os.path.join(folder, path)):
        name = _class_name(os.path.splitext(file)[0], step)
        named.setdefault(spelling(name), (name, []))[1].append(file)
    return [Group(name, path, tuple(files)) for name, files in named.values()]


def match_groups(
    folder: str, groups: Iterable[Group], table: ClassTable
) -> tuple[dict[int, Group], list[Group]]:
    """Match the class candidates in `folder` with the table.

    Two spellings in the file names of one flat folder are one class.

    Returns:
        The group per label found, and the groups that are in no row of the table.

    Raises:
        UserError: two folders for one class.
    """
    found: dict[int, Group] = {}
    extra: list[Group] = []
    for group in groups:
        label = table.label_of(group.name)
        if label is None:
            extra.append(group)
        elif label in found and group.files and found[label].path == group.path:
            found[label] = group._replace(files=(found[label].files or ()) + group.files)
        elif label in found:
            raise UserError(
                f"{folder}: '{found[label].path}' and '{group.path}' are both class "
                f"'{table.prompts[label]}'. Merge them or move one away."
            )
        else:
            found[label] = group
    return found, extra


def matches(layout: Layout, table: ClassTable) -> list[tuple[str, dict[int, Group], list[Group]]]:
    """Return `match_groups` of every part of a layout, as (part, found, extra)."""
    return [
        (part, *match_groups(folder, find_groups(folder, layout.pattern), table))
        for part, folder in zip(layout.parts, layout.folders(), strict=True)
    ]


def best_layout(layouts: Iterable[Layout], table: ClassTable) -> Layout | None:
    """Return the layout with most classes, reduced to the parts that have any.

    The first of equals wins. A class counts more if it has an image: the class folders of some
    datasets hold folders. The search ends at a layout that has images of all classes.
    """
    best: Layout | None = None
    best_score: tuple[int, int] = (0, 0)
    best_parts: tuple[str, ...] = ("",)
    for layout in layouts:
        found = matches(layout, table)
        labels = {label for _, groups, _ in found for label in groups}
        if len(labels) < best_score[0]:
            continue
        filled = {
            label
            for part, groups, _ in found
            for label, group in groups.items()
            if group.has_image(os.path.join(layout.image_dir, part))
        }
        if (len(filled), len(labels)) > best_score:
            best, best_score = layout, (len(filled), len(labels))
            best_parts = tuple(part for part, groups, _ in found if groups)
        if len(filled) == len(table.rows):
            break
    if best is None or best.kept or best_parts == best.parts:
        return best
    logger.warning("%s: only %s of %s is there", best.image_dir, best_parts, best.parts)
    return best._replace(parts=best_parts)


def expected_tree(
    folder: str,
    classes: Sequence[str],
    files: Sequence[str] = (),
    roots: Sequence[str | tuple[str, ...]] = (),
    parts: Sequence[str] = (),
) -> str:
    """Return the expected folder tree as text, for messages.

    Args:
        folder: the data folder.
        classes: class folders by label, abridged. Empty where a file names them.
        files: files needed beside the images.
        roots: image folders, listed where the classes are not known.
        parts: train, val and test folders that hold the class folders; "" for an absent one.
    """
    parts = list(dict.fromkeys(filter(None, parts)))
    lines = [f"  {folder}/", *(f"    {file}" for file in files)]
    if not classes:
        return "\n".join([*lines, *(f"    {root}/" for root in roots if isinstance(root, str))])
    indent = "      " if parts else "    "
    lines += [f"    {part}/" for part in parts[:1]]
    for label, name in enumerate(classes[:MAX_TREE_FOLDERS]):
        lines += [f"{indent}{name}/"] + ([f"{indent}  *.jpg"] if label == 0 else [])
    lines.append(f"{indent}... ({len(classes)} class folders)")
    return "\n".join([*lines, *(f"    {part}/ (the same)" for part in parts[1:])])
