"""Bootstrap: percentile intervals, and draws of groups or of images.

What is drawn with replacement are units: whole groups (patient, scene, site) where there are
groups, since images of one group are no independent evidence; else images (Efron and Tibshirani,
1993, section 13.3; Field and Welsh, 2007, for groups).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 1000
SEED = 20170806  # of the draws, whatever the seed of the run
CHUNK = 4_000_000  # counts in memory at a time

Counts = NDArray[np.int32]  # (units, draws): how often each unit is in each draw


def percentile_interval(
    values: NDArray[np.float64], level: float = LEVEL
) -> tuple[float, float] | None:
    """Return the percentile interval of drawn values; None where they are nan, or all one value.

    All draws are alike where all images are right, or all wrong: that is no sign of certainty.

    Args:
        values: (draws,); nan where a draw has no value, which is left out.
        level: share of the values that is inside.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return (float(low), float(high)) if low < high else None


def exact_interval(right: int, images: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of a share of independent images (Clopper and Pearson, 1934).

    Args:
        right: how many are right, none or all.
        images: how many there are.
        level: coverage at least.
    """
    tail = ((1 - level) / 2) ** (1 / images)
    return (tail, 1.0) if right else (0.0, 1 - tail)


def units_of(groups: Sequence[str], paths: Sequence[str]) -> NDArray[np.int64]:
    """Return the unit of every image, (N,), numbered from 0.

    An image without a group is a unit of its own. Units are numbered by name, so that the order of
    the images does not count.

    Args:
        groups: of the images, "" for none.
        paths: of the images.
    """
    pairs = list(zip(groups, paths, strict=True))
    names = [(1, group) if group else (0, path) for group, path in pairs]
    number = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([number[name] for name in names], dtype=np.int64)


def drawn_counts(units: int, draws: int = DRAWS) -> Iterator[Counts]:
    """Yield how often each unit is drawn, in chunks (units, some draws), `draws` in all.

    Every draw is of as many units as there are. The same numbers give the same draws.
    """
    random = np.random.default_rng(SEED)
    while draws > 0:
        some = min(draws, max(1, CHUNK // units))
        chosen = random.integers(units, size=(some, units), dtype=np.int32)
        chosen += units * np.arange(some, dtype=np.int32)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=some * units).reshape(some, units)
        yield np.ascontiguousarray(counts.T, dtype=np.int32)
        draws -= some
