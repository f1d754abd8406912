"""Bootstrap intervals of a test's metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dplq.evaluation.bootstrap import (
    DRAWS,
    LEVEL,
    Counts,
    drawn_counts,
    exact_interval,
    percentile_interval,
    units_of,
)
from dplq.evaluation.calibration import BINS, bin_of
from dplq.evaluation.prediction_table import PredictionTable

NUMBERS = 200_000_000  # probabilities that the draws of an AUROC go through, at most
FEWEST_GROUPS = 5  # for an interval: of two the ends would be their own values
FEWEST_DRAWS = 200  # for an interval of the AUROC; below it there is none

Drawn = dict[str, NDArray[np.float64]]  # metric -> its value in every draw, (draws,)


def intervals(table: PredictionTable) -> dict[str, Any]:
    """Return 95 % intervals of accuracy, balanced accuracy, macro-F1, macro AUROC and ECE.

    Args:
        table: with labels, all of them known.

    Returns:
        "level"; "over": what is drawn, "groups" or "images"; "units": how many there are; "draws"
        and "auroc_draws"; then [low, high] of each metric, null where it cannot be had: of fewer
        than `FEWEST_GROUPS` groups or two images, of an AUROC of one class, or of more than
        `NUMBERS` / `FEWEST_DRAWS` probabilities; and where all draws are alike. Only the accuracy
        of images that are all right, or all wrong, has an exact interval then.
    """
    unit = units_of(table.groups, table.paths)
    units, is_grouped = int(unit.max()) + 1, any(table.groups)
    enough = units >= (FEWEST_GROUPS if is_grouped else 2)
    auroc_draws = min(DRAWS, NUMBERS // table.probabilities.size)
    auroc_draws = auroc_draws if auroc_draws >= FEWEST_DRAWS and enough else 0
    found = {
        name: percentile_interval(values) if enough else None
        for name, values in _drawn(table, unit, units, auroc_draws).items()
    }
    right = int((table.labels == table.predictions).sum())
    if enough and not is_grouped and right in (0, len(table)):
        found["accuracy"] = exact_interval(right, len(table))
    return {
        "level": LEVEL,
        "over": "groups" if is_grouped else "images",
        "units": units,
        "draws": DRAWS,
        "auroc_draws": auroc_draws,
        **{name: pair and list(pair) for name, pair in found.items()},
    }


def _drawn(table: PredictionTable, unit: NDArray[np.int64], units: int, auroc_draws: int) -> Drawn:
    of_classes, of_bins = _ClassCounts(table, unit, units), _BinSums(table, unit, units)
    ranked = list(_ranked_classes(table, unit, units)) if auroc_draws else []
    parts: list[Drawn] = []
    for counts in drawn_counts(units):
        left = max(0, auroc_draws - sum(len(part["macro_auroc"]) for part in parts))
        areas = [auroc(counts[:, :left]) for auroc in ranked] or [np.full(0, np.nan)]
        parts.append(
            {
                **of_classes(counts),
                "macro_auroc": _mean_of_known(np.stack(areas)),
                "ece": of_bins(counts),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _per_unit(
    rows: NDArray[np.int64], unit: NDArray[np.int64], shape: tuple[int, int], values: Any = None
) -> Any:
    """Return a sparse matrix of sums over the images by row and unit, that of ones by default."""
    from scipy.sparse import coo_matrix

    values = np.ones(len(rows), dtype=np.int32) if values is None else values
    return coo_matrix((values, (rows, unit)), shape=shape).tocsr()


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over rows of what is not nan, (C, draws) to (draws,); nan of nothing."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))


class _ClassCounts:
    """Accuracy, balanced accuracy and macro-F1 of draws, from three counts of every class."""

    def __init__(self, table: PredictionTable, unit: NDArray[np.int64], units: int) -> None:
        shape = (len(table.classes), units)
        hit = table.labels == table.predictions
        self.support = _per_unit(table.labels, unit, shape)
        self.predicted = _per_unit(table.predictions, unit, shape)
        self.hits = _per_unit(table.labels[hit], unit[hit], shape)

    def __call__(self, counts: Counts) -> Drawn:
        """Return the metrics of drawn counts (units, draws)."""
        support, hits = self.support @ counts, self.hits @ counts
        total = support + self.predicted @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = np.where(support > 0, hits / support, np.nan)
            f1 = np.where(support > 0, 2 * hits / total, np.nan)
        return {
            "accuracy": hits.sum(axis=0) / support.sum(axis=0),
            "balanced_accuracy": _mean_of_known(recall),
            "macro_f1": _mean_of_known(f1),
        }


class _BinSums:
    """ECE of draws, from the sum of (hit - confidence) in every bin."""

    def __init__(self, table: PredictionTable, unit: NDArray[np.int64], units: int) -> None:
        confidence = table.probabilities[np.arange(len(table)), table.predictions].astype(float)
        gaps = (table.labels == table.predictions) - confidence
        self.gaps = _per_unit(bin_of(confidence), unit, (BINS, units), gaps)
        self.images = np.bincount(unit, minlength=units)

    def __call__(self, counts: Counts) -> NDArray[np.float64]:
        """Return the metric of drawn counts (units, draws)."""
        return np.asarray(np.abs(self.gaps @ counts).sum(axis=0) / (self.images @ counts))


class _RankedClass:
    """AUROC of draws of one class against the rest: Mann-Whitney's U, ties count one half."""

    def __init__(
        self,
        scores: NDArray[np.float32],
        positive: NDArray[np.bool_],
        unit: NDArray[np.int64],
        units: int,
    ) -> None:
        levels, rank = np.unique(scores[positive], return_inverse=True)
        rest = scores[~positive]
        # row 2 j: negatives between the levels j - 1 and j of the positives; 2 j + 1: at level j
        above = np.searchsorted(levels, rest, side="left")
        row = 2 * above + (levels[np.minimum(above, len(levels) - 1)] == rest)
        self.positives = _per_unit(rank, unit[positive], (len(levels), units))
        self.negatives = _per_unit(row, unit[~positive], (2 * len(levels) + 1, units))

    def __call__(self, counts: Counts) -> NDArray[np.float64]:
        """Return the AUROC of drawn counts (units, draws); nan without positives or negatives."""
        positives, negatives = self.positives @ counts, self.negatives @ counts
        below = np.cumsum(negatives, axis=0)
        u = (positives * (below[:-1:2] + 0.5 * negatives[1::2])).sum(axis=0)
        pairs = positives.sum(axis=0).astype(float) * below[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, u / pairs, np.nan)


def _ranked_classes(
    table: PredictionTable, unit: NDArray[np.int64], units: int
) -> Iterator[_RankedClass]:
    """Yield every class that has images, where others have some, too."""
    for label in np.unique(table.labels):
        positive = table.labels == label
        if not positive.all():
            yield _RankedClass(table.probabilities[:, label], positive, unit, units)
