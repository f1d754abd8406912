"""Confusion matrix, and the most frequent mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from dplq.report.confusions import (
    OTHERS,
    Counts,
    confusion,
    frequent_pairs,
    merged,
    most_confused,
    never_right,
)
from dplq.report.figures import ACCENT, INK, PAPER, WARM, drawing, new_chart, svg_figure
from dplq.report.labels import labels_of
from dplq.report.numbers import counted, percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.tables import table
from dplq.report.templating import fill

MOST = 60  # classes in the figure
KEPT = 30  # of more classes
PAIRS = 12


def section(run: RunPage) -> Section | None:
    """Return the section; None without counts of the mistakes."""
    if run.metrics is None:
        return None
    classes: list[str] = run.metrics["classes"]
    if run.predictions is not None:
        counts = confusion(run.predictions)
    elif run.metrics["confusion_matrix"] is not None:
        counts = np.array(run.metrics["confusion_matrix"], dtype=np.int64)
    else:  # of too many classes to be recorded
        return None
    labels, limited, shown = list(labels_of(classes).values()), "", counts
    if len(classes) > MOST:
        kept = most_confused(counts, KEPT)
        shown, labels = merged(counts, kept), [*(labels[k] for k in kept), OTHERS]
        limited = (
            f"The figure has the {KEPT} of {len(counts):,} classes with the most mistakes; the "
            "others are one row and one column."
        )
    body = fill(
        "confusion.html",
        figure=_matrix(shown, labels, limited),
        pairs=_pairs(counts, classes),
    )
    return Section("Confusion matrix", "confusion", body)


def _pairs(counts: Counts, names: list[str]) -> Markup | str:
    """Return the table of the most frequent mistakes; empty without one."""
    found = frequent_pairs(counts, PAIRS)
    if not found:
        return ""
    totals = counts.sum(1)
    return table(
        "The most frequent mistakes, and their share of the images of the true class.",
        ("true class", "predicted", "images", "share (%)"),
        [(names[t], names[g], f"{n:,}", percent(n / totals[t])) for t, g, n in found],
        labels=2,
    )


def _matrix(counts: Counts, labels: list[str], limited: str) -> Markup:
    classes = len(labels)
    cell = (
        0.7 if classes <= 6 else 0.5 if classes <= 12 else 0.32 if classes <= 25 else 0.2
    )  # inches
    size = 10.0 if classes <= 12 else 8.5 if classes <= 25 else 6.5  # points
    longest = max(map(len, labels))
    side = cell * classes + 0.08 * longest + 0.6
    with drawing():
        figure = new_chart(side, side)
        axes = figure.subplots()
        _draw_cells(axes, counts, size, with_numbers=classes <= 25 or counts.max() < 1000)
        ticks = range(classes)
        axes.set_xticks(
            ticks, labels, rotation=90 if longest > 8 * cell else 0, fontsize=max(size, 7)
        )
        axes.set_yticks(ticks, labels, fontsize=max(size, 7))
        axes.set(xlabel="predicted class", ylabel="true class", aspect="equal")
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        right = int(counts.diagonal().sum())
        outlines = "Outlined: a class of which no image was right. " * bool(never_right(counts))
        return svg_figure(
            figure,
            "confusion-matrix",
            f"Confusion matrix of {counted(classes, 'class', 'classes')}, diagonal (right): "
            f"{right:,} of {counted(int(counts.sum()), 'image')}. The table below names the most "
            "frequent mistakes.",
            "Rows: true classes; columns: predicted ones; numbers: images. The stronger the "
            "colour, the larger the share of the row. On the diagonal: right. "
            + outlines
            + limited,
            wide=round(96 * side * 0.95) if classes > 6 else 0,
            most=round(96 * side * 1.1),
        )


def _draw_cells(axes: Any, counts: Counts, size: float, with_numbers: bool) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    shares = counts / totals
    rows, columns = np.nonzero(counts)
    strength = [0.08 + 0.92 * float(shares[r, c]) for r, c in zip(rows, columns, strict=True)]
    cells = [
        Rectangle((c - 0.47, r - 0.47), 0.94, 0.94) for r, c in zip(rows, columns, strict=True)
    ]
    colours = [
        to_rgba(ACCENT if r == c else WARM, alpha)
        for r, c, alpha in zip(rows, columns, strength, strict=True)
    ]
    axes.add_collection(PatchCollection(cells, facecolors=colours, linewidths=0))
    for k in never_right(counts):
        axes.add_patch(
            Rectangle((k - 0.45, k - 0.45), 0.9, 0.9, fill=False, ec=ACCENT, lw=0.6, alpha=0.5)
        )
    if with_numbers:
        for r, c, alpha in zip(rows, columns, strength, strict=True):
            colour = PAPER if alpha > 0.55 else INK
            axes.text(c, r, counts[r, c], ha="center", va="center", fontsize=size, color=colour)
