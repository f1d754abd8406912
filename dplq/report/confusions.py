"""Counts of true and predicted classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dplq.evaluation.prediction_table import PredictionTable

Counts = NDArray[np.int64]
OTHERS = "all other classes"


def confusion(table: PredictionTable) -> Counts:
    """Return how often each class (row) was taken for each (column), (K, K)."""
    known = table.labels >= 0
    classes = len(table.classes)
    pairs = table.labels[known] * classes + table.predictions[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def most_confused(counts: Counts, limit: int) -> list[int]:
    """Return the classes with the most mistakes, as the true or the predicted one, in order."""
    wrong = counts - np.diag(counts.diagonal())
    mistakes = wrong.sum(0) + wrong.sum(1)
    return sorted(np.argsort(-mistakes, kind="stable")[:limit].tolist())


def never_right(counts: Counts) -> list[int]:
    """Return the classes that have images, none of which was right."""
    return np.flatnonzero((counts.diagonal() == 0) & (counts.sum(1) > 0)).tolist()


def merged(counts: Counts, kept: list[int]) -> Counts:
    """Return the counts of some classes, then of all others as one: (len(kept) + 1) squared."""
    target = np.full(len(counts), len(kept))
    target[kept] = np.arange(len(kept))
    size = len(kept) + 1
    small = np.zeros((size, size), dtype=np.int64)
    np.add.at(small, (target[:, None], target[None, :]), counts)
    return small


def frequent_pairs(counts: Counts, limit: int) -> list[tuple[int, int, int]]:
    """Return the most frequent mistakes: true class, predicted class, number of images."""
    wrong = counts - np.diag(counts.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [(int(k // len(counts)), int(k % len(counts))) for k in order]
    return [(true, guess, int(wrong[true, guess])) for true, guess in pairs if wrong[true, guess]]
