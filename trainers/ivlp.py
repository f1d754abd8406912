"""Trainer of IVLP: independent vision-language prompting (Khattak et al., CVPR 2023)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.ivlp import IVLPModel

from ._engine.base import PromptTrainer


@register_trainer
class IVLP(PromptTrainer):
    """Free prompts in the layers of both towers."""

    model_class = IVLPModel
    prec = "fp16"
    records_steps = True
