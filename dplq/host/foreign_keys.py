"""Keys of a config that its trainer does not read."""

from __future__ import annotations

import logging
from typing import Any

from dplq.host.checks import reads_domain
from dplq.host.config import all_keys
from dplq.io.nodes import flatten

logger = logging.getLogger(__name__)


def warn_of_foreign_keys(cfg: Any, trainer: Any) -> None:
    """Warn if a key was set that the trainer does not read: another trainer's, or a general one.

    Args:
        cfg: of `train.py`, or of a host tree.
        trainer: its class.
    """
    name = cfg.TRAINER.NAME
    model = getattr(trainer, "model_class", None)  # None: not one of this project's trainers
    foreign = ["TRAINER."] + ([] if model else ["TRAIN.CLASS_WEIGHTS"])
    own = f"TRAINER.{getattr(trainer, 'node', name.upper())}."
    given = dict(flatten(cfg))
    foreign += [] if model and reads_domain(trainer, given) else ["DOMAIN."]
    for key, default, _ in all_keys():
        is_foreign = key.startswith(tuple(foreign)) and not key.startswith(own)
        if is_foreign and given.get(key, default) != default:
            logger.warning("%s is set, but %s does not read it.", key, name)
