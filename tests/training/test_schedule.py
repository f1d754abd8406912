"""The learning-rate schedule against values that real Dassl's schedulers gave."""

from __future__ import annotations

import math

import pytest

from dplq.errors import UserError
from dplq.training.schedule import learning_rate


def rates(epochs=8, **settings):
    return [learning_rate(e, base_lr=0.0035, max_epoch=epochs, **settings) for e in range(epochs)]


# Recorded from Dassl 0.6.3's build_lr_scheduler, stepped once per epoch over 8 epochs.
DASSL = {
    "cosine, constant warm-up": (
        {"warmup_epoch": 1},
        [1e-5, 0.0035, 0.00336678918, 0.00298743687, 0.00241969601, 0.00175, 0.00108030399,
         0.000512563133],
    ),
    "cosine, linear warm-up": (
        {"warmup_epoch": 3, "warmup_type": "linear"},
        [1e-5, 0.00116666667, 0.00233333333, 0.0035, 0.00336678918, 0.00298743687, 0.00241969601,
         0.00175],
    ),
    "cosine, no recount": (
        {"warmup_epoch": 3, "warmup_recount": False},
        [1e-5, 1e-5, 1e-5, 0.0035, 0.00253130971, 0.00156261942, 0.000741403449, 0.000192684479],
    ),
    "multi_step": (
        {"scheduler": "multi_step", "stepsize": (2, 4), "warmup_epoch": 1},
        [1e-5, 0.0035, 0.0035, 0.00035, 0.00035, 3.5e-5, 3.5e-5, 3.5e-5],
    ),
    "single_step": (
        {"scheduler": "single_step", "stepsize": (2,), "warmup_epoch": 1},
        [1e-5, 0.0035, 0.0035, 0.00035, 0.00035, 3.5e-5, 3.5e-5, 3.5e-6],
    ),
    "single_step, no recount": (
        {"scheduler": "single_step", "stepsize": (2,), "warmup_epoch": 2, "warmup_recount": False},
        [1e-5, 1e-5, 0.0035, 0.0035, 0.00035, 0.00035, 3.5e-5, 3.5e-5],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DASSL)
def test_equals_dassl(case):
    settings, expected = DASSL[case]
    assert rates(**settings) == pytest.approx(expected, rel=1e-6)


def test_plain_cosine():
    expected = [0.0035 * (1 + math.cos(math.pi * e / 15)) / 2 for e in range(15)]
    assert rates(15) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": "cosin"}, "LR_SCHEDULER 'cosin' is unknown. Did you mean 'cosine'"),
        ({"warmup_type": "const"}, "WARMUP_TYPE 'const' is unknown"),
    ],
)
def test_unknown_names(settings, message):
    with pytest.raises(UserError, match=message):
        rates(**settings)
