"""Duplicates among the images of a dataset: files with equal bytes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from dplq.data.survey import Report
from dplq.datasets._engine.splits import OWN_PREFIX, PREFIX
from dplq.errors import few
from dplq.io.files import file_digest


def report_duplicates(report: Report, paths: Iterable[str]) -> list[list[str]]:
    """Report equal images: across train, val and test, across classes, within one part.

    Args:
        report: extended by findings and notes.
        paths: images to compare, relative to `report.image_dir`.

    Returns:
        The groups of equal images.
    """
    part_of, label_of = report.part_of(), report.label_of()
    across, contradicting, within = [], [], []
    equal = equal_files(report.image_dir, paths)
    for group in equal:
        text = few((f"{p} ({part_of[p]})" if p in part_of else p for p in group), separator=" = ")
        is_across = len({part_of[path] for path in group if path in part_of}) > 1
        is_contradicting = len({label_of.get(path) for path in group}) > 1
        across += [text] * is_across
        contradicting += [text] * is_contradicting
        within += [text] * (not is_across and not is_contradicting)
    if across:
        report.add(
            f"{len(across)} duplicate(s) across train, val and test (equal bytes): {few(across)}.",
            f"They inflate the test accuracy. {_remedy(report)}",
        )
    if contradicting:
        report.add(
            f"{len(contradicting)} image(s) in two classes (equal bytes): {few(contradicting)}.",
            "Only one class can be right: delete the others.",
        )
    if within and not report.parts:
        report.add(
            f"{len(within)} duplicate(s) (equal bytes), and no split to say where: {few(within)}.",
            "Delete all but one of each before a split is made.",
        )
    elif within:
        report.notes.append(f"{len(within)} duplicate(s) within one part: {few(within)}.")
    return equal


def _remedy(report: Report) -> str:
    name = os.path.basename(report.split)
    if name.startswith(OWN_PREFIX):
        return f"Delete all but one of each, and {report.split} to have a new split made."
    if name.startswith(PREFIX):
        return f"{name} is published: keep it, and mention them with your results."
    return "Delete all but one of each."


def equal_files(folder: str, paths: Iterable[str]) -> list[list[str]]:
    """Return groups of files with the same content; only files of equal size are read.

    Args:
        folder: what `paths` are relative to.
        paths: files.

    Returns:
        Sorted groups of two paths or more.
    """
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_size[os.path.getsize(os.path.join(folder, path))].append(path)
    todo = [path for same in by_size.values() if len(same) > 1 for path in same]
    by_content: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        digests = pool.map(file_digest, (os.path.join(folder, path) for path in todo))
        bar = tqdm(digests, "Comparing images", len(todo), leave=False, disable=None)
        for path, digest in zip(todo, bar, strict=True):
            by_content[digest].append(path)
    return sorted(same for same in by_content.values() if len(same) > 1)
