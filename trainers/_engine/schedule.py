"""Learning rate of an epoch as ``cfg.OPTIM`` gives it, and whether a warm-up leaves any of it."""

from __future__ import annotations

import logging
from typing import Any

from dplq.errors import UserError
from dplq.host.checks import warm_up_problem
from dplq.training.schedule import learning_rate

logger = logging.getLogger(__name__)
SCHEDULE_KEYS = ("stepsize", "gamma", "warmup_epoch", "warmup_type", "warmup_cons_lr",
                 "warmup_min_lr", "warmup_recount")  # fmt: skip


def rate_of(epoch: int, epochs: int, given: Any, base_lr: float) -> float:
    """Return the learning rate that ``cfg.OPTIM`` has in an epoch, counted from 0, of so many."""
    schedule = {key: given[key.upper()] for key in SCHEDULE_KEYS}
    return learning_rate(
        epoch,
        base_lr=base_lr,
        max_epoch=epochs,
        scheduler=given.LR_SCHEDULER,
        **schedule,
    )


def check_warm_up(given: Any, length: int, name: str) -> None:
    """Compare the warm-up with the epochs that it begins.

    Args:
        given: ``cfg.OPTIM``.
        length: the epochs; 0: none.
        name: what has them, such as ``run``.

    Raises:
        UserError: it is longer. One of the same length, which leaves none at OPTIM.LR, warns.
    """
    warm = given.WARMUP_EPOCH
    if not 0 < length <= warm:
        return
    epochs = "1 epoch" if length == 1 else f"{length} epochs"
    if problem := warm_up_problem(warm, length, f"the {name} has {epochs}"):
        raise UserError(problem)
    highest = max(rate_of(epoch, length, given, given.LR) for epoch in range(length))
    if highest < given.LR:
        logger.warning(
            "The whole %s is warm-up (OPTIM.WARMUP_EPOCH %s of %s): its learning rate is at most "
            "%g, OPTIM.LR %g is not reached. Train longer, or set OPTIM.WARMUP_EPOCH -1.",
            *(name, warm, epochs, highest, given.LR),
        )
