"""Number formats of a run: `fp32`, `fp16`, `amp`, `bf16`; one autocast helper for all."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dplq.errors import UserError, suggest

logger = logging.getLogger(__name__)
PRECISIONS = ("fp32", "fp16", "amp", "bf16")


@dataclass(frozen=True)
class Precision:
    """What a precision name means on a device.

    Attributes:
        name: the name that is in force (fp16 and amp become fp32 on a CPU).
        device: the device's type, "cpu" or "cuda".
        frozen: dtype of the frozen towers; learnable parameters stay float32.
        compute: dtype of autocast regions, or None where there is no autocast.
    """

    name: str
    device: str
    frozen: torch.dtype = torch.float32
    compute: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager:
        """The context in which forward passes run."""
        if self.compute is None:
            return nullcontext()
        return torch.autocast(self.device, dtype=self.compute)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """A loss scaler where half-precision gradients could underflow, else None."""
        return torch.amp.GradScaler(self.device) if self.name in ("fp16", "amp") else None


def resolve_precision(name: str, device: torch.device | str) -> Precision:
    """Look a precision up; on a CPU half precision falls back to fp32 with one line saying so.

    Args:
        name: "fp32"; "fp16": frozen towers in half, learnables in fp32; "amp": all weights fp32,
            half-precision autocast; "bf16": all weights fp32, bfloat16 autocast.
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
