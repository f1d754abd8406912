"""Generalised base-to-new test: both halves of the classes, told apart from all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import harmonic_mean

from dplq.evaluation.metrics import accuracy


def base_count(n: int) -> int:
    """Return how many of `n` classes are base classes: ceil(n / 2), as in CoOp."""
    return math.ceil(n / 2)


def generalised(
    labels: Sequence[int], predictions: Sequence[int], base: int
) -> dict[str, float] | None:
    """Return the accuracy in percent on base and on new images, and their harmonic mean.

    Every prediction is one of all classes (generalised zero-shot learning: Xian et al., CVPR 2017).

    Args:
        labels: true labels.
        predictions: predicted labels.
        base: how many labels, from 0 on, are base classes.

    Returns:
        "base", "new" and "H"; None where a half has no image, and so no accuracy.
    """
    pairs = list(zip(labels, predictions, strict=True))
    halves = {
        "base": [pair for pair in pairs if pair[0] < base],
        "new": [pair for pair in pairs if pair[0] >= base],
    }
    if not all(halves.values()):
        return None
    found = {
        half: accuracy([label for label, _ in of_it], [guess for _, guess in of_it])
        for half, of_it in halves.items()
    }
    return {**found, "H": harmonic_mean(found.values())}
