"""Losses that several methods share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of a batch, each image weighted by its class.

    The weighted losses are divided by their number, not by the sum of their weights as
    `F.cross_entropy` does: in a batch of one image that would undo the weight.

    Args:
        logits: (B, K).
        labels: (B,).
        class_weights: (K,); None: all are 1.
    """
    if class_weights is None:
        return F.cross_entropy(logits, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (class_weights[labels] * losses).mean()
