"""Guard against non-finite losses that does not make each step wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from dplq.errors import UserError


class NonFiniteLossGuard:
    """Stops a run whose loss became nan or infinite.

    Args:
        node: config node of the trainer, for the advice.
        every: interval in batches between checks.
    """

    def __init__(self, node: str, every: int) -> None:
        self.node, self.every = node, every
        self.finite: Tensor | None = None
        self.last = ""

    def add(self, loss: Tensor, epoch: int, batch: int) -> None:
        """Add a step's loss; `epoch` and `batch` count from 0.

        Raises:
            UserError: as `check`.
        """
        finite = torch.isfinite(loss.detach())
        self.finite = finite if self.finite is None else self.finite & finite
        self.last = f"epoch {epoch + 1}, batch {batch + 1}"
        if (batch + 1) % self.every == 0:
            self.check()

    def check(self) -> None:
        """Wait for the device and check all losses since the last time.

        Raises:
            UserError: one of them was nan or infinite.
        """
        finite, self.finite = self.finite, None
        if finite is not None and not finite:
            when = "in" if self.every == 1 else "in or before"
            raise UserError(
                f"The loss became nan or infinite {when} {self.last}. Lower OPTIM.LR, or use "
                f"TRAINER.{self.node}.PREC fp32. What was saved after the epochs before is kept."
            )
