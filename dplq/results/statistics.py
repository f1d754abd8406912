"""Statistics of runs: intervals, paired comparisons, average ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

from dplq.evaluation.bootstrap import LEVEL

T = TypeVar("T")
DIGITS = 9  # of a difference in points, after the point


def half_interval(values: Sequence[float], level: float = LEVEL) -> float | None:
    """Return half of Student's t interval of a mean; None for fewer than two values.

    Args:
        values: independent, such as one per seed.
        level: its coverage, if the values are normal.
    """
    if len(values) < 2:
        return None
    return t_quantile(len(values) - 1, level) * stdev(values) / math.sqrt(len(values))


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Return the half width of Student's t interval in units of the standard error.

    Args:
        freedom: degrees of freedom.
        level: of the interval.
    """
    from scipy.special import stdtrit  # a tenth of the time of importing scipy.stats

    return float(stdtrit(freedom, (1 + level) / 2))


@dataclass(frozen=True)
class Comparison:
    """Comparison of two methods over pairs of runs with the same dataset and seed.

    Attributes:
        pairs: how many.
        difference: mean of the first minus the second.
        half: half the 95 % interval of the difference (Student's t); None for one pair.
        t_test: p of the paired t-test, two-sided; None where there is none.
        wilcoxon: p of Wilcoxon's signed-rank test, two-sided; None where there is none.
    """

    pairs: int
    difference: float
    half: float | None
    t_test: float | None
    wilcoxon: float | None


def compare(first: Mapping[Any, float], second: Mapping[Any, float]) -> Comparison | None:
    """Compare two methods over the keys (dataset and seed) that both have; None if none.

    Pairs that do not differ are dropped by Wilcoxon's test, as its author has it; it has no result
    where fewer than two differ. The t-test has none for equal differences. Differences are equal
    where they are so to `DIGITS`: those of accuracies, quotients of whole numbers, differ in the
    last bits.
    """
    differences = [round(first[key] - second[key], DIGITS) for key in first if key in second]
    if not differences:
        return None
    return Comparison(
        pairs=len(differences),
        difference=fmean(differences),
        half=half_interval(differences),
        t_test=_t_test(differences),
        wilcoxon=_wilcoxon(differences),
    )


def _t_test(differences: Sequence[float]) -> float | None:
    if len(differences) < 2 or stdev(differences) == 0:
        return None
    from scipy.special import stdtr

    error = stdev(differences) / math.sqrt(len(differences))
    return float(2 * stdtr(len(differences) - 1, -abs(fmean(differences)) / error))


def _wilcoxon(differences: Sequence[float]) -> float | None:
    moved = [value for value in differences if value]
    if len(moved) < 2:  # one pair has p 1, whatever it says
        return None
    from scipy.stats import wilcoxon

    return float(wilcoxon(moved).pvalue)


def best_ones(means: Mapping[T, float], values: Mapping[T, Mapping[Any, float]]) -> set[T]:
    """Return the best of several methods, and those that cannot be told apart from it.

    That is the highest mean, and all whose paired t-test against it has p >= 5 % over the keys that
    both have, at least two. None is, of a single method, or where the best has one key alone.

    Args:
        means: of each method; larger is better.
        values: by method, then by key (seed, or dataset and seed).
    """
    best = max(means, key=means.__getitem__)
    if len(means) < 2 or len(values[best]) < 2:
        return set()
    return {best} | {name for name in means if _is_alike(compare(values[best], values[name]))}


def _is_alike(result: Comparison | None) -> bool:
    if result is None or result.pairs < 2:
        return False
    if result.t_test is None:  # all differences are equal
        return result.difference == 0
    return result.t_test >= 1 - LEVEL


@dataclass(frozen=True)
class Ranks:
    """Average ranks of several methods over blocks (a dataset and a seed each).

    Attributes:
        average: rank by method, 1 is best, best first.
        blocks: how many.
        friedman: p of Friedman's test that all methods are alike.
        critical_difference: of Nemenyi's test at 5 %: average ranks that differ less are not told
            apart (Demsar, JMLR 2006).
    """

    average: Mapping[str, float]
    blocks: int
    friedman: float
    critical_difference: float

    def are_alike(self, one: str, two: str) -> bool:
        """Return whether Nemenyi's test does not tell two methods apart."""
        return abs(self.average[one] - self.average[two]) <= self.critical_difference


def average_ranks(values: Mapping[str, Mapping[Any, float]]) -> Ranks | None:
    """Rank methods in every block that all of them have; None for fewer than 3 methods or 2 blocks.

    Args:
        values: by method, then by block; larger is better.
    """
    shared = [
        key for key in next(iter(values.values()), {}) if all(key in v for v in values.values())
    ]
    if len(values) < 3 or len(shared) < 2:
        return None
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = [[round(values[name][key], DIGITS) for name in values] for key in shared]
    ranks = [rankdata([-value for value in row]) for row in table]
    average = {name: float(fmean(row[i] for row in ranks)) for i, name in enumerate(values)}
    methods, blocks = len(values), len(shared)
    alike = all(len(set(row)) == 1 for row in table)
    friedman = 1.0 if alike else float(friedmanchisquare(*zip(*table, strict=True)).pvalue)
    width = float(studentized_range.ppf(LEVEL, methods, math.inf)) / math.sqrt(2)
    return Ranks(
        average=dict(sorted(average.items(), key=lambda item: item[1])),
        blocks=blocks,
        friedman=friedman,
        critical_difference=width * math.sqrt(methods * (methods + 1) / (6 * blocks)),
    )
