"""ROC curve of each class against the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dplq.evaluation.prediction_table import PredictionTable
from dplq.report.figures import ACCENT, INK, LINE, SOFT, THIRD, WARM, drawing, new_chart, svg_figure
from dplq.report.labels import labels_of
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill

COLOURED = 3  # curves with a colour of their own: the lowest
MOST = 40  # curves in the figure
POINTS = 200  # of a curve in the figure


class Curve(NamedTuple):
    """ROC curve of a class: false and true positive rate, and the area under it."""

    name: str
    false: NDArray[np.float64]
    true: NDArray[np.float64]
    area: float


def section(run: RunPage) -> Section | None:
    """Return the section; None without predictions, or where no class can be told from others."""
    if run.predictions is None:
        return None
    found = sorted(curves(run.predictions), key=lambda curve: curve.area)
    if not found:
        return None
    figure = _draw(found, run.predictions.classes)
    return Section("ROC curves", "roc", fill("figure_alone.html", figure=figure))


def curves(table: PredictionTable) -> list[Curve]:
    """Return the curve of every class with images in it and images outside it."""
    from sklearn.metrics import auc, roc_curve

    known = table.labels >= 0
    labels = table.labels[known]
    found = []
    for k, name in enumerate(table.classes):
        inside = labels == k
        if inside.any() and not inside.all():
            false, true, _ = roc_curve(inside, table.probabilities[known, k])
            found.append(Curve(name, false, true, float(auc(false, true))))
    return found


def thinned(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return at most `POINTS` points of a curve, evenly along it."""
    if len(curve.false) <= POINTS:
        return curve.false, curve.true
    along = np.cumsum(
        np.abs(np.diff(curve.false, prepend=0)) + np.abs(np.diff(curve.true, prepend=0))
    )
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)))
    return curve.false[kept], curve.true[kept]


def _draw(found: list[Curve], classes: list[str]) -> str:
    """Return the figure; `found` is sorted by area.

    Of two classes one curve is drawn: the probabilities add up to 1, so the other is its mirror
    image.
    """
    is_binary, labels = len(classes) == 2, labels_of(classes)
    shown = [curve for curve in found if curve.name == classes[1]] if is_binary else found[:MOST]
    styles = list(zip((WARM, ACCENT, THIRD), ("-", "--", "-."), strict=True))
    with drawing():
        figure = new_chart(4.8, 4.7)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        for curve in reversed(shown[COLOURED:]):
            axes.plot(*thinned(curve), color=SOFT, linewidth=0.8, alpha=0.45)
        for (colour, dashes), curve in zip(styles, shown, strict=False):
            label = f"{labels[curve.name]}  {curve.area:.3f}"
            axes.plot(*thinned(curve), color=colour, linestyle=dashes, label=label)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", aspect="equal")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="lower right", title="area under the curve", labelcolor=INK)
        lowest, highest = found[0], found[-1]
        if is_binary:
            label = f"ROC curve of {classes[1]} against {classes[0]}: area {shown[0].area:.3f}."
            caption = (
                f"{classes[1]} against {classes[0]}; the other way round the area is the same."
            )
        else:
            label = (
                f"ROC curves of {len(shown)} classes, each against the rest. Lowest area: "
                f"{lowest.name}, {lowest.area:.3f}. Highest: {highest.name}, {highest.area:.3f}."
            )
            caption = "Each class against all others."
        if len(found) > COLOURED:
            caption += (
                f" In colour: the {COLOURED} classes with the smallest area; the others grey."
            )
        if len(found) > MOST:
            caption += f" Only the {MOST} smallest of {len(found):,} are drawn."
        return svg_figure(figure, "roc-curves", label, caption, most=500)
