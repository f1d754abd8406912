"""Trainer of ProGrad: prompt-aligned gradients (Zhu et al., ICCV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from dplq.host.dassl import register_trainer
from dplq.methods.prompts.prograd import ProGradModel, without_conflict
from dplq.training.distributed import add_up_gradients

from ._engine.base import PromptTrainer


@register_trainer
class ProGrad(PromptTrainer):
    """A learned context whose gradient is kept from conflicting with the general direction."""

    model_class = ProGradModel
    prec = "fp16"
    records_steps = True

    def compute_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy and the logits; keep the other term for `backward`."""
        self.terms, logits = self.model.losses(images, labels, self.cross_entropy)
        return self.terms["ce"], logits

    def backward(self, loss: Tensor) -> None:
        """Compute both gradients and project the first, weight by weight."""
        parameters = list(self.model.prompt_learner.parameters())
        general = self.scaled(self.terms["general"])
        directions = torch.autograd.grad(general, parameters, retain_graph=True)
        add_up_gradients(directions)
        super().backward(loss)
        for parameter, direction in zip(parameters, directions, strict=True):
            assert parameter.grad is not None  # every one has a part in the logits
            parameter.grad = without_conflict(parameter.grad, direction, self.keys.PROJECTION)
