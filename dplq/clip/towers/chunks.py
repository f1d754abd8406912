"""Texts through a tower in chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import check_deep_prompts
from dplq.clip.memory import texts_per_chunk

Forward = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]


def encode_in_chunks(
    forward: Forward,
    embeddings: Tensor,
    end: Tensor,
    deep_prompts: Sequence[Tensor],
    layers: int,
    chunk: int | str = "auto",
) -> Tensor:
    """Return the features (N, d) of N texts, as many at once as fit into memory.

    With gradients, more than one chunk means activation checkpointing: the backward pass
    recomputes each chunk.

    Args:
        forward: of some texts' embeddings, ends and deep prompts.
        embeddings: (N, L, d_t).
        end: (N,), passed on.
        deep_prompts: (n, d_t) for all texts, or one per text (N, n, d_t).
        layers: of the tower.
        chunk: texts per forward pass, or "auto" (`dplq.clip.memory`).

    Raises:
        UserError: more deep prompts than layers 1, 2, ....
    """
    check_deep_prompts(deep_prompts, layers)
    count = texts_per_chunk(embeddings, layers) if isinstance(chunk, str) else max(chunk, 1)
    if count >= len(embeddings):
        return forward(embeddings, end, deep_prompts)
    features = []
    for start in range(0, len(embeddings), count):
        part = slice(start, start + count)
        deep = [own[part] if own.dim() == 3 else own for own in deep_prompts]
        given = (embeddings[part], end[part], deep)
        if torch.is_grad_enabled():
            # No tower draws random numbers, so no generator state needs to be kept.
            features.append(
                checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            features.append(forward(*given))
    return torch.cat(features)
