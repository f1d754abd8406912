"""Metrics of a test, from labels and predictions."""

from __future__ import annotations

from typing import Any


def scores(labels: list[int], predictions: list[int], names: dict[int, str]) -> dict[str, Any]:
    """Return accuracy, error rate and macro-F1 in percent, per-class accuracy, and counts.

    Args:
        labels: true labels.
        predictions: predicted labels.
        names: class name of each label.
    """
    from sklearn.metrics import f1_score

    present = sorted(set(labels))
    hits = [label == guess for label, guess in zip(labels, predictions, strict=True)]
    per_class = {}
    for label in present:
        of_class = [hit for hit, true in zip(hits, labels, strict=True) if true == label]
        per_class[names[label]] = 100.0 * sum(of_class) / len(of_class)
    accuracy = 100.0 * sum(hits) / len(hits)
    macro_f1 = f1_score(labels, predictions, average="macro", labels=present, zero_division=0)
    return {
        "accuracy": accuracy,
        "error_rate": 100.0 - accuracy,
        "macro_f1": 100.0 * float(macro_f1),
        "per_class_accuracy": per_class,
        "total": len(hits),
        "correct": sum(hits),
    }
