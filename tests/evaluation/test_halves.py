"""The generalised test: accuracies of the two halves of the classes."""

import numpy as np
import pytest

from dplq.evaluation.halves import base_count, generalised


def test_halves_against_numpy():
    random = np.random.default_rng(0)
    labels, guesses = random.integers(0, 7, (2, 200))
    labels[:7] = range(7)  # both halves have images
    found = generalised(labels.tolist(), guesses.tolist(), base_count(7))
    is_base, hits = labels < 4, labels == guesses
    assert found["base"] == pytest.approx(100 * hits[is_base].mean())
    assert found["new"] == pytest.approx(100 * hits[~is_base].mean())
    assert found["H"] == pytest.approx(
        2 * found["base"] * found["new"] / (found["base"] + found["new"])
    )


def test_a_base_image_taken_for_a_new_class_is_an_error():
    assert generalised([0, 0, 1, 1], [0, 1, 1, 1], 1) == {
        "base": 50.0,
        "new": 100.0,
        "H": pytest.approx(200 / 3),
    }


def test_a_half_without_a_hit_has_no_harmonic_mean_but_zero():
    assert generalised([0, 1], [0, 0], 1) == {"base": 100.0, "new": 0.0, "H": 0.0}


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_a_half_without_images_has_no_accuracy(labels):
    assert generalised(labels, [0, 1], 1) is None
