"""Trainer of TCP: textual-based class-aware prompt tuning (Yao et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import nn

from dplq.host.dassl import register_trainer
from dplq.methods.prompts.tcp import TCPModel
from dplq.training.optimizer import set_adam_eps

from ._engine.base import PromptTrainer


@register_trainer
class TCP(PromptTrainer):
    """A learned context that class-aware tokens replace inside the text tower."""

    model_class = TCPModel
    prec = "fp16"
    records_steps = True

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer:
        """Build as the base does, with ADAM_EPS."""
        return set_adam_eps(super().build_optimizer(learner), self.keys.ADAM_EPS)
