"""SS-Text: text-informed class means in closed form (Silva-Rodriguez et al., IPMI, MICCAI 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.heads.base import TextHead, TextHeadSettings
from dplq.methods.heads.fitting import FitData
from dplq.methods.registry import register_method
from dplq.methods.settings import option

SMALLEST = 1e-3  # weight of the texts


@dataclass(frozen=True)
class SSTextSettings(TextHeadSettings):
    """Settings of SS-Text."""

    repel: bool = option(False, "SS-Text+: weights by shots, and classes that repel each other")


@register_method
class SSTextModel(TextHead):
    """Class weights: the sum of a class's scaled image features, and its text feature."""

    method, settings_class = "SSText", SSTextSettings
    chooses = False

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a weight for each class."""
        return {"weight": torch.zeros(classes, width)}

    def solve(self, data: FitData) -> dict[str, Any]:
        """Compute the weights; nothing is chosen."""
        features = self.unit(data.train.mean())
        ours = F.one_hot(data.train.labels).to(features.dtype)  # (N, K)
        images = torch.tensor(float(len(features)), device=features.device)
        shots = ours.sum(dim=0) if self.settings["repel"] else images
        of_text = (1 / shots).clamp(min=SMALLEST).reshape(-1, 1)
        visual = self.clip.logit_scale.to(features.dtype) * ours.T @ features
        weight = visual / (images * of_text) + self.text
        if self.settings["repel"]:
            weight = weight - F.normalize(2 * weight - weight.mean(dim=0), dim=-1)
        self.prompt_learner.put(weight=weight)
        return {}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        return self.cosine_logits(features, self.prompt_learner.weight)
