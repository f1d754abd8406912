"""Curves of the training: loss, accuracy on the batches, validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from dplq.errors import one_line
from dplq.report.curves import Points, by_epoch, read_curves
from dplq.report.figures import ACCENT, INK, WARM, drawing, new_chart, svg_figure
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill

PANELS = (("loss", "loss"), ("acc", "accuracy (%)"))


def section(run: RunPage) -> Section | None:
    """Return the section; None where nothing was trained by steps, or it left no curve."""
    epochs = run.results.epochs
    if not epochs:
        return None
    problem = ""
    curves: Mapping[str, Points] = {}
    try:
        curves = read_curves(run.folder)
    except Exception as error:  # tensorboard raises nearly anything on damaged files
        problem = f"The tensorboard files of the run cannot be read: {one_line(error)}"
    figures = [
        _panel(name, title, curves, epochs)
        for name, title in PANELS
        if _has(curves, f"train/{name}")
    ]
    if not figures and not problem:
        return None
    trained = run.results.train_accuracy
    body = fill("training.html", figures=figures, problem=problem, trained=trained)
    return Section("Training", "training", body)


def _has(curves: Mapping[str, Points], tag: str) -> bool:
    return tag in curves and len(curves[tag][0]) > 0


def _panel(name: str, title: str, curves: Mapping[str, Points], epochs: int) -> Markup:
    steps, means = by_epoch(curves[f"train/{name}"], epochs)
    with drawing():
        figure = new_chart(4.6, 2.7)
        axes = figure.subplots()
        axes.grid(axis="y")
        style: dict[str, Any] = {"marker": "o" if len(steps) < 30 else None, "markersize": 3.5}
        axes.plot(steps, means, color=ACCENT, label="training batches", **style)
        if name == "acc" and _has(curves, "val/accuracy"):
            when, values = curves["val/accuracy"]
            axes.plot(when + 1, values, color=WARM, linestyle="--", label="validation", **style)
            axes.legend(labelcolor=INK)
        axes.set(xlabel="epoch", title=title)
        axes.set_xlim(0.5, epochs + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        label = (
            f"Training {title} by epoch: {means[0]:.3g} in the first, {means[-1]:.3g} in the last "
            f"of {len(steps)}."
        )
        return svg_figure(figure, f"training-{name}", label, most=500)
