"""How a model is run: number formats, chunks, recomputation, compilation."""

from __future__ import annotations

from typing import Any

from torch import nn

from dplq.errors import UserError, suggest
from dplq.precision import Precision

MODES = ("default", "reduce-overhead", "max-autotune")  # torch.compile's


def set_up(model: nn.Module, precision: Precision, given: Any) -> None:
    """Give the frozen towers the precision's number format and follow the keys of ``cfg.MODEL``.

    Raises:
        UserError: an unknown MODEL.COMPILE.
    """
    for frozen in filter(None, (model.clip, model.domain)):
        frozen.to(precision.frozen)
    model.text_chunk = given.TEXT_CHUNK or "auto"
    model.clip.set_grad_checkpointing(given.GRAD_CHECKPOINTING)
    if given.COMPILE:
        if given.COMPILE not in MODES:
            hint = suggest(given.COMPILE, MODES)
            raise UserError(f"MODEL.COMPILE '{given.COMPILE}' is unknown.{hint}")
        model.compile(mode=given.COMPILE)
