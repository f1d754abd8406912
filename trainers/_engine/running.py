"""How a model is run: number formats, chunks, recomputation, compilation."""

from __future__ import annotations

from typing import Any

from torch import nn

from dplq.training.precision import Precision


def set_up(model: nn.Module, precision: Precision, given: Any) -> None:
    """Give the frozen towers the precision's number format and follow the keys of ``cfg.MODEL``."""
    for frozen in filter(None, (model.clip, model.domain)):
        frozen.to(precision.frozen)
    model.text_chunk = given.TEXT_CHUNK or "auto"
    model.clip.set_grad_checkpointing(given.GRAD_CHECKPOINTING)
    if given.COMPILE:
        model.compile(mode=given.COMPILE)
