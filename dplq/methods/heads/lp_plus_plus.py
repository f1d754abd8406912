"""LP++: a linear probe with learned weights of the text logits (Huang et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.heads.fitting import FitData, Steps
from dplq.methods.heads.trained import ChosenEpochSettings, TrainedHead
from dplq.methods.registry import register_method
from dplq.methods.settings import option

EVERY = 10  # epochs between the changes of alpha
FIRST_ALPHA = 250.0  # of mean text logits


@dataclass(frozen=True)
class LPPlusPlusSettings(ChosenEpochSettings):
    """Settings of LP++."""

    epochs: int = option(300, "steps on all images", minimum=1)


@register_method
class LPPlusPlusModel(TrainedHead):
    """A linear layer and alpha_k times the text logit of each class, with bounds as step sizes."""

    method, settings_class = "LPPlusPlus", LPPlusPlusSettings
    learned = ("weight", "bias", "alpha")
    chooses = True

    alpha_rate: Tensor

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a linear layer and alpha (K,)."""
        weight = torch.zeros(classes, width)
        return {"weight": weight, "bias": torch.zeros(classes), "alpha": torch.zeros(classes)}

    def solve(self, data: FitData) -> dict[str, Any]:
        """Descend on all images at once, with step sizes from bounds on the curvature."""
        features, weights = self.unit(data.train.mean()), _image_weights(data)
        top = torch.linalg.eigvalsh((features.T @ (weights[:, None] * features)).double())[-1]
        rate = (4 * len(features) / top).item()
        learner = self.prompt_learner
        sgd = partial(torch.optim.SGD, lr=rate, momentum=0.9)
        steps = Steps(
            optimizer=lambda _: sgd([learner.weight, learner.bias]),
            rate=lambda _: rate,
            epochs=self.settings["epochs"],
            batch_size=len(features),
            generator=data.steps.generator if data.steps else None,
        )
        return super().solve(replace(data, steps=steps))

    def start(self, data: FitData) -> None:
        """Start from the classes' sums of features and the mean text logit of their images."""
        features, labels = self.unit(data.train.mean()), data.train.labels
        ours, text = F.one_hot(labels).to(features.dtype), features @ self.text.T
        alpha = FIRST_ALPHA * ((ours * text).sum(dim=0) / ours.sum(dim=0)).mean()
        bias = torch.zeros_like(ours[0])
        self.prompt_learner.put(weight=ours.T @ features, bias=bias, alpha=alpha + bias)
        self.prompt_learner.alpha.grad = None
        squares = _image_weights(data)[:, None] * text.pow(2)
        self.alpha_rate = len(features) / (4 * squares.sum(dim=0).max())

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> None:
        """Change alpha every ten epochs, by the sum of all gradients so far, as the authors do."""
        alpha = self.prompt_learner.alpha
        if epoch % EVERY == 0:
            assert alpha.grad is not None
            alpha -= self.alpha_rate * alpha.grad

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        learned, unit = self.prompt_learner, self.unit(features)
        return F.linear(unit, learned.weight, learned.bias) + learned.alpha * (unit @ self.text.T)


def _image_weights(data: FitData) -> Tensor:
    """Return how often each training image counts in the loss, (N,)."""
    labels, weights = data.train.labels, data.class_weights
    return torch.ones_like(labels, dtype=torch.float) if weights is None else weights[labels]
