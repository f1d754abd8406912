"""Config keys that differ from their defaults."""

from __future__ import annotations

import dplq.plugin  # noqa: F401  # registers the trainers
from dplq.host.changed import changed_settings

CONFIG = {
    "OPTIM": {"MAX_EPOCH": 7, "NAME": "adam"},
    "INPUT": {"BANDS": [], "BACKGROUND": [0, 0, 1]},
    "MODEL": {"INIT_WEIGHTS": "/home/somebody/clip.pt"},
    "TRAINER": {"COOP": {"N_CTX": 3}, "MAPLE": {"N_CTX": 3}},
    "OTHER": {"KEY": 1},
}


def test_only_what_differs_and_is_the_trainers():
    assert changed_settings(CONFIG, "CoOp") == {
        "INPUT.BACKGROUND": [0, 0, 1],
        "MODEL.INIT_WEIGHTS": "clip.pt",  # without the folder
        "OPTIM.MAX_EPOCH": 7,
        "TRAINER.COOP.N_CTX": 3,
    }
