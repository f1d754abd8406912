"""CLAP: a linear probe that stays near the class texts (Silva-Rodriguez et al., CVPR 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dplq.methods.heads.base import TextHeadSettings
from dplq.methods.heads.fitting import FitData
from dplq.methods.heads.trained import TrainedHead
from dplq.methods.registry import register_method
from dplq.methods.settings import option


@dataclass(frozen=True)
class CLAPSettings(TextHeadSettings):
    """Settings of CLAP."""

    constraint: bool = option(True, "penalise the distance from the texts; False: ZS-LP")


@register_method
class CLAPModel(TrainedHead):
    """Class weights that start as text features, the more tied to them the better these are."""

    method, settings_class = "CLAP", CLAPSettings
    learned = ("weight",)

    multipliers: Tensor

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a weight for each class."""
        return {"weight": torch.zeros(classes, width)}

    def start(self, data: FitData) -> None:
        """Start from the texts; the multiplier of a class is its mean zero-shot probability."""
        self.prompt_learner.put(weight=self.base)
        features, labels = data.train.every_view()
        right = self.cosine_logits(features, self.base).softmax(dim=-1).gather(1, labels[:, None])
        total = right.new_zeros(len(self.classnames)).index_add(0, labels, right[:, 0])
        self.multipliers = total / labels.bincount(minlength=len(total))

    def loss(self, features: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
        """Return cross-entropy and, with the constraint, the weighted squared distances."""
        loss = super().loss(features, labels, class_weights)
        if not self.settings["constraint"]:
            return loss
        distances = (self.prompt_learner.weight - self.base).pow(2).sum(dim=-1)
        return loss + (self.multipliers * distances).mean()

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        return self.cosine_logits(features, self.prompt_learner.weight)
