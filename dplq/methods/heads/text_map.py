"""TextMap: the linear map of QuaternionPrompt's preset `residual_head` as a classifier of its own.

Nothing is trained by gradient steps, and any class can be named; see `dplq.methods.text_map`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.methods.heads.base import TextHead, TextHeadSettings
from dplq.methods.heads.fitting import FitData, choose
from dplq.methods.registry import register_method
from dplq.methods.settings import option
from dplq.methods.text_map import TextMap

SCALES = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


@dataclass(frozen=True)
class TextMapSettings(TextHeadSettings):
    """Settings of TextMap."""

    scale: float = option(10.0, "of the cosines, if not chosen on val: how sure it is", above=0)


@register_method
class TextMapModel(TextHead):
    """Cosines of centred texts and of image features that a ridge regression maps to texts."""

    method, settings_class = "TextMap", TextMapSettings
    structure, may_differ = (), ("templates",)
    any_classes = True
    balances = True

    prompt_learner: TextMap

    def _learner(self, classes: int, generator: torch.Generator) -> TextMap:
        """Return a map that is not fitted, and the scale."""
        clip_width, *others = self.parts
        learner = TextMap(clip_width, sum(others))
        learner.register_parameter("scale", nn.Parameter(torch.ones(()), requires_grad=False))
        return learner

    def solve(self, data: FitData) -> dict[str, Any]:
        """Fit the map to all views; choose the scale on val."""
        features, labels = data.train.every_view()
        self.prompt_learner.fit(self.unit(features), labels, self._texts, data.class_weights)
        scale, val = self.settings["scale"], data.val
        if val is not None:
            cosines = self._cosines(val.mean())
            scale = choose("scale", SCALES, lambda scale: scale * cosines, val.labels)
        self.prompt_learner.put(scale=torch.tensor(scale))
        return {"scale": scale}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        return self.prompt_learner.scale * self._cosines(features)

    def _cosines(self, features: Tensor) -> Tensor:
        return self.prompt_learner(self.unit(features), self._texts)

    @property
    def _texts(self) -> Tensor:
        return self.text[:, : self.parts[0]]

    def image_features(self, images: Tensor, *, adapted: bool = True) -> Tensor:
        """Return L2-normalised image features (B, d); adapted ones are mapped to texts."""
        if not adapted:
            return super().image_features(images, adapted=False)
        return self.prompt_learner.mapped(self.unit(self.features(images)))
