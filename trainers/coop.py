"""Trainer of CoOp: context optimisation (Zhou et al., IJCV 2022)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.coop import CoOpModel

from ._engine.base import PromptTrainer


@register_trainer
class CoOp(PromptTrainer):
    """A learned context in place of the words before the class name."""

    model_class = CoOpModel
    prec = "fp16"
    records_steps = True
