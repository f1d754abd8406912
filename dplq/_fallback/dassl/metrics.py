"""Accuracy and distances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from dassl.utils import check_availability


def compute_accuracy(
    output: torch.Tensor | Sequence[torch.Tensor],
    target: torch.Tensor,
    topk: Sequence[int] = (1,),
) -> list[torch.Tensor]:
    """Compute top-k accuracies.

    Args:
        output: scores, (B, K); of a tuple or list the first entry.
        target: labels, (B,).
        topk: the values of k.

    Returns:
        For each k the accuracy in per cent, a tensor of shape (1,).
    """
    scores = output if isinstance(output, torch.Tensor) else output[0]
    best = scores.topk(max(topk), dim=1).indices
    hits = best == target.view(-1, 1)
    return [hits[:, :k].float().sum().view(1) * (100.0 / target.shape[0]) for k in topk]


def euclidean_squared_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return the squared distances of the rows: (M, D), (N, D) -> (M, N)."""
    return torch.cdist(input1, input2).square()


def cosine_distance(input1: torch.Tensor, input2: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosines of the rows: (M, D), (N, D) -> (M, N)."""
    return 1 - F.normalize(input1, dim=1) @ F.normalize(input2, dim=1).t()


_DISTANCES = {"euclidean": euclidean_squared_distance, "cosine": cosine_distance}


def compute_distance_matrix(
    input1: torch.Tensor, input2: torch.Tensor, metric: str = "euclidean"
) -> torch.Tensor:
    """Return the distances of all pairs of rows: (M, D), (N, D) -> (M, N).

    Args:
        input1: (M, D).
        input2: (N, D).
        metric: "euclidean" (squared!) or "cosine".
    """
    check_availability(metric, _DISTANCES, "metric")
    return _DISTANCES[metric](input1, input2)
