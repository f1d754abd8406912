"""Trainer of TCP: textual-based class-aware prompt tuning (Yao et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import nn

from dplq.host.dassl import register_trainer
from dplq.methods.prompts.tcp import TCPModel

from ._engine.base import PromptTrainer


@register_trainer
class TCP(PromptTrainer):
    """A learned context that class-aware tokens replace inside the text tower."""

    model_class = TCPModel
    prec = "fp16"

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer:
        """Build as the base does, with the eps that the release asks for."""
        optimizer = super().build_optimizer(learner)
        for group in optimizer.param_groups:
            if "eps" in group:
                group["eps"] = self.keys.ADAM_EPS
        return optimizer
