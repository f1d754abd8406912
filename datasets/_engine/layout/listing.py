"""Listing of the class folders of a dataset: what a run uses, and what it does not.

A run and `data check` read the folders here, so that they cannot disagree: the run raises on what
is missing and warns of the rest (`require_complete`), the check reports all of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dplq.errors import UserError, few

from ..splits import PREFIX
from .folders import (
    NOT_CLASSES,
    NOT_IMAGES,
    ClassTable,
    extensions_text,
    list_files,
)
from .layouts import Layout, Reading, find_groups, match_groups
from .left_out import left_out

logger = logging.getLogger(__name__)


class Stray(NamedTuple):
    """What is no class: in which folder, its name there, its path, how many images it has."""

    folder: str
    name: str
    path: str
    images: int
    is_folder: bool


@dataclass
class Listing:
    """The class folders of one layout. Lists are by label, paths relative to `image_dir`.

    Attributes:
        image_dir: what paths are relative to.
        folders: in which the class folders are, one per part.
        is_kept: whether the parts are train, val and test folders, each with all classes.
        table: the classes.
        images: paths per class, sorted.
        found: name of each class found, by label, per folder of `folders`.
        strays: what is no class.
        loose: images beside the class folders.
        masks, others, below: see `folders.Files`.
    """

    image_dir: str
    folders: list[str]
    is_kept: bool
    table: ClassTable
    images: list[list[str]]
    found: dict[str, dict[int, str]] = field(default_factory=dict)
    strays: list[Stray] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    def in_part(self, part: str) -> list[list[str]]:
        """Return the images per class below one part folder."""
        return [[p for p in paths if p.startswith(f"{part}/")] for paths in self.images]

    def without(self, labels: Collection[int]) -> Listing:
        """Return the listing of the other classes; their labels count from 0 again."""
        if not labels:
            return self
        kept = [label for label in range(len(self.images)) if label not in labels]
        found = {
            folder: {kept.index(i): name for i, name in names.items() if i in kept}
            for folder, names in self.found.items()
        }
        images = [self.images[label] for label in kept]
        return replace(self, table=self.table.only(kept), images=images, found=found)

    def found_as(self, label: int) -> list[str]:
        """Return the names of the folders of a class, in order of the parts."""
        names = [found[label] for found in self.found.values() if label in found]
        return list(dict.fromkeys(names))

    def absent(self) -> dict[tuple[str, ...], set[int]]:
        """Return the labels without a folder, by the folders in one of which it must be.

        In kept parts every class needs one in each; else one in any of them will do.
        """
        labels = set(range(len(self.table.rows)))
        if self.is_kept:
            return {(folder,): labels - found.keys() for folder, found in self.found.items()}
        return {tuple(self.folders): labels.difference(*self.found.values())}

    def empty(self) -> dict[tuple[str, ...], set[int]]:
        """Return the labels with a folder, but without an image, as `absent` does."""
        missing = self.absent()
        if self.is_kept:
            parts = (os.path.relpath(folder, self.image_dir) for (folder,) in missing)
            images = [self.in_part(part) for part in parts]
        else:
            images = [self.images]
        return {
            where: {label for label, paths in enumerate(found) if not paths} - absent
            for (where, absent), found in zip(missing.items(), images, strict=True)
        }


def list_layout(
    layout: Layout, table: ClassTable, ignore: Collection[str] = (), reading: Reading | None = None
) -> Listing:
    """List the class folders of a layout.

    Args:
        layout: where they are.
        table: the classes.
        ignore: names beside the class folders that are no strays.
        reading: of the files in the class folders.

    Raises:
        UserError: two folders for one class.
    """
    reading, rows = reading or Reading(), table.rows
    listing = Listing(
        layout.image_dir,
        layout.folders(),
        layout.kept,
        table,
        [[] for _ in rows],
    )
    for part, folder in zip(layout.parts, layout.folders(), strict=True):
        found, extra = match_groups(folder, find_groups(folder, layout.pattern), table)
        listing.found[folder] = {label: group.name for label, group in found.items()}
        for label, group in found.items():
            files = group.listed(folder, reading)
            listing.images[label] += _below(part, files.images)
            for kind in ("masks", "others", "below"):
                getattr(listing, kind).extend(_below(part, getattr(files, kind)))
        listing.strays += [
            Stray(folder, g.name, g.path, len(g.images(folder)), g.files is None)
            for g in extra
            if g.name not in {*ignore, *NOT_CLASSES}
        ]
        loose = list_files(folder, shallow=True)
        listing.others += _below(part, loose.others)
        if layout.has_class_folders():
            listing.loose += _below(part, loose.images)
    listing.images = [sorted(paths) for paths in listing.images]
    others = {path for path in listing.others if not _is_ours(path.rsplit("/", 1)[-1])}
    listing.others = sorted(others, key=lambda path: (path.count("/"), path))
    return listing


def _is_ours(name: str) -> bool:
    return name in NOT_IMAGES or name.startswith(PREFIX)


def _below(part: str, paths: Iterable[str]) -> list[str]:
    return ["/".join(filter(None, (part, path))) for path in paths]


def require_complete(listing: Listing, name: str, skip_empty: bool = False) -> set[int]:
    """Warn of what a run does not use; raise if classes are missing.

    Args:
        listing: of the class folders.
        name: of the dataset, for messages.
        skip_empty: leave classes without an image out instead of raising.

    Returns:
        The labels that are left out.

    Raises:
        UserError: a class has no folder, or no image.
    """
    _report_strays(listing, name)
    _report_files(listing, name)
    for folders, labels in listing.absent().items():
        _require("no folder", labels, folders, listing, name)
    empty = listing.empty()
    left_out = set().union(*empty.values())
    if left_out and skip_empty:
        return left_out
    for folders, labels in empty.items():
        _require("no image", labels, folders, listing, name)
    return set()


def _report_strays(listing: Listing, name: str) -> None:
    """Warn once per folder of what is not a class: the names, and the nearest class of each."""
    table = listing.table
    for folder in dict.fromkeys(stray.folder for stray in listing.strays):
        texts = []
        for stray in (stray for stray in listing.strays if stray.folder == folder):
            near = table.nearest(stray.name)
            like = "" if near is None else f" (nearest class: '{table.prompts[near]}')"
            texts.append(stray.name + like)
        logger.warning(
            "%s: not a class of %s, ignored: %s", folder.rstrip(os.sep), name, few(texts)
        )


def _report_files(listing: Listing, name: str) -> None:
    """Warn of files in class folders that look like data, but are not used."""
    for line in left_out(listing.image_dir, listing.others, listing.masks):
        logger.warning("%s: %s", name, line)
    for what, paths in (
        ("images below the class folders are not read", listing.below),
        ("images beside the class folders are of no class and not read", listing.loose),
    ):
        if paths:
            logger.warning("%s: %d %s: %s", name, len(paths), what, few(paths, 3))


def _require(
    problem: str, labels: Collection[int], folders: Sequence[str], listing: Listing, name: str
) -> None:
    """Raise if classes are missing, naming the folders that may be misspelt."""
    if not labels:
        return
    table = listing.table
    wanted = ", ".join(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in sorted(labels))
    names = {name for folder in folders for name in listing.found[folder].values()}
    names |= {stray.name for stray in listing.strays if stray.folder in folders}
    skip = " DATASET.SKIP_EMPTY_CLASSES True leaves them out." if problem == "no image" else ""
    raise UserError(
        f"{name}: {problem} for class {wanted} in {' and '.join(folders)}; found there: "
        f"{', '.join(sorted(names)) or 'nothing'}. All {len(table.rows)} classes are needed; image "
        f"files end in {extensions_text()}.{skip}{few(_hints(labels, listing), separator='')}"
    )


def _hints(labels: Collection[int], listing: Listing) -> Sequence[str]:
    table = listing.table
    near = [(stray.name, table.nearest(stray.name)) for stray in listing.strays]
    return [
        f" Rename '{stray}' to '{table.folder_of(label)}'?"
        for stray, label in near
        if label is not None and label in labels
    ]
