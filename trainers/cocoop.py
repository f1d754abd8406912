"""Trainer of CoCoOp: conditional context optimisation (Zhou et al., CVPR 2022)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.cocoop import CoCoOpModel

from ._engine.base import PromptTrainer


@register_trainer
class CoCoOp(PromptTrainer):
    """CoOp's context, shifted by a small net of the image feature."""

    model_class = CoCoOpModel
    prec = "fp16"
    records_steps = True
