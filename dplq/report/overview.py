"""The page of a folder with many runs: tables, few-shot curves, links to each run's page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from dplq.report.figures import drawing, svg_figure
from dplq.report.numbers import counted
from dplq.report.page import assemble
from dplq.report.section import Section
from dplq.report.templating import fill
from dplq.results.curve import curve_figure
from dplq.results.grids import all_class_runs, shots_of, shots_table
from dplq.results.rendering import Table
from dplq.results.runs import Run
from dplq.results.summary import summarise
from dplq.results.tables import accuracy_table

CURVES = 12  # datasets with a figure
LISTED = 500  # runs in the list


def render_overview(runs: Sequence[Run], folder: Path, pages: Mapping[Path, Path]) -> str:
    """Return the page as HTML.

    Args:
        runs: what `dplq.results.collect` returns.
        folder: the one that the page will lie in: links are relative to it.
        pages: of the runs that have one, by their folder.
    """
    count = len({run.folder for run in runs})
    lead = counted(count, "finished run")
    return assemble("Comparison of runs", lead, sections(runs, folder, pages))


def sections(runs: Sequence[Run], folder: Path, pages: Mapping[Path, Path]) -> Iterator[Section]:
    """Yield the sections of the page."""
    made = accuracy_table(summarise(runs))
    yield Section("Accuracy", "accuracy", comparison(made, "Top-1 accuracy in %."))
    whole = [run for run in runs if run.subset == "all"]
    if len({shots_of(run) for run in whole} - {0}) > 1:
        yield Section("Accuracy by number of training images", "shots", _shots(whole))
    yield Section("Runs", "runs", _list(runs, folder, pages))


def comparison(table: Table, caption: str) -> Markup:
    """Return a table of `dplq.results` as HTML, in a box that scrolls, its note below it."""
    made, end, note = table.render("html").partition("</table>")
    heading = fill("comparison_head.html", caption=caption)
    made = made.replace("<table>", str(heading), 1) + end
    return fill("comparison.html", table=Markup(made), note=Markup(note), caption=caption)


def _shots(runs: Sequence[Run]) -> Markup:
    """Return the table and the curves over shots, a figure for each dataset."""
    table = comparison(shots_table(runs), "Top-1 accuracy in % by training images per class.")
    datasets = sorted({run.dataset for run in all_class_runs(runs)}, key=str.lower)
    figures = []
    for number, dataset in enumerate(datasets[:CURVES]):
        with drawing():
            figure, drawn = curve_figure(run for run in runs if run.dataset == dataset)
            figure.set_size_inches(5, 3.6)
            trainers = ", ".join(trainer for _, trainer in drawn)
            label = f"Accuracy on {dataset} over training images per class: {trainers}."
            figures.append(svg_figure(figure, f"curve-{number}", label, most=600))
    more = len(datasets) - CURVES
    limited = f"Figures of the first {CURVES} datasets; {more} more are in the table." * (more > 0)
    return fill("curves.html", table=table, figures=figures, limited=limited)


def _list(runs: Sequence[Run], folder: Path, pages: Mapping[Path, Path]) -> Markup:
    rows = [
        {
            "link": link_to(pages[run.folder], folder) if run.folder in pages else "",
            "name": _name(run.folder, folder),
            "cells": (run.dataset, run.setting.trainer, run.setting.config),
            "numbers": (run.setting.shots, run.subset, run.seed, f"{run.accuracy:.2f}"),
        }
        for run in runs[:LISTED]
    ]
    more = len(runs) - LISTED
    return fill("runs.html", rows=rows, limited=f"{more:,} more are not listed." * (more > 0))


def _name(run: Path, folder: Path) -> str:
    folder = folder.resolve()
    return run.relative_to(folder).as_posix() if run.is_relative_to(folder) else str(run)


def link_to(page: Path, folder: Path) -> str:
    """Return the relative address of a page from a folder."""
    relative = os.path.relpath(page.resolve(), folder.resolve())
    return quote(relative.replace(os.sep, "/"), errors="surrogateescape")
