"""Trainer of QuaternionPrompt: domain prompt learning with quaternions (Cao et al., CVPR 2024)."""

from __future__ import annotations

from dplq.host.dassl import register_trainer
from dplq.methods.quaternion_prompt import QuaternionPromptCLIP

from ._engine.domain import DomainTrainer


@register_trainer
class QuaternionPrompt(DomainTrainer):
    """A frozen domain encoder steers CLIP's prompts through quaternion layers."""

    model_class = QuaternionPromptCLIP
    prec = "fp32"
    records_steps = True
