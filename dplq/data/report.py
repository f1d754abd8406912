"""Rendering of a `check` report: as text, and as cells of a contact sheet."""

from __future__ import annotations

import os

from tabulate import tabulate

from dplq.data.contact_sheet import Cell
from dplq.data.datasheet import half_of, prompt_of
from dplq.data.survey import Report
from dplq.datasets._engine.base import FolderDataset


def render(report: Report, cls: type[FolderDataset]) -> str:
    """Return the class map with its counts, the problems with their remedies, and the notes."""
    lines = [f"{report.name} in {report.folder}"]
    if report.images:
        sizes = ", ".join(f"{part} {len(paths)}" for part, paths in report.parts.items())
        digest = f", hash {report.split_hash}" * bool(report.split_hash)
        lines.append(f"split: {report.split or 'none'}" + f" ({sizes})" * bool(sizes) + digest)
        lines += ["", _class_map(report), ""]
    for i, finding in enumerate(report.findings, 1):
        lines += [f"problem {i}: {finding.what}", f"  -> {finding.remedy}"]
    lines += [f"note: {text}" for text in report.notes]
    count = len(report.findings)
    lines.append(f"{count or 'No'} problem{'s' * (count != 1)} found.")
    return "\n".join(lines)


def cells(report: Report, cls: type[FolderDataset]) -> list[Cell]:
    """Return one cell per class: its prompt; its half, folder and image count; the images."""
    return [
        Cell(
            prompt_of(cls, prompt),
            ", ".join(filter(None, (_half(i, report), *names, f"{len(paths)} images"))),
            [os.path.join(report.image_dir, path) for path in sorted(paths)],
        )
        for i, (prompt, names, paths) in enumerate(
            zip(report.prompts, map(_distinct, report.spellings), report.images, strict=True)
        )
    ]


def _class_map(report: Report) -> str:
    rows = [
        [
            i,
            _half(i, report),
            prompt,
            ", ".join(_distinct(report.spellings[i])) or "-",
            len(set(report.images[i])),
            "?" if report.expected[i] is None else report.expected[i],
            *(len(paths.intersection(report.images[i])) for paths in report.parts.values()),
        ]
        for i, prompt in enumerate(report.prompts)
    ]
    return tabulate(
        rows, ["label", "half", "class", "found as", "images", "expected", *report.parts]
    )


def _half(label: int, report: Report) -> str:
    return "" if report.test_only else half_of(label, len(report.prompts))


def _distinct(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))
