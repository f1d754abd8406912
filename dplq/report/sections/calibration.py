"""Reliability diagram: whether the probabilities can be trusted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from dplq.report.figures import ACCENT, INK, SOFT, WARM, drawing, new_chart, svg_figure
from dplq.report.numbers import decimal, interval, percent
from dplq.report.run_page import RunPage
from dplq.report.section import Section
from dplq.report.templating import fill


def section(run: RunPage) -> Section | None:
    """Return the section; None without predictions."""
    if run.metrics is None:
        return None
    metrics = run.metrics
    body = fill(
        "calibration.html",
        figure=_diagram(metrics["reliability"], metrics["ece"]),
        said=_said(metrics),
        scaled=_scaled(run),
    )
    return Section("Calibration", "calibration", body)


def _said(metrics: dict[str, Any]) -> str:
    """Return a sentence that compares mean confidence and accuracy.

    It judges only where the two differ by more than other images could explain: where the mean
    confidence lies outside the interval of the accuracy.
    """
    bins = metrics["reliability"]
    pairs = [(n, c) for n, c in zip(bins["images"], bins["confidence"], strict=True) if n]
    mean = sum(n * c for n, c in pairs) / sum(n for n, _ in pairs)
    accuracy = metrics["accuracy"]
    said = (
        f"The model gives its predictions a probability of {percent(mean)} % on average; "
        f"{percent(accuracy)} % of them are right"
    )
    pair = (metrics["intervals"] or {}).get("accuracy")
    if pair is None:
        return f"{said}. That is too little to judge by: there is no interval of the accuracy."
    low, high = pair
    within = f"of the accuracy, {interval(pair, is_percent=True)} %"
    if low <= mean <= high:
        return (
            f"{said}. The probability lies inside the 95 % interval {within}: no difference seen."
        )
    word = "too certain" if mean > high else "not certain enough"
    return f"{said}: it is {word}. The probability lies outside the 95 % interval {within}."


def _scaled(run: RunPage) -> str:
    """Return a sentence on the temperature of the probabilities; "" where none was fitted."""
    recorded = run.results.metrics or {}
    found = recorded.get("temperature")
    keys = ("value", "ece_before", "ece_after")
    if not isinstance(found, dict) or not all(isinstance(found.get(k), float) for k in keys):
        return ""
    value, before, after = (found[key] for key in keys)
    return (
        f"The probabilities are scaled by a temperature of {value:.3g}, fitted on the val images: "
        f"expected calibration error {decimal(before)} before, {decimal(after)} after."
    )


def _diagram(bins: dict[str, Any], ece: float) -> Markup:
    edges, images = bins["edges"], bins["images"]
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    width = edges[1] - edges[0]
    filled = [k for k, count in enumerate(images) if count]
    with drawing():
        figure = new_chart(4.8, 5.0)
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        at, heights = [middles[k] for k in filled], [100 * bins["accuracy"][k] for k in filled]
        axes.bar(at, heights, width * 0.92, color=ACCENT, alpha=0.75, label="accuracy")
        confidence = [100 * bins["confidence"][k] for k in filled]
        axes.plot(
            at,
            confidence,
            "_",
            color=WARM,
            markersize=14,
            markeredgewidth=2,
            label="mean confidence",
        )
        axes.plot([0, 1], [0, 100], color=SOFT, linewidth=1, linestyle=":")
        axes.set(ylabel="accuracy (%)", ylim=(0, 101), xlim=(0, 1))
        axes.legend(  # above the bars, which may be anywhere inside
            loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, labelcolor=INK
        )
        below.bar(at, [images[k] for k in filled], width * 0.92, color=SOFT, alpha=0.6)
        below.set(xlabel="probability of the predicted class", ylabel="images")
        label = (
            f"Reliability diagram: accuracy by probability of the predicted class in {len(filled)} "
            f"bins. Expected calibration error {decimal(ece)}."
        )
        caption = (
            "Where the bars end at the marks, probabilities are what they say; bars below the "
            "marks: too certain. Below: how many images have such a probability."
        )
        return svg_figure(figure, "reliability", label, caption, most=500)
