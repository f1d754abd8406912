"""Metrics of one's own in METRICS: a name that is taken, and values that cannot be written."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dplq.errors import UserError
from dplq.evaluation import metrics
from dplq.trainers._engine.results import ENTRIES


def test_values_of_metrics_of_ones_own(monkeypatch, caplog):
    def fails(labels, predictions):
        raise ZeroDivisionError("no image")

    own = {"single": lambda *_: np.float32(0.5), "empty": lambda *_: math.nan, "fails": fails}
    for name, metric in own.items():
        monkeypatch.setitem(metrics.METRICS, name, metric)
    found = metrics.scores([0, 1], [0, 0], {0: "a", 1: "b"})
    assert (found["accuracy"], found["single"], type(found["single"])) == (50.0, 0.5, float)
    assert (found["empty"], found["fails"]) == (None, None)
    assert caplog.messages == [
        "The metric empty is nan, and is left empty.",
        "The metric fails has failed, and is left empty: ZeroDivisionError: no image",
    ]


@pytest.mark.parametrize("name", ["seed", "total", "correct", "images"])
def test_a_name_that_is_taken_is_refused(monkeypatch, name):
    monkeypatch.setitem(metrics.METRICS, name, lambda *_: 1.0)
    with pytest.raises(UserError, match=f"METRICS has {name}, which results.json has for"):
        metrics.check_metrics(ENTRIES)
