"""Few-shot learning: train on all classes with few images each, test on all classes."""

from __future__ import annotations

from collections.abc import Sequence

from dplq.experiments.plan import Plan
from dplq.experiments.protocols import has_property
from dplq.experiments.series import Series

ZERO_SHOT = 16  # in the folder of runs without training images, whatever the shots; as `transfer`


def few_shot(series: Series) -> Plan:
    """Return the plan of ``scripts/few_shot.sh`` for a series."""
    folder = series.out / series.place
    return Plan([series.train(folder, seed, "all") for seed in series.seeds], [folder])


def shots_of(trainer: str, shots: Sequence[int]) -> Sequence[int]:
    """Return the numbers of shots of a curve; a trainer without training images has one point."""
    return shots if has_property(trainer, "trained") else (ZERO_SHOT,)
