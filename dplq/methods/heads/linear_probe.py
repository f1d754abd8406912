"""Linear probe: logistic regression on the image features of frozen encoders.

Radford et al., ICML 2021, section 3.2; few-shot as in CoOp (lpclip/linear_probe.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.heads import logistic
from dplq.methods.heads.base import HeadModel, HeadSettings
from dplq.methods.heads.fitting import FitData, Labelled
from dplq.methods.heads.logistic import DEFAULT_C, fit_best, linear_layer
from dplq.methods.registry import register_method
from dplq.methods.settings import option


@dataclass(frozen=True)
class LinearProbeSettings(HeadSettings):
    """Settings of a linear probe."""

    C: float = option(DEFAULT_C, "inverse regularisation strength, if not chosen on val", above=0)


@register_method
class LinearProbeModel(HeadModel):
    """A linear classifier; class names are not used."""

    method, settings_class = "LinearProbe", LinearProbeSettings
    balances = True

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a linear layer."""
        return {"weight": torch.zeros(classes, width), "bias": torch.zeros(classes)}

    def solve(self, data: FitData) -> dict[str, Any]:
        """Minimise the regularised log loss, with the C that is best on val."""
        train, val = _numpy(data.train), None if data.val is None else _numpy(data.val)
        weight = None if data.class_weights is None else "balanced"
        best = fit_best(train, val, weight, self.settings["C"])
        layer = map(torch.from_numpy, linear_layer(best))
        self.prompt_learner.put(**dict(zip(("weight", "bias"), layer, strict=True)))
        return {"C": float(best.C)}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        return F.linear(features, self.prompt_learner.weight, self.prompt_learner.bias)


def _numpy(part: Labelled) -> logistic.Labelled:
    features, labels = part.every_view()
    return features.double().cpu().numpy(), labels.cpu().numpy()
