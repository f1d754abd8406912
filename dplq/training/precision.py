"""Precision of a run: `fp32`, `fp16`, `amp` or `bf16`; the autocast helper."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from dplq.errors import UserError, suggest
from dplq.training import PRECISIONS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """Dtypes of a precision on a device.

    Attributes:
        name: the precision in use (fp16 and amp become fp32 on a CPU).
        device: type of the device, "cpu" or "cuda".
        frozen: dtype of the frozen towers; learnable parameters stay float32.
        compute: dtype of autocast regions, or None where there is no autocast.
    """

    name: str
    device: str
    frozen: torch.dtype = torch.float32
    compute: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context for forward passes; it does nothing without `compute`."""
        if self.compute is None:
            return nullcontext()
        return torch.autocast(self.device, dtype=self.compute)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """Return a loss scaler if half-precision gradients could underflow, else None."""
        return torch.amp.GradScaler(self.device) if self.name in ("fp16", "amp") else None


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast; where there is none it leaves no trace in a graph."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def resolve_precision(name: str, device: torch.device | str) -> Precision:
    """Return the precision of a name; on a CPU, fp16 and amp become fp32 with a warning.

    Args:
        name: "fp32"; "fp16": frozen towers in half, learnable parameters in fp32; "amp": all
            weights fp32, half-precision autocast; "bf16": all weights fp32, bfloat16 autocast.
        device: where the model runs.

    Raises:
        UserError: unknown name.
    """
    if name not in PRECISIONS:
        raise UserError(f"PREC '{name}' is unknown.{suggest(name, PRECISIONS)}")
    kind = torch.device(device).type
    if kind == "cpu" and name in ("fp16", "amp"):
        logger.warning("Precision %s needs a GPU; on this CPU the run uses fp32.", name)
        name = "fp32"
    if name == "fp16":
        return Precision(name, kind, frozen=torch.float16)
    compute = {"amp": torch.float16, "bf16": torch.bfloat16}.get(name)
    return Precision(name, kind, compute=compute)
