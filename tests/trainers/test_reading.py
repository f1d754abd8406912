"""How images are read, between training and test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dplq.trainers._engine.checkpoints import warn_of_reading

BANDS = SimpleNamespace(WINDOW=None, BANDS=(4, 3, 2), MAX_PIXELS=9)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"WINDOW": [0.0, 4095.0]}, SimpleNamespace(WINDOW=[0, 4095]), []),
        (
            {"WINDOW": [0.0, 4095.0]},
            SimpleNamespace(WINDOW=[0, 255]),
            ["INPUT.WINDOW is [0.0, 255.0], but the model was trained with [0.0, 4095.0]"],
        ),
        (
            {"WINDOW": "percentile"},
            BANDS,
            [
                "INPUT.BANDS is [4, 3, 2], but the model was trained with the default",
                "INPUT.WINDOW is not set, but the model was trained with percentile",
            ],
        ),
    ],
)
def test_images_that_are_read_otherwise_than_in_training_are_warned_of(then, now, said, caplog):
    warn_of_reading(then, now)
    assert [record.getMessage() for record in caplog.records] == [
        f"{text}: it sees other images" for text in said
    ]
