"""Trainer of MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.maple import MaPLeModel

from ._engine.base import PromptTrainer


@register_trainer
class MaPLe(PromptTrainer):
    """Text prompts in the first layers, and image prompts that are coupled to them."""

    model_class = MaPLeModel
    prec = "fp16"
    records_steps = True
