"""Check of a dataset before a run: missing, misspelt, damaged and duplicate images.

Folders and split are read with the loader's own code (`dplq.datasets`). Only the cache of the
valid images is written, no split.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from dplq import datasets
from dplq.data.duplicates import report_duplicates
from dplq.data.pixels import looks, pixel_findings
from dplq.data.survey import (
    Report,
    add_listing,
    fill_from_listing,
    fill_from_split,
    note_system_files,
    report_listing,
)
from dplq.datasets._engine import splits
from dplq.datasets._engine.base import FolderDataset
from dplq.datasets._engine.images import ImageCheck, describe_problems
from dplq.datasets._engine.layout.listing import Listing
from dplq.datasets._engine.options import Options
from dplq.datasets._engine.protocol import Split
from dplq.datasets._engine.store import Store
from dplq.errors import UserError, few
from dplq.trainers._engine.train_images import IMBALANCE


class ReadOnlyStore(Store):
    """Storage that records the files to write instead of writing them."""

    is_writable = False

    def __init__(self, dataset_dir: str, name: str) -> None:
        super().__init__(dataset_dir, name)
        self.written: list[str] = []

    def write(self, filename: str, payload: Any) -> Path:
        """Record the name; write nothing."""
        self.written.append(filename)
        return Path(filename)


def problem(declaration: type[FolderDataset], root: str) -> str:
    """Return why the dataset cannot be loaded from `root`, "" if it can; write nothing."""
    try:
        with _collected_warnings([]):
            _load(declaration.at(root))
    except UserError as error:
        return str(error)
    return ""


def _load(dataset: FolderDataset) -> tuple[Split, str]:
    """Return the split that a run would use, and where it is from.

    Raises:
        UserError: a run would be refused.
    """
    real = dataset.store
    dataset.store = read_only = ReadOnlyStore(dataset.dataset_dir, dataset.name)
    try:
        split = dataset.load_split()
        dataset.select(split)
    finally:
        dataset.store = real
    if not read_only.written:
        return split, dataset.split_path
    stored = real.versions(read_only.written[0])
    if stored:
        return split, f"{stored[-1]}, which the next run brings up to date"
    return split, "not made yet, the first run does it"


def check(
    declaration: type[FolderDataset],
    root: str,
    *,
    quick: bool = False,
    options: Options | None = None,
) -> Report:
    """Return what is wrong with the data of a dataset under `root`.

    Args:
        declaration: a subclass of `FolderDataset`.
        root: absolute `DATASET.ROOT`.
        quick: check names and counts only; no image is opened.
        options: what the config of a run says.
    """
    name = declaration.__name__
    report = Report(name, declaration.folder_under(root))
    try:
        dataset = declaration.at(root, options)
        split, refusal = _try_split(dataset, report)
        if refusal and dataset.reads_table():  # no class folder is needed, whatever is wrong
            raise UserError(*refusal.splitlines())
        is_complete = _survey(dataset, split, report)
    except UserError as error:
        remedy = f"`python -m dplq.data get {name} --root {root}` gets the data or says how."
        has_data = os.path.isdir(report.folder) and os.listdir(report.folder)
        report.add(str(error), "Fix this first, then check again." if has_data else remedy)
        return report
    report.test_only = dataset.test_only
    note_system_files(report)
    if refusal and (is_complete or not report.findings):
        report.add(refusal, "No run starts before this is fixed.")
    elif refusal:  # most likely because of what is missing, see above
        report.notes.append(f"A run stops with: {refusal}")
    _compare_counts(dataset, report)
    if split or (split := _split_as_written(dataset, report)):
        _compare_parts(dataset, split, report)
    if not quick:
        _report_images(dataset, report)
    return report


def _survey(dataset: FolderDataset, split: Split | None, report: Report) -> bool:
    """Fill the report with the images of every class; return whether all have some.

    Raises:
        UserError: there is no split, and no class folder.
    """
    if split:
        fill_from_split(dataset, split, report)
    listing = _listing(dataset, is_needed=split is None)
    if listing is None:
        return True
    if split:
        add_listing(listing, report)
    else:
        fill_from_listing(listing, report)
    return report_listing(listing, dataset, report, used=split is not None)


def _listing(dataset: FolderDataset, is_needed: bool) -> Listing | None:
    """Return what the class folders hold; None where the classes are not in folders."""
    if dataset.listing is not None:
        return dataset.listing
    if dataset.list_files or not dataset.table.rows:
        return None
    try:
        listing = dataset.list_folders(dataset.find_layout())
    except UserError:
        if is_needed:
            raise
        return None
    return listing if is_needed or any(listing.found.values()) else None


def _try_split(dataset: FolderDataset, report: Report) -> tuple[Split | None, str]:
    """Return the split as a run would read it, or None and why not."""
    try:
        with _collected_warnings(report.notes):
            split, report.split = _load(dataset)
    except UserError as error:
        report.split = "none, as long as there are problems"
        return None, str(error)
    return split, ""


def _split_as_written(dataset: FolderDataset, report: Report) -> Split | None:
    """Return the split file's entries for existing images, even if every run would refuse it."""
    try:
        own = dataset.store.find(splits.OWN_NAME.format(dataset.name))
        path = dataset.given_split_file() or own
        with _collected_warnings([]):
            split = splits.read_split(path) if path and path.suffix == ".json" else None
    except UserError:
        return None
    if split is None:
        return None
    present = {path for paths in report.images for path in paths}
    report.split = f"{path} (every run would refuse it as it is)"
    return Split(*([item for item in part if item.path in present] for part in split))


class _NotesHandler(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.endswith(".listing"):
            self._notes.append(record.getMessage())


@contextmanager
def _collected_warnings(notes: list[str]) -> Iterator[None]:
    """Append the loader's warnings to `notes`, but for those of its listing: `survey` has them."""
    loader = logging.getLogger(datasets.__name__)
    handler = _NotesHandler(notes)
    propagate, loader.propagate = loader.propagate, False
    loader.addHandler(handler)
    try:
        yield
    finally:
        loader.removeHandler(handler)
        loader.propagate = propagate


def _compare_counts(dataset: FolderDataset, report: Report) -> None:
    """Compare with the image counts of the declaration, per class where they are known."""
    report.expected = _expected_counts(dataset, report.prompts)
    counts = [len(set(paths)) for paths in report.images]
    total = dataset.total_images
    other = [
        f"'{name}' {count} instead of {wanted}"
        for name, count, wanted in zip(report.prompts, counts, report.expected, strict=True)
        if wanted is not None and count != wanted
    ]
    if other or (total is not None and sum(counts) != total):
        whole = f"{sum(counts):,} images" + f", {total:,} expected" * (total is not None)
        report.add(
            f"{whole}{': ' * bool(other)}{few(other)}.",
            "Too few: a part of the archive, or a sample? Too many: copies? Compare with "
            f"{dataset.homepage}; published results are for all images.",
        )
    if counts and max(counts) >= IMBALANCE * max(1, min(counts)):
        most, least = counts.index(max(counts)), counts.index(min(counts))
        report.notes.append(
            f"Imbalanced: {counts[most]:,} images of '{report.prompts[most]}', "
            f"{counts[least]:,} of '{report.prompts[least]}'. Where all images are trained on, "
            "TRAIN.CLASS_WEIGHTS balanced helps."
        )


def _expected_counts(dataset: FolderDataset, prompts: Sequence[str]) -> list[int | None]:
    each = dataset.images_per_class
    if not isinstance(each, Sequence):
        return [each] * len(prompts)
    labels = [dataset.table.label_of(prompt) for prompt in prompts]
    if len(each) != len(prompts) or None in labels:  # some are left out
        return [None] * len(prompts)
    return [each[label] for label in labels if label is not None]


def _compare_parts(dataset: FolderDataset, split: Split, report: Report) -> None:
    """Record which image is in which part, and report those in two."""
    for part in Split._fields:
        report.parts[part] = {item.path for item in getattr(split, part)}
    if dataset.test_only:
        report.parts = {"test": report.parts["test"]}
    elif report.parts["val"] == report.parts["test"]:  # as CoOp has it for ImageNet
        del report.parts["val"]
    if dataset.groups:
        report.notes.append(f"{dataset.groups_in_words()}.")
    remedy = "Delete the file to have a new split made, or get the published one again."
    if dataset.needs_split:
        remedy = "Get the published file again."
    for one, other in combinations(report.parts, 2):
        shared = report.parts[one] & report.parts[other]
        if shared:
            report.add(
                f"{report.split}: {len(shared)} image(s) are in {one} and in {other}: "
                f"{few(sorted(shared))}.",
                remedy,
            )


def _every_image(report: Report) -> list[str]:
    listed = (path for paths in report.images for path in paths)
    return sorted({*listed, *(path for paths in report.parts.values() for path in paths)})


def _report_images(dataset: FolderDataset, report: Report) -> None:
    """Decode every image once; report those that cannot be read, copies, and odd pixels."""
    settings = dataset.options.reading
    seen, broken = looks(_every_image(report), report.image_dir, settings)
    if broken:
        what = (
            f"{len(broken)} image(s) in {report.image_dir} cannot be read: "
            f"{describe_problems(broken)}."
        )
        if dataset.options.skip_broken:
            report.notes.append(f"{what} They are left out: DATASET.SKIP_BROKEN is True.")
        else:
            report.add(
                what,
                "Do what it says, repair or replace them, or set DATASET.SKIP_BROKEN True to do "
                "without them.",
            )
    check = ImageCheck(report.image_dir, dataset.store, settings)
    check.remember({path: one.facts for path, one in seen.items()})
    equal = report_duplicates(report, seen)
    problems, notes = pixel_findings(
        seen,
        report.label_of(),
        report.prompts,
        report.part_of(),
        settings=settings,
        already=[frozenset(group) for group in equal],
    )
    report.findings += problems
    report.notes += notes
