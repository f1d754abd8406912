"""Learning-rate schedule: warm-up and decay, a pure function of the epoch.

The values are those that Dassl's schedulers (`LR_SCHEDULER`, `WARMUP_*`) produce when stepped
once per epoch, chained recurrences included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dplq.errors import UserError, suggest

SCHEDULERS = ("cosine", "single_step", "multi_step")
WARMUPS = ("constant", "linear")


def learning_rate(
    epoch: int,
    *,
    base_lr: float,
    max_epoch: int,
    scheduler: str = "cosine",
    stepsize: Sequence[int] = (-1,),
    gamma: float = 0.1,
    warmup_epoch: int = -1,
    warmup_type: str = "constant",
    warmup_cons_lr: float = 1e-5,
    warmup_min_lr: float = 1e-5,
    warmup_recount: bool = True,
) -> float:
    """Return the learning rate of an epoch.

    During warm-up the rate is `warmup_cons_lr`, or rises linearly from `warmup_min_lr`; then the
    decay starts at `base_lr`.

    Args:
        epoch: counted from 0.
        base_lr: rate after the warm-up.
        max_epoch: length of the run.
        scheduler: one of `SCHEDULERS`.
        stepsize: milestones of ``multi_step``; period of ``single_step`` (its last entry; the
            whole run if not positive).
        gamma: factor per step of the step schedules.
        warmup_epoch: length of the warm-up; none if not positive.
        warmup_type: one of `WARMUPS`.
        warmup_cons_lr: rate of the constant warm-up.
        warmup_min_lr: first rate of the linear warm-up.
        warmup_recount: count the epochs of the decay from the end of the warm-up; otherwise the
            decay continues from epoch `warmup_epoch` of the whole curve.

    Raises:
        UserError: unknown scheduler or warm-up type.
    """
    if scheduler not in SCHEDULERS:
        raise UserError(
            f"OPTIM.LR_SCHEDULER '{scheduler}' is unknown.{suggest(scheduler, SCHEDULERS)}"
        )
    if warmup_type not in WARMUPS:
        raise UserError(
            f"OPTIM.WARMUP_TYPE '{warmup_type}' is unknown.{suggest(warmup_type, WARMUPS)}"
        )
    warmup_epoch = max(warmup_epoch, 0)
    if epoch < warmup_epoch:
        if warmup_type == "constant":
            return warmup_cons_lr
        return base_lr * epoch / warmup_epoch if epoch else warmup_min_lr

    def decay(index: int) -> float:
        if scheduler == "cosine":
            return (1 + math.cos(math.pi * index / max_epoch)) / 2
        if scheduler == "single_step":
            return gamma ** (index // (stepsize[-1] if stepsize[-1] > 0 else max_epoch))
        return gamma ** sum(index >= milestone for milestone in stepsize)

    start = 0 if warmup_recount else warmup_epoch
    return base_lr * decay(epoch - warmup_epoch + start) / decay(start)
