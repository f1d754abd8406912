"""Linear map from image features to text features, for classes without training images.

A head cannot score classes that it was not trained on; a map from image features to the texts of
their classes can, as any name has a text (ESZSL, Romera-Paredes and Torr, ICML 2015). Ours is a
ridge regression that shrinks towards CLIP's own alignment of the two instead of towards zero: what
the training images say nothing about stays as CLIP has it (docs/method.md, "Variants").
"""

from __future__ import annotations

import torch
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.domain_head import statistics
from dplq.methods.heads.base import Fitted

RIDGE = (1.0, 2.0)  # per training image: for CLIP's feature, and for the domain feature
BETWEEN = 0.75  # part of its weight between trained classes, which it favours, and others
SMALLEST_SLOPE = 0.05  # of CLIP's own alignment, where the training images contradict it


class TextMap(Fitted):
    """Ridge regression from CLIP's image feature and the domain feature to text features.

    It is fitted once, by no gradient steps, to the features of the training images.

    Args:
        clip_width: d, of CLIP's image and text features.
        domain_width: d_f, of the domain feature; 0: none.
    """

    def __init__(self, clip_width: int, domain_width: int) -> None:
        self.widths = (clip_width, domain_width)
        tensors = {
            "weight": torch.zeros(clip_width, sum(self.widths)),
            "bias": torch.zeros(clip_width),
            "text_mean": torch.zeros(clip_width),
        }
        super().__init__(tensors, learned=())

    def fit(
        self, features: Tensor, labels: Tensor, texts: Tensor, class_weight: str | None = None
    ) -> None:
        """Fit the map to centred features and texts, and fold the centring into it.

        Args:
            features: (N, d + d_f), of CLIP, L2-normalised, and of the domain encoder side by side.
            labels: (N,), in 0 .. K - 1.
            texts: (K, d), L2-normalised text features of the trained classes.
            class_weight: scikit-learn's: "balanced" weighs an image with n / (K n_c); None: with 1.
        """
        features, texts = features.double().cpu(), texts.double().cpu()
        labels = labels.cpu()
        width = self.widths[0]
        mean, scale = self._scales(features)
        inputs = (features - mean) / scale
        text_mean = texts.mean(dim=0)
        centred = texts - text_mean
        targets = (centred / centred.norm(dim=1).mean().clamp_min(1e-12))[labels]
        weights = torch.from_numpy(compute_sample_weight(class_weight, labels.numpy()))[:, None]
        clip = inputs[:, :width]
        slope = (weights * clip * targets).sum() / (weights * clip**2).sum().clamp_min(1e-12)
        start = torch.zeros(len(mean), width, dtype=torch.float64)
        start[:width].fill_diagonal_(max(slope.item(), SMALLEST_SLOPE))
        ridge = len(labels) * torch.tensor(RIDGE).repeat_interleave(torch.tensor(self.widths))
        # (A' W A + R) M = A' W T + R M_0
        left = inputs.T @ (weights * inputs) + ridge.diag()
        right = inputs.T @ (weights * targets) + ridge[:, None] * start
        weight = (torch.linalg.solve(left, right) / scale[:, None]).T
        self.put(weight=weight, bias=-(weight @ mean), text_mean=text_mean)

    def _scales(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (d + d_f,) and divisor (d + d_f,): each part has a mean square of about 1."""
        width, domain_width = self.widths
        mean, std = statistics(features)
        # CLIP's directions keep their proportions, which its texts share.
        spread = (features - mean)[:, :width].norm(dim=1).mean().clamp_min(1e-12)
        return mean, torch.cat([spread.expand(width), std[width:] * max(domain_width, 1) ** 0.5])

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        """Return cosines (B, K) of mapped features and centred texts.

        Args:
            features: (B, d + d_f), as for `fit`.
            texts: (K, d), L2-normalised text features of any classes.
        """
        mapped = features @ self.weight.T + self.bias
        centred = texts.to(mapped.dtype) - self.text_mean
        return F.normalize(mapped, dim=1) @ F.normalize(centred, dim=1).T


def with_spread_of(scores: Tensor, logits: Tensor) -> Tensor:
    """Return scores (B, K), centred, with the standard deviation that logits (B, K) have per image.

    So a weighted mean of both does not depend on how confident either is.
    """
    own, wanted = (part.std(dim=1, correction=0, keepdim=True) for part in (scores, logits))
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred.to(logits.dtype) * (wanted / own.clamp_min(1e-6))
