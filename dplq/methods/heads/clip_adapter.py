"""CLIP-Adapter: a small net beside the image feature (Gao et al., IJCV 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.heads.base import TextHeadSettings
from dplq.methods.heads.trained import TrainedHead
from dplq.methods.init import linear
from dplq.methods.registry import register_method
from dplq.methods.settings import option

REDUCTION = 4  # of the hidden layer


@dataclass(frozen=True)
class CLIPAdapterSettings(TextHeadSettings):
    """Settings of CLIP-Adapter."""

    ratio: float = option(0.2, "share of the adapted feature", minimum=0, maximum=1)


@register_method
class CLIPAdapterModel(TrainedHead):
    """CLIP whose image features are mixed with a net's output; texts stay, so any can be named."""

    method, settings_class = "CLIPAdapter", CLIPAdapterSettings
    structure, may_differ = ("ratio",), ("templates",)
    any_classes = True
    learned = ("down", "up")

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the two layers, without bias."""
        hidden = max(width // REDUCTION, 1)
        down, up = linear(width, hidden, generator), linear(hidden, width, generator)
        return {"down": down.weight.detach(), "up": up.weight.detach()}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        return self.cosine_logits(self.mixed(features), self.text)

    def mixed(self, features: Tensor) -> Tensor:
        """Return features (B, d) mixed with the net's output."""
        learned, ratio = self.prompt_learner, self.settings["ratio"]
        adapted = F.relu(F.linear(F.relu(F.linear(features, learned.down)), learned.up))
        return ratio * adapted + (1 - ratio) * features

    def image_features(self, images: Tensor, *, adapted: bool = True) -> Tensor:
        """Return L2-normalised image features (B, d); adapted ones are mixed with the net's."""
        if not adapted:
            return super().image_features(images, adapted=False)
        return self.joint(self.mixed(self.features(images)))
