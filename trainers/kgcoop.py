"""Trainer of KgCoOp: knowledge-guided context optimisation (Yao et al., CVPR 2023)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.prompts.kgcoop import KgCoOpModel

from ._engine.base import PromptTrainer


@register_trainer
class KgCoOp(PromptTrainer):
    """A learned context whose texts stay close to hand-written ones."""

    model_class = KgCoOpModel
    prec = "fp16"
    records_steps = True
