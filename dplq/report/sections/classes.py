"""Metrics of each class, as bars and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from dplq.report.figures import ACCENT, INK, SOFT, WARM, drawing, new_chart, svg_figure
from dplq.report.labels import labels_of
from dplq.report.numbers import counted, decimal, percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.tables import table
from dplq.report.templating import fill

MOST = 40  # bars
FOLDED = 12  # rows from which the table is folded away
HEADINGS = (
    *("class", "images", "sensitivity (%)", "specificity (%)", "precision (%)", "F1 (%)"),
    *("AUROC", "average precision"),
)
Values = Mapping[str, Any]


def section(run: RunPage) -> Section | None:
    """Return the section; None where nothing is known of the classes."""
    if run.metrics is not None:
        found: dict[str, Values] = run.metrics["per_class"]
        made: Markup | str = _table(found)
    else:
        accuracies = run.results.per_class_accuracy
        found = {name: {"sensitivity": value / 100} for name, value in accuracies.items()}
        made = ""
    known = {name: values for name, values in found.items() if values["sensitivity"] is not None}
    if not known:
        return None
    body = fill(
        "classes.html",
        figure=_bars(known, labels_of(list(found))),
        table=made,
        folded=len(found) > FOLDED,
        count=len(found),
    )
    return Section("Classes", "classes", body)


def _table(found: Mapping[str, Values]) -> Markup:
    rows = [
        (
            name,
            f"{values['support']:,}",
            *(percent(values[key]) for key in ("sensitivity", "specificity", "precision", "f1")),
            *(decimal(values[key]) for key in ("auroc", "average_precision")),
        )
        for name, values in found.items()
    ]
    return table("Each class against all others, in the order of the run.", HEADINGS, rows)


def _bars(found: Mapping[str, Values], labels: Mapping[str, str]) -> Markup:
    """Return the bars, the lowest first; `labels` are those of the classes in figures."""
    order = sorted(found, key=lambda name: found[name]["sensitivity"])
    names = order[:MOST]
    height = np.arange(len(names))
    shares = [100 * found[name]["sensitivity"] for name in names]
    precisions = [found[name].get("precision") for name in names]
    with drawing():
        figure = new_chart(5.4, 0.24 * len(names) + 0.95)
        axes = figure.subplots()
        axes.barh(height, shares, height=0.62, color=ACCENT, alpha=0.75, label="sensitivity")
        marked = [(100 * p, h) for p, h in zip(precisions, height, strict=True) if p is not None]
        if marked:
            x, y = zip(*marked, strict=True)
            axes.scatter(
                x, y, s=22, marker="D", color=WARM, label="precision", clip_on=False, zorder=3
            )
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, labelcolor=INK, fontsize=9
            )
        axes.text(
            103, -0.9, "sensitivity", va="center", ha="left", fontsize=8.5, color=SOFT
        )  # else the numbers beside the marks seem to be precisions
        for share, row in zip(shares, height, strict=True):
            axes.text(103, row, f"{share:.0f}", va="center", ha="left", fontsize=8.5, color=SOFT)
        axes.set_yticks(height, [labels[name] for name in names])
        axes.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="%")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        label = (
            f"Sensitivity of {counted(len(names), 'class', 'classes')}. Lowest: {names[0]}, "
            f"{shares[0]:.0f} %; highest of these: {names[-1]}, {shares[-1]:.0f} %."
        )
        caption = "Sensitivity: share of the images of a class that are recognised. "
        caption += "Precision: share of the images given this class that are of it. " * bool(marked)
        if len(order) > MOST:
            caption += f"The {MOST} lowest of {len(order):,} classes; the table has all."
        return svg_figure(figure, "class-bars", label, caption.strip(), most=580)
