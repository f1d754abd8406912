"""Survey of a dataset: the images of every class, and what no run uses.

Folders and split are those of the loader (`dplq.datasets`): `check` has loaded them before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dplq.datasets._engine import splits
from dplq.datasets._engine.base import FolderDataset
from dplq.datasets._engine.layout.folders import ClassTable, extensions_text
from dplq.datasets._engine.layout.left_out import dead_links, devices, dicom_files
from dplq.datasets._engine.layout.listing import Listing, Stray
from dplq.datasets._engine.layout.names import is_system_file, unsupported
from dplq.datasets._engine.protocol import Split
from dplq.errors import few, printable
from dplq.io.runs.labels import relative_to
from dplq.io.table_files import SPREADSHEETS, TABLES

TABLE_CURE = (
    " One that lists the images, with labels or patients, is named by DATASET.SPLIT_FILE; a "
    "spreadsheet has to be saved as CSV (UTF-8)."
)


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
    split_hash: str = ""
    test_only: bool = False
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

    def label_of(self) -> dict[str, int]:
        """Return the label of every image by its path."""
        return {path: label for label, paths in enumerate(self.images) for path in paths}

    def part_of(self) -> dict[str, str]:
        """Return the part of every image that is in one by its path."""
        return {path: part for part, paths in self.parts.items() for path in paths}


def fill_from_split(dataset: FolderDataset, split: Split, report: Report) -> None:
    """Fill the report with the classes and images that a run has."""
    report.image_dir = dataset.image_dir
    report.prompts = splits.classes_of(split)
    report.split_hash = dataset.split_hash
    report.images = [[] for _ in report.prompts]
    report.spellings = [[] for _ in report.prompts]
    for item in {item for part in split for item in part}:
        report.images[item.label].append(item.path)
    report.images = [sorted(set(paths)) for paths in report.images]


def fill_from_listing(listing: Listing, report: Report) -> None:
    """Fill the report with the class folders, where there is no split."""
    report.image_dir, report.prompts = listing.image_dir, listing.table.prompts
    report.images = [list(paths) for paths in listing.images]
    report.spellings = [listing.found_as(label) for label in range(len(report.prompts))]


def add_listing(listing: Listing, report: Report) -> None:
    """Add to a report made from a split what the class folders hold beside it."""
    prefix = os.path.relpath(listing.image_dir, report.image_dir)
    known = set(report.label_of())
    unused: dict[str, int] = {}
    for label, prompt in enumerate(listing.table.prompts):
        paths = [os.path.normpath(os.path.join(prefix, p)) for p in listing.images[label]]
        new = [path for path in paths if path not in known]
        same = _same_class(prompt, listing.table, report.prompts)
        if same is not None:
            report.spellings[same] = listing.found_as(label)
            report.images[same] += new
        if new:
            unused[prompt] = len(new)
    if unused:
        texts = (f"{count} of '{prompt}'" for prompt, count in unused.items())
        report.notes.append(f"Images that the split does not name, not used: {few(texts)}.")


def _same_class(prompt: str, table: ClassTable, names: list[str]) -> int | None:
    label = table.label_of(prompt)
    found = (i for i, name in enumerate(names) if prompt == name or table.label_of(name) == label)
    return next(found, None)


def report_listing(listing: Listing, dataset: FolderDataset, report: Report, used: bool) -> bool:
    """Report what is missing in the class folders, and what is in no class.

    Args:
        listing: of the class folders.
        dataset: the dataset.
        report: extended by problems and notes.
        used: whether a split is there, so that no run fails for want of a class folder.

    Returns:
        Whether every class has images.
    """
    missing = {} if used else {place: set(labels) for place, labels in listing.absent().items()}
    for stray in listing.strays:
        _report_stray(stray, missing, listing.table, report)
    if not used:
        _report_missing(missing, listing, dataset, report)
    _report_files(listing, dataset.label_files(), report)
    return all(listing.images)


def _report_stray(
    stray: Stray,
    missing: dict[tuple[str, ...], set[int]],
    table: ClassTable,
    report: Report,
) -> None:
    absent = next((labels for place, labels in missing.items() if stray.folder in place), set())
    near = table.nearest(stray.name)
    kind = f"folder '{stray.path}'" if stray.is_folder else f"name '{stray.name}' of files"
    like = "" if near is None else f"; the nearest class is '{table.prompts[near]}'"
    if near is not None and near in absent:
        wanted = table.folder_of(near)
        remedy = f"Misspelt? Rename '{stray.name}' to '{wanted}', the class that is missing."
        absent.discard(near)
    else:
        remedy = "Stray: move it away. It is ignored, not made a class."
    report.add(f"{stray.folder}: the {kind} is no class ({stray.images} images){like}.", remedy)


def _report_missing(
    missing: dict[tuple[str, ...], set[int]],
    listing: Listing,
    dataset: FolderDataset,
    report: Report,
) -> None:
    table = listing.table
    for places, labels in missing.items():
        if labels and not dataset.partial:
            names = few(f"'{table.prompts[i]}' ({table.folder_of(i)}/)" for i in sorted(labels))
            report.add(
                f"{len(labels)} class(es) missing in {' or '.join(places)}: {names}.",
                "Add the folders; all classes are needed. An unpacking that stopped early? "
                "Unpack the archive again.",
            )
    empty = set().union(*listing.empty().values())
    if empty:
        report.add(
            f"No image in the folder of class {few(table.prompts[i] for i in sorted(empty))}.",
            f"Images end in {extensions_text()}. DATASET.SKIP_EMPTY_CLASSES True does without.",
        )


def _report_files(listing: Listing, used: Sequence[Path], report: Report) -> None:
    """Report the files that no run uses; `used` are those with labels."""
    folder = listing.image_dir
    if listing.below:
        report.add(
            f"{folder}: {len(listing.below)} image(s) below the class folders are not read: "
            f"{few(listing.below, 3)}.",
            "Move them into the class folder, or away.",
        )
    if listing.loose:
        report.add(
            f"{folder}: {len(listing.loose)} image(s) beside the class folders are of no class: "
            f"{few(listing.loose, 3)}.",
            "Move them into their class folder, or away.",
        )
    dicom = dicom_files(folder, listing.others)
    if dicom:
        report.add(
            f"{folder}: {len(dicom)} DICOM without an ending are not read: {few(dicom, 3)}.",
            "Rename them to end in .dcm.",
        )
    kinds = unsupported(set(listing.others).difference(dicom))
    if kinds:
        texts = few(f"{count} {extension}" for extension, count in kinds.items())
        report.add(
            f"{folder}: files of a kind that is not read: {texts}.",
            f"Convert them; images end in {extensions_text()}.",
        )
    broken = dead_links(folder, listing.others)
    odd = devices(folder, listing.others)
    if odd:
        report.add(
            f"{folder}: {len(odd)} are called like images, but are pipes or devices: "
            f"{few(odd, 3)}.",
            "They are left out. Move them away.",
        )
    if broken:
        report.add(
            f"{folder}: {len(broken)} link(s) lead to no file: {few(broken, 3)}.",
            "They are left out. Restore what they link to, or remove them.",
        )
    named = {*broken, *odd, *dicom, *(relative_to(folder, path) for path in used)}
    rest = [path for path in listing.others if not unsupported([path]) and path not in named]
    tables = [path for path in rest if _is_table(path)]
    rest = [path for path in rest if not _is_table(path)]
    for what, paths, cure in (
        ("masks, left out", listing.masks, ""),
        ("tables that are not read", tables, TABLE_CURE),
        ("no images, ignored", rest, ""),
    ):
        if paths:
            report.notes.append(f"{folder}: {what}: {few(paths)}.{cure}")


def _is_table(path: str) -> bool:
    return path.lower().endswith((*TABLES, *SPREADSHEETS))


def note_system_files(report: Report) -> None:
    """Note the files and folders that operating systems left in the data folder."""
    found = []
    for here, folders, files in os.walk(report.folder):
        below = os.path.relpath(here, report.folder)
        names = [*files, *folders]
        found += [
            printable(os.path.normpath(os.path.join(below, name)))
            for name in names
            if is_system_file(name)
        ]
        folders[:] = [name for name in folders if not is_system_file(name)]
    if found:
        report.notes.append(
            f"{report.folder}: {len(found)} file(s) or folder(s) of an operating system, ignored: "
            f"{few(sorted(found), 3)}."
        )
