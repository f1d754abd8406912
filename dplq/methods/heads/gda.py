"""GDA: Gaussian discriminant analysis beside zero-shot CLIP (Wang et al., ICLR 2024).

"A Hard-to-Beat Baseline for Training-Free CLIP-Based Adaptation", equations 3 to 6.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.errors import UserError
from dplq.methods.heads.base import TextHead, TextHeadSettings
from dplq.methods.heads.fitting import FitData, choose
from dplq.methods.registry import register_method
from dplq.methods.settings import option

logger = logging.getLogger(__name__)
ALPHAS = tuple(10.0**power for power in range(-4, 3))


@dataclass(frozen=True)
class GDASettings(TextHeadSettings):
    """Settings of GDA."""

    alpha: float = option(0.1, "weight of the discriminant, if not chosen on val", minimum=0)


def discriminant(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights (K, d) and bias (K,) of Gaussians with one covariance and equal priors.

    The covariance of N features is shrunk as the authors do (Kubokawa and Srivastava, 2008):
    its inverse is d ((N - 1) S + tr(S) I)^-1.

    Args:
        features: (N, d).
        labels: (N,).
        classes: K; each has a feature.
    """
    features = features.double()
    means = torch.stack([features[labels == k].mean(dim=0) for k in range(classes)])
    scatter = (features - means[labels]).T.cov()
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    shrunk = (len(features) - 1) * scatter + scatter.trace() * identity
    weight = len(scatter) * means @ torch.linalg.pinv(shrunk, hermitian=True)
    bias = -(weight * means).sum(dim=1) / 2 - log(classes)
    return weight, bias


@register_method
class GDAModel(TextHead):
    """Zero-shot logits and those of a Gaussian discriminant, added."""

    method, settings_class = "GDA", GDASettings

    def initial(self, classes: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the discriminant, alpha times."""
        return {"weight": torch.zeros(classes, width), "bias": torch.zeros(classes)}

    def solve(self, data: FitData) -> dict[str, Any]:
        """Fit the discriminant to all views; choose alpha on val.

        Raises:
            UserError: there is one image, and one view of it.
        """
        features, labels = data.train.every_view()
        if len(features) < 2:
            raise UserError(
                "GDA estimates a covariance, for which it needs at least two training images, and "
                "there is one: add images, or set VIEWS to 2 or more."
            )
        weight, bias = discriminant(self.unit(features), labels, len(self.classnames))
        if not weight.any():
            logger.warning(
                "GDA has no discriminant and predicts as zero-shot CLIP: no two training images of "
                "a class differ (%d images, %d classes). Add images, or set VIEWS to 2 or more.",
                *(data.train.features.shape[1], len(self.classnames)),
            )
        alpha, val = self.settings["alpha"], data.val
        if val is not None:
            text = self.cosine_logits(val.mean(), self.text)
            own = F.linear(self.unit(val.mean()).double(), weight, bias)
            alpha = choose("alpha", ALPHAS, lambda alpha: text + alpha * own, val.labels)
        self.prompt_learner.put(weight=alpha * weight, bias=alpha * bias)
        return {"alpha": alpha}

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, d)."""
        learned = self.prompt_learner
        own = F.linear(self.unit(features), learned.weight, learned.bias)
        return self.cosine_logits(features, self.text) + own
