"""``OPTIM.LR_SCHEDULER`` -> a learning-rate schedule, stepped once per epoch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

from dassl.utils import check_availability

AVAI_SCHEDS = ("single_step", "multi_step", "cosine")
WARMUP_TYPES = ("constant", "linear")


class WarmupScheduler(LRScheduler):
    """Warm-up with small learning rates, then another schedule.

    With w warm-up epochs, epoch e < w runs at ``start_lr`` ("constant"; "linear": only e = 0) or
    at lr * e / w ("linear"); epoch w runs at the successor's first rate.

    Args:
        optimizer: the same as the successor's.
        successor: the schedule from epoch w on.
        warmup_epoch: w, at least 1.
        kind: "constant" or "linear".
        start_lr: see above.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        kind: str,
        start_lr: float,
    ):
        check_availability(kind, WARMUP_TYPES, "OPTIM.WARMUP_TYPE")
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        self.kind = kind
        self.start_lr = start_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates of the current epoch, one per parameter group."""
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        if self.kind == "constant" or self.last_epoch == 0:
            return [self.start_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Advance by one epoch (`epoch` is there for Dassl's callers and must be None)."""
        if self.last_epoch < self.warmup_epoch:
            super().step()
        else:
            self.successor.step()
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values; the successor's is nested in it."""
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, or the real Dassl's, which holds the successor."""
        state = dict(state_dict)
        successor = state.pop("successor")
        if isinstance(successor, LRScheduler):
            successor = {k: v for k, v in vars(successor).items() if k != "optimizer"}
        self.successor.load_state_dict(successor)
        super().load_state_dict(state)


def build_lr_scheduler(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """Build a schedule, after a warm-up if ``WARMUP_EPOCH`` is positive.

    Args:
        optimizer: its groups' rates are the base rates.
        optim_cfg: the OPTIM node.

    Raises:
        ChoiceError: unknown ``LR_SCHEDULER`` or ``WARMUP_TYPE``.
        TypeError: ``STEPSIZE`` does not fit the schedule.
    """
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, "OPTIM.LR_SCHEDULER")
    scheduler = _main_schedule(optimizer, optim_cfg)
    if optim_cfg.WARMUP_EPOCH <= 0:
        return scheduler
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = optim_cfg.WARMUP_EPOCH
    constant = optim_cfg.WARMUP_TYPE == "constant"
    start_lr = optim_cfg.WARMUP_CONS_LR if constant else optim_cfg.WARMUP_MIN_LR
    return WarmupScheduler(
        optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_TYPE, start_lr
    )


def _main_schedule(optimizer: Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    size = optim_cfg.STEPSIZE
    if optim_cfg.LR_SCHEDULER == "cosine":
        length = float(optim_cfg.MAX_EPOCH)
        return CosineAnnealingLR(optimizer, length)  # type: ignore[arg-type]  # Dassl's checkpoints
    if optim_cfg.LR_SCHEDULER == "multi_step":
        if not isinstance(size, (list, tuple)):
            raise TypeError(f"OPTIM.STEPSIZE must be a list for multi_step, got {size!r}")
        return MultiStepLR(optimizer, milestones=size, gamma=optim_cfg.GAMMA)
    size = size[-1] if isinstance(size, (list, tuple)) else size
    if not isinstance(size, int):
        raise TypeError(f"OPTIM.STEPSIZE must hold an integer for single_step, got {size!r}")
    return StepLR(optimizer, size if size > 0 else optim_cfg.MAX_EPOCH, gamma=optim_cfg.GAMMA)
