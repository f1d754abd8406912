"""Metrics of a test from its predictions and probabilities; docs/metrics.md defines them.

All are from 0 to 1, as scikit-learn gives them, but for the log loss and the Brier score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dplq.errors import UserError, few
from dplq.evaluation.calibration import EDGES, reliability
from dplq.evaluation.intervals import intervals
from dplq.evaluation.prediction_rows import SUM_TOLERANCE
from dplq.evaluation.prediction_table import PredictionTable

MOST_CLASSES = 200  # of a confusion matrix in the summary
EPSILON = np.finfo(np.float64).eps  # least probability in the log loss, as in scikit-learn


def summarise(table: PredictionTable, *, with_intervals: bool = True) -> dict[str, Any]:
    """Return the metrics of a test, JSON-able; a metric that is not defined is None.

    Args:
        table: images without a label are left out, and counted.
        with_intervals: add the bootstrap intervals.

    Returns:
        images, unlabelled: counts.
        certain: images of which a class has the probability 1, to the last digit that is stored.
        classes: names, in the order of every list.
        classes_without_images: names; their sensitivity, AUROC and average precision are None.
        accuracy, balanced_accuracy, macro_f1, macro_auroc, macro_average_precision, ece, brier,
        log_loss: numbers; macro means over the classes that have the metric.
        per_class: by name: support, sensitivity, specificity, precision, f1, auroc,
        average_precision.
        reliability: edges (16), images, accuracy and confidence (15, None in an empty bin).
        confusion_matrix: a row per true class; None for more than 200 classes.
        intervals: as `dplq.evaluation.intervals.intervals` has them; None without.

    Raises:
        UserError: no image has a label, or a probability is nan, or none.
    """
    known, table = len(table), _labelled(table)
    check_probabilities(table)
    probabilities = table.probabilities.astype(np.float64)
    confusion = _confusion(table)
    support = confusion.sum(axis=1)
    per_class = {
        **_from_confusion(confusion),
        "auroc": _by_class(_auroc, table, probabilities),
        "average_precision": _by_class(_average_precision, table, probabilities),
    }
    rows = np.arange(len(table))
    bins = reliability(probabilities[rows, table.predictions], table.labels == table.predictions)
    right = probabilities[rows, table.labels]
    present = support > 0
    return {
        "images": len(table),
        "unlabelled": known - len(table),
        "certain": int((table.probabilities.max(axis=1) >= 1).sum()),
        "classes": list(table.classes),
        "classes_without_images": [
            name for name, count in zip(table.classes, support, strict=True) if not count
        ],
        "accuracy": float(np.trace(confusion) / len(table)),
        "balanced_accuracy": _mean(per_class["sensitivity"]),
        "macro_f1": _mean(per_class["f1"][present]),
        "macro_auroc": _mean(per_class["auroc"]),
        "macro_average_precision": _mean(per_class["average_precision"]),
        "ece": bins.ece,
        "brier": float(np.mean((probabilities**2).sum(axis=1) - 2 * right + 1)),
        "log_loss": float(-np.log(np.clip(right, EPSILON, 1)).mean()),
        "per_class": {
            name: {
                "support": int(support[label]),
                **{metric: _number(values[label]) for metric, values in per_class.items()},
            }
            for label, name in enumerate(table.classes)
        },
        "reliability": {
            "edges": EDGES.tolist(),
            "images": bins.images.tolist(),
            "accuracy": _numbers(bins.accuracy),
            "confidence": _numbers(bins.confidence),
        },
        "confusion_matrix": confusion.tolist() if len(support) <= MOST_CLASSES else None,
        "intervals": intervals(table) if with_intervals else None,
    }


def short_line(metrics: dict[str, Any]) -> str:
    """Return the line that a log shows of a summary."""
    balanced, area = metrics["balanced_accuracy"], metrics["macro_auroc"]
    shown = "none (one class)" if area is None else f"{area:.3f}"
    return (
        f"* balanced accuracy: {100 * balanced:.1f}%, macro AUROC: {shown}, "
        f"ECE: {metrics['ece']:.3f}"
    )


def check_probabilities(table: PredictionTable) -> None:
    """Refuse (UserError) rows of a table that are no probabilities."""
    sums = table.probabilities.sum(axis=1, dtype=np.float64)
    good = (table.probabilities >= 0).all(axis=1) & (table.probabilities <= 1).all(axis=1)
    good &= np.abs(sums - 1) <= SUM_TOLERANCE  # nan is not
    if not good.all():
        bad = [table.paths[index] for index in np.flatnonzero(~good)]
        raise UserError(
            f"{len(bad)} of {len(table)} images have no probabilities (nan, outside 0 to 1, or a "
            f"sum that is not 1): {few(bad, 3)}. There are no metrics of them."
        )


def _labelled(table: PredictionTable) -> PredictionTable:
    """Return the images whose label is known."""
    rows = np.flatnonzero(table.labels >= 0)
    if not len(rows):
        raise UserError(
            f"None of the {len(table)} images has a label, so there are no metrics. Fill the "
            "column label with names of classes."
        )
    return table if len(rows) == len(table) else table.rows(rows)


def _confusion(table: PredictionTable) -> NDArray[np.int64]:
    """Return how often each class (row) is taken for each (column), (K, K).

    As scikit-learn's `confusion_matrix`, which warns of a table with a single class.
    """
    classes = len(table.classes)
    cells = np.bincount(classes * table.labels + table.predictions, minlength=classes**2)
    return cells.reshape(classes, classes)


def _from_confusion(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return what every class has of hits and misses; nan for a division by zero."""
    hits, support = np.diag(confusion), confusion.sum(axis=1)
    predicted, total = confusion.sum(axis=0), confusion.sum()
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": hits / support,
            "specificity": (total - support - predicted + hits) / (total - support),
            "precision": hits / predicted,
            "f1": 2 * hits / (support + predicted),
        }


def _by_class(
    metric: Any, table: PredictionTable, probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a metric of every class against the rest, nan for a class without images."""
    found = np.full(len(table.classes), np.nan)
    for label in np.unique(table.labels):
        found[label] = metric(table.labels == label, probabilities[:, label])
    return found


def _auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return math.nan if positive.all() else float(roc_auc_score(positive, scores))


def _average_precision(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(positive, scores))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of what is not nan; None of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
