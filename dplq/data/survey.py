"""Survey of the folders of a dataset: the images of every class, and what is no class.

Folders are listed with the loader's own code (`dplq.datasets`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dplq.datasets._engine.base import FolderDataset
from dplq.datasets._engine.folders import IMAGE_EXTENSIONS, NOT_IMAGES, ClassTable, list_images
from dplq.datasets._engine.layouts import Group, find_groups
from dplq.datasets._engine.splits import PREFIX
from dplq.errors import few

MERGED = ""  # key of all the folders that are merged


class Finding(NamedTuple):
    """A problem, and what to do about it."""

    what: str
    remedy: str


@dataclass
class Report:
    """Result of `check`. Lists are by label; paths are relative to `image_dir`."""

    name: str
    folder: str
    image_dir: str = ""
    split: str = ""
    prompts: list[str] = field(default_factory=list)
    spellings: list[list[str]] = field(default_factory=list)
    images: list[list[str]] = field(default_factory=list)
    expected: list[int | None] = field(default_factory=list)
    parts: dict[str, set[str]] = field(default_factory=dict)  # train, val, test -> paths
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, remedy: str) -> None:
        """Add a problem."""
        self.findings.append(Finding(what, remedy))


def survey(dataset: FolderDataset, report: Report) -> bool:
    """Fill the report with the images of every class, and what is in no class.

    Returns:
        Whether every class has images.

    Raises:
        UserError: no class is found, or one in two folders.
    """
    layout, table = dataset.find_layout(), dataset.table
    report.image_dir, report.prompts = layout.image_dir, table.prompts
    report.images = [[] for _ in table.rows]
    report.spellings = [[] for _ in table.rows]
    missing: dict[str, set[int]] = {}
    strays: list[tuple[str, Group]] = []
    for part, folder in zip(layout.parts, layout.folders(), strict=True):
        ignored = _other_layouts(dataset, folder)
        here: dict[int, str] = {}
        for group in find_groups(folder, layout.pattern):
            label = table.label_of(group.name)
            if label is None:
                strays += [(folder, group)] if group.name not in ignored else []
                continue
            here[label] = group.path
            report.spellings[label].append(group.name)
            report.images[label] += [
                "/".join(filter(None, (part, i))) for i in group.images(folder)
            ]
        missing[folder] = set(range(len(table.rows))) - here.keys()
        _note_files(folder, here.values(), report)
    if not layout.kept:  # the folders are merged: a class may be in one of them only
        missing = {MERGED: set.intersection(*missing.values())}
    _report_strays(strays, missing, table, report)
    missing[" or ".join(layout.folders())] = missing.pop(MERGED, set())
    _report_missing(missing, dataset, report)
    return all(report.images)


def _other_layouts(dataset: FolderDataset, folder: str) -> set[str]:
    """Return the names in `folder` that belong to other layouts: neither classes nor strays."""
    inside = (os.path.relpath(f, folder) for layout in dataset.layouts() for f in layout.folders())
    return {path.split(os.sep)[0] for path in inside if not path.startswith(os.pardir)}


def _report_strays(
    strays: Sequence[tuple[str, Group]],
    missing: dict[str, set[int]],
    table: ClassTable,
    report: Report,
) -> None:
    for folder, group in strays:
        absent = missing[folder if folder in missing else MERGED]
        near = table.nearest(group.name)
        kind = f"folder '{group.path}'" if group.files is None else f"name '{group.name}' of files"
        count = len(group.images(folder))
        like = "" if near is None else f"; the nearest class is '{table.prompts[near]}'"
        if near is not None and near in absent:
            wanted = table.folder_of(near)
            remedy = f"Misspelt? Rename '{group.name}' to '{wanted}', the class that is missing."
            absent.discard(near)
        else:
            remedy = "Stray: move it away. It is ignored, not made a class."
        report.add(f"{folder}: the {kind} is no class ({count} images){like}.", remedy)


def _report_missing(missing: dict[str, set[int]], dataset: FolderDataset, report: Report) -> None:
    table = dataset.table
    for folder, labels in missing.items():
        if labels and not dataset.partial:
            names = few(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in sorted(labels))
            report.add(
                f"{len(labels)} class(es) missing in {folder}: {names}.",
                "Add the folders; all classes are needed. An unpacking that stopped early? "
                "Unpack the archive again.",
            )
    empty = [
        table.prompts[i]
        for i, (names, paths) in enumerate(zip(report.spellings, report.images, strict=True))
        if names and not paths
    ]
    if empty:
        extensions = " ".join(IMAGE_EXTENSIONS)
        report.add(f"No image in the folder of class {few(empty)}.", f"Images end in {extensions}.")


def _note_files(folder: str, inside: Iterable[str], report: Report) -> None:
    """Note what is no image, in `folder` and in the class folders in it."""
    others = []
    for path in dict.fromkeys(["", *inside]):
        here = os.path.join(folder, path)
        if not os.path.isdir(here):
            continue
        with os.scandir(here) as entries:
            names = {entry.name for entry in entries if entry.is_file() and entry.name[0] != "."}
        names -= {*list_images(here), *NOT_IMAGES}
        others += [os.path.join(path, n) for n in sorted(names) if not n.startswith(PREFIX)]
    if others:
        report.notes.append(f"{folder}: no images, ignored: {few(others)}.")
