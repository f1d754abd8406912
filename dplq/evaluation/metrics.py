"""Metrics of a test, from labels and predictions.

A new metric is a function of both, and its name in `METRICS` (docs/extending.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any

from dplq.errors import UserError, few, one_line
from dplq.evaluation.prediction_rows import distinct_names

logger = logging.getLogger(__name__)


def accuracy(labels: list[int], predictions: list[int]) -> float:
    """Return the accuracy in percent, of one image at least."""
    hits = [label == guess for label, guess in zip(labels, predictions, strict=True)]
    return 100.0 * sum(hits) / len(hits)


def error_rate(labels: list[int], predictions: list[int]) -> float:
    """Return 100 minus the accuracy."""
    return 100.0 - accuracy(labels, predictions)


def macro_f1(labels: list[int], predictions: list[int]) -> float:
    """Return the mean F1 over the classes that are present, in percent."""
    from sklearn.metrics import f1_score

    present = sorted(set(labels))
    score = f1_score(labels, predictions, average="macro", labels=present, zero_division=0)
    return 100.0 * float(score)


# Every one of these is written to results.json under its name.
METRICS: dict[str, Callable[[list[int], list[int]], float]] = {
    "accuracy": accuracy,
    "error_rate": error_rate,
    "macro_f1": macro_f1,
}

OWN_METRICS = frozenset(METRICS)


def check_metrics(taken: Iterable[str]) -> None:
    """Refuse (UserError) a metric whose name results.json has for something else.

    Args:
        taken: names of its entries.
    """
    if names := sorted((METRICS.keys() - OWN_METRICS) & set(taken)):
        raise UserError(
            f"METRICS has {few(names)}, which results.json has for something else: give the metric "
            "another name."
        )


def value_of(name: str, labels: list[int], predictions: list[int]) -> float | None:
    """Return a metric's value; None, with a warning, where it has none that can be written."""
    try:
        value = float(METRICS[name](labels, predictions))
    except Exception as error:  # of a function of somebody else: the others are not lost
        if name in OWN_METRICS:
            raise
        logger.warning("The metric %s has failed, and is left empty: %s", name, one_line(error))
        return None
    if not math.isfinite(value):
        logger.warning("The metric %s is %s, and is left empty.", name, value)
        return None
    return value


def scores(labels: list[int], predictions: list[int], names: dict[int, str]) -> dict[str, Any]:
    """Return all metrics, the accuracy of every class in percent, and counts.

    Args:
        labels: true labels.
        predictions: predicted labels.
        names: class name of each label; of equal ones the second becomes "name (2)".
    """
    ordered = sorted(names)
    distinct = dict(zip(ordered, distinct_names([names[k] for k in ordered]), strict=True))
    by_class: dict[int, list[bool]] = {label: [] for label in sorted(set(labels))}
    for label, guess in zip(labels, predictions, strict=True):
        by_class[label].append(label == guess)
    return {
        **{name: value_of(name, labels, predictions) for name in METRICS},
        "per_class_accuracy": {
            distinct[label]: 100.0 * sum(hits) / len(hits) for label, hits in by_class.items()
        },
        "total": len(labels),
        "correct": sum(map(sum, by_class.values())),
    }
