"""Guard against non-finite losses and weights, without a wait in each step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dplq.errors import UserError, few
from dplq.io.finite import non_finite


class NonFiniteLossGuard:
    """Stops a run whose loss or weights became nan or infinite.

    Args:
        node: config node of the trainer, for the advice.
        every: interval in batches between checks of the loss.
        precision: of the run, for the advice.
    """

    def __init__(self, node: str, every: int, precision: str) -> None:
        self.node, self.every, self.precision = node, every, precision
        self.finite: Tensor | None = None
        self.last, self.epoch = "", 0

    def add(self, loss: Tensor, epoch: int, batch: int) -> None:
        """Add a step's loss; `epoch` and `batch` count from 0.

        Raises:
            UserError: as `check`.
        """
        finite = torch.isfinite(loss.detach())
        self.finite = finite if self.finite is None else self.finite & finite
        self.last, self.epoch = f"epoch {epoch + 1}, batch {batch + 1}", epoch
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
                f"The loss became nan or infinite {when} {self.last}. {self._advice(self.epoch)}"
            )

    def check_weights(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        """Check what an epoch has ended with, before any of it is saved.

        Args:
            tensors: weights and state of the optimiser.
            epoch: counted from 0.

        Raises:
            UserError: a value is nan or infinite; the tensors are named.
        """
        if found := non_finite(tensors):
            raise UserError(
                f"The weights became nan or infinite in epoch {epoch + 1}: {few(found, 4, '; ')}. "
                f"{self._advice(epoch)}"
            )

    def _advice(self, finished: int) -> str:
        """Return what is kept after so many finished epochs, and what to change."""
        exact = "" if self.precision == "fp32" else f", or use TRAINER.{self.node}.PREC fp32"
        return (
            f"Lower OPTIM.LR{exact}: that is another run, so choose "
            "another --output-dir too, or add --overwrite to replace this one. "
            + (
                f"What was saved up to epoch {finished} is kept."
                if finished
                else "Nothing was saved."
            )
        )
