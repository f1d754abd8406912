"""Linear map from image features to text features, for classes without training images.

A head cannot score classes that it was not trained on; a map from image features to the texts of
their classes can, as any name has a text (ESZSL, Romera-Paredes and Torr, ICML 2015). Ours is a
ridge regression that shrinks towards CLIP's own alignment of the two instead of towards zero: what
the training images say nothing about stays as CLIP has it (docs/method.md, "Variants").
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.methods.domain_head import statistics
from dplq.methods.heads.base import Fitted

RIDGE = (1.0, 2.0)  # per training image: for CLIP's feature, and for the domain feature
BETWEEN = 0.75  # part of its weight between trained classes, which it favours, and others
SMALLEST_SLOPE = 0.05  # of CLIP's own alignment, where the training images contradict it
SMALLEST_TEXT = 1e-3  # length of a centred text; a shorter one is the rounding of two encodings


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
        self, features: Tensor, labels: Tensor, texts: Tensor, class_weights: Tensor | None = None
    ) -> None:
        """Fit the map to centred features and texts, and fold the centring into it.

        Args:
            features: (N, d + d_f), of CLIP, L2-normalised, and of the domain encoder side by side.
            labels: (N,), in 0 .. K - 1.
            texts: (K, d), L2-normalised text features of the trained classes.
            class_weights: (K,), how often an image of a class counts; None: once.
        """
        features, texts = features.double().cpu(), texts.double().cpu()
        labels, width = labels.cpu(), self.widths[0]
        each = torch.ones(len(texts)) if class_weights is None else class_weights
        weights = each.double().cpu()[labels]
        mean, scale = self._scales(features, weights)
        inputs = (features - mean) / scale
        text_mean, _ = statistics(texts[labels], weights)
        targets = texts[labels] - text_mean
        targets = targets / self._length(targets, weights)
        weighted = weights[:, None] * inputs
        moment = (weighted[:, :width] * inputs[:, :width]).sum().clamp_min(1e-12)
        slope = (weighted[:, :width] * targets).sum() / moment
        start = torch.zeros(len(mean), width, dtype=torch.float64)
        start[:width].fill_diagonal_(max(slope.item(), SMALLEST_SLOPE))
        ridge = weights.sum() * torch.tensor(RIDGE).repeat_interleave(torch.tensor(self.widths))
        # (X' W X + R) M = X' W T + R M_0
        left = inputs.T @ weighted + ridge.diag()
        right = weighted.T @ targets + ridge[:, None] * start
        weight = (torch.linalg.solve(left, right) / scale[:, None]).T
        self.put(weight=weight, bias=-(weight @ mean), text_mean=text_mean)

    def _scales(self, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (d + d_f,) and divisor (d + d_f,): each part has a length of about 1."""
        width, domain_width = self.widths
        mean, std = statistics(features, weights)
        # CLIP's directions keep their proportions, which its texts share.
        spread = self._length((features - mean)[:, :width], weights)
        return mean, torch.cat([spread.expand(width), std[width:] * max(domain_width, 1) ** 0.5])

    @staticmethod
    def _length(rows: Tensor, weights: Tensor) -> Tensor:
        """Return the mean length of rows (N, d), 1 where all are 0."""
        length = weights @ rows.norm(dim=1) / weights.sum()
        return torch.where(length > 1e-12, length, torch.ones_like(length))

    def forward(self, features: Tensor, texts: Tensor) -> Tensor:
        """Return cosines (B, K) of mapped features and centred texts; 0 for a text at the mean.

        Args:
            features: (B, d + d_f), as for `fit`.
            texts: (K, d), L2-normalised text features of any classes.
        """
        mapped = self.mapped(features)
        centred = texts.to(mapped.dtype) - self.text_mean
        is_zero = centred.norm(dim=1) < SMALLEST_TEXT
        return (mapped @ F.normalize(centred, dim=1).T).masked_fill(is_zero, 0)

    def mapped(self, features: Tensor) -> Tensor:
        """Return L2-normalised mapped features (B, d) of features (B, d + d_f)."""
        return F.normalize(features @ self.weight.T + self.bias, dim=1)
