"""Metrics of a ``results.json``, checked: for a run whose ``predictions.csv`` is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dplq.io.validation.schema import Count, InvalidContent, Name, convert

REMEDY = "Delete it, and test again: the same command, or --eval-only with --model-dir."
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(ge=0)]
Pair = tuple[float, float]


class _Class(msgspec.Struct):
    """Metrics of a class."""

    support: Count
    sensitivity: Share | None
    specificity: Share | None
    precision: Share | None
    f1: Share | None
    auroc: Share | None
    average_precision: Share | None


class _Reliability(msgspec.Struct):
    """Bins of a reliability diagram."""

    edges: Annotated[list[Share], Meta(min_length=2)]
    images: list[Count]
    accuracy: list[Share | None]
    confidence: list[Share | None]


class _Intervals(msgspec.Struct):
    """95 % intervals."""

    over: str
    units: Count
    draws: Count
    accuracy: Pair | None
    balanced_accuracy: Pair | None
    macro_f1: Pair | None
    macro_auroc: Pair | None
    ece: Pair | None


class _Metrics(msgspec.Struct):
    """What `dplq.evaluation.summary.summarise` returns, as far as a page shows it."""

    images: Annotated[int, Meta(ge=1)]
    unlabelled: Count
    classes: list[Name]
    classes_without_images: list[Name]
    accuracy: Share
    balanced_accuracy: Share | None
    macro_f1: Share | None
    macro_auroc: Share | None
    macro_average_precision: Share | None
    ece: Share
    brier: Positive
    log_loss: Positive
    per_class: dict[Name, _Class]
    reliability: _Reliability
    confusion_matrix: list[list[Count]] | None
    intervals: _Intervals | None


def recorded_metrics(metrics: dict[str, Any], file: Path) -> dict[str, Any]:
    """Return the metrics that a ``results.json`` holds, once they are known to be such.

    Args:
        metrics: of the file.
        file: for messages.

    Raises:
        UserError: a key is missing or has another value; file and key are named.
    """
    try:
        found: _Metrics = convert(metrics, _Metrics, where=str(file), remedy=REMEDY)
    except InvalidContent as error:
        raise error.at("metrics") from error
    if problem := _disagreement(found):
        raise InvalidContent(str(file), f"metrics.{problem}", REMEDY)
    return metrics


def _disagreement(metrics: _Metrics) -> str:
    """Return which lengths do not agree; "" where all do."""
    bins, classes = metrics.reliability, metrics.classes
    filled = [bool(count) for count in bins.images]
    if len(filled) != len(bins.edges) - 1 or not any(filled):
        return "reliability: the bins do not agree, or all are empty"
    for values in (bins.accuracy, bins.confidence):
        if [value is not None for value in values] != filled:
            return "reliability: the bins do not agree"
    if list(metrics.per_class) != classes:
        return "per_class: it has other classes than `classes`"
    matrix = metrics.confusion_matrix
    if matrix is not None and {len(matrix), *map(len, matrix)} != {len(classes)}:
        return f"confusion_matrix: it is not {len(classes)} x {len(classes)}"
    return ""
