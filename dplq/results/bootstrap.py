"""Bootstrap over test images: two methods on one dataset with one seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dplq.evaluation.bootstrap import percentile_interval

SAMPLES = 10_000
Hits = NDArray[np.bool_]


def bootstrap_interval(parts: Sequence[tuple[Hits, Hits]]) -> tuple[float, float] | None:
    """Return the percentile interval of a difference in points, first minus second method.

    None where all draws are alike: both methods are right on the same images.

    Images are drawn with replacement, within each part, for both methods at once (Efron and
    Tibshirani, 1993, section 13.3).

    Args:
        parts: hits (N,) of both methods on the same images; of one part the accuracy is compared,
            of two (base and new) the harmonic mean.
    """
    random = np.random.default_rng(0)
    accuracies = [_drawn_accuracies(first, second, random) for first, second in parts]
    one, two = (_harmonic_mean([pair[k] for pair in accuracies]) for k in (0, 1))
    return percentile_interval(one - two)


def _drawn_accuracies(
    first: Hits, second: Hits, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracies in percent of both methods in every sample, (SAMPLES,) each."""
    # How often each of the four outcomes is drawn decides both; the images themselves do not.
    outcomes = [first & second, first & ~second, ~first & second, ~first & ~second]
    shares = np.array([outcome.mean() for outcome in outcomes])
    both, one, two, _ = random.multinomial(len(first), shares, SAMPLES).T
    return 100 * (both + one) / len(first), 100 * (both + two) / len(first)


def _harmonic_mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    if len(values) == 1:
        return values[0]
    base, new = values
    total = base + new
    return np.divide(2 * base * new, total, out=np.zeros_like(total), where=total > 0)
