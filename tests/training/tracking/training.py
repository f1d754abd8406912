"""A short training, as a trainer reports it to its trackers."""

from __future__ import annotations

from collections.abc import Iterable

from dplq.training.tracking.trackers import Trackers


def track_training(trackers: Trackers, epochs: Iterable[int], *, failed: bool) -> None:
    """Report epochs and, unless it failed, results; check that no tracker had a problem.

    Args:
        trackers: that have started.
        epochs: from 1.
        failed: whether the training was stopped.
    """
    for epoch in epochs:
        trackers.log(epoch, {"loss": 1.0 / epoch})
    if not failed:
        trackers.results({"results/accuracy": 50.0})
    trackers.close(failed=failed)
    assert trackers.warned == set()
