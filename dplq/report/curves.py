"""Curves of a training, from its tensorboard files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.int64], NDArray[np.float64]]
FOLDER = "tensorboard"


def read_curves(folder: Path) -> Mapping[str, Points]:
    """Return steps and values of every curve in a run's folder, by name such as "train/loss".

    A training that was resumed wrote some steps twice: the later value stands. Values that are not
    finite are left out.
    """
    if not (folder / FOLDER).is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / FOLDER), size_guidance={"scalars": 0})
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        values = {event.step: event.value for event in events.Scalars(tag)}
        steps = np.array(sorted(values), dtype=np.int64)
        heights = np.array([values[step] for step in steps.tolist()], dtype=np.float64)
        finite = np.isfinite(heights)
        curves[tag] = steps[finite], heights[finite]
    return curves


def by_epoch(points: Points, epochs: int) -> Points:
    """Return the mean of each of so many equal parts of a curve over steps; steps are epochs."""
    steps, values = points
    length = -(-(int(steps.max()) + 1) // epochs)
    epoch = steps // length
    present = np.unique(epoch)
    means = np.array([values[epoch == number].mean() for number in present])
    return present + 1, means
