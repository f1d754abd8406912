"""How prompts, head and map decide together: averages, and groups of classes decided apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mixed(logits: Tensor, others: Tensor, weight: float) -> Tensor:
    """Return the weighted mean (B, K) of the log-probabilities of both, `others` with `weight`."""
    others = others.to(logits.dtype)
    return (1 - weight) * logits.log_softmax(dim=1) + weight * others.log_softmax(dim=1)


def decided(logits: Tensor, scores: Tensor, columns: Sequence[int]) -> Tensor:
    """Return logits whose order among some classes is that of scores.

    The highest logit of these classes stays what it was, so that an image is assigned to one of
    them exactly where it was before, and logits of other classes are unchanged.

    Args:
        logits: (B, K).
        scores: (B, len(columns)).
        columns: these classes among the K, one at least.
    """
    highest = logits[:, columns].amax(dim=1, keepdim=True)
    shifted = scores - scores.amax(dim=1, keepdim=True) + highest
    return logits.index_copy(1, torch.tensor(columns, device=logits.device), shifted)


def joined(logits: Tensor, parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Return log-probabilities (B, K) of groups of classes that are decided apart.

    The probability of a group is that of `logits`, of a class within its group that of its scores.

    Args:
        logits: (B, K), which decide between the groups.
        parts: columns of each group, and scores (B, len(columns)); together all K columns.
    """
    between, result = logits.log_softmax(dim=1), logits
    for columns, scores in parts:
        own = between[:, columns].logsumexp(dim=1, keepdim=True) + scores.log_softmax(dim=1)
        result = result.index_copy(1, torch.tensor(columns, device=logits.device), own)
    return result


def with_spread_of(scores: Tensor, logits: Tensor) -> Tensor:
    """Return scores (B, K), centred, with the standard deviation that each row of logits has.

    So neither decides by being more confident where both are averaged or compared.
    """
    own, wanted = (part.std(dim=1, correction=0, keepdim=True) for part in (scores, logits))
    centred = scores - scores.mean(dim=1, keepdim=True)
    factor = torch.where(own > 1e-6, wanted / own.clamp_min(1e-6), torch.zeros_like(wanted))
    return centred.to(logits.dtype) * factor
