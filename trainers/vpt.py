"""Trainer of VPT: visual prompt tuning (Jia et al., ECCV 2022) of CLIP."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.vpt import VPTModel

from ._engine.base import PromptTrainer


@register_trainer
class VPT(PromptTrainer):
    """Free prompts in the layers of the image tower."""

    model_class = VPTModel
    prec = "fp16"
    records_steps = True
