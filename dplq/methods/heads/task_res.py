"""TaskRes: a residual of the classes' text features (Yu et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dplq.methods.heads.base import TextHeadSettings
from dplq.methods.heads.trained import TrainedHead
from dplq.methods.registry import register_method
from dplq.methods.settings import option


@dataclass(frozen=True)
class TaskResSettings(TextHeadSettings):
    """Settings of TaskRes."""

    alpha: float = option(0.5, "scale of the residual", minimum=0)


@register_method
class TaskResModel(TrainedHead):
    """CLIP whose text features have a learned residual, at first zero."""

    method, settings_class = "TaskRes", TaskResSettings
    structure = ("templates", "alpha")
    learned = ("residual",)

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return no residual yet."""
        return {"residual": torch.zeros(classes, width)}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        residual = self.settings["alpha"] * self.prompt_learner.residual
        return self.cosine_logits(features, self.base + residual)
