"""Frozen residual attention blocks, in parts: which token asks, and what it may look at.

open_clip's block runs all tokens of a sequence against each other. The towers here need less: only
one token is read from the last layer, and the classes' texts share what stands before the name. The
functions below compute exactly what the block computes for the tokens that are asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def divisible(block: nn.Module) -> bool:
    """Whether the functions below know this block's inside (open_clip's ResidualAttentionBlock)."""
    parts = ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2")
    return (
        all(hasattr(block, part) for part in parts)
        and isinstance(block.attn, nn.MultiheadAttention)
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and not hasattr(block, "ln_1_kv")
    )


def project(block: nn.Module, x: Tensor, parts: str = "qkv") -> tuple[Tensor, ...]:
    """Queries, keys or values of tokens.

    Args:
        block: a residual block.
        x: tokens, (..., L, d).
        parts: which of ``q``, ``k``, ``v``, in this order.

    Returns:
        One tensor (..., L, heads, d / heads) per part.
    """
    attention = block.attn
    width = attention.embed_dim
    first, last = "qkv".index(parts[0]) * width, ("qkv".index(parts[-1]) + 1) * width
    bias = attention.in_proj_bias
    projected = F.linear(
        block.ln_1(x),
        attention.in_proj_weight[first:last],
        None if bias is None else bias[first:last],
    )
    split = projected.unflatten(-1, (len(parts), attention.num_heads, attention.head_dim))
    return split.unbind(-3)


def finish(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """What the block does to tokens `x` (..., L, d) after attention gave (..., L, heads, e)."""
    x = x + block.ls_1(block.attn.out_proj(attended.flatten(-2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def look(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (N, Lq, heads, e) to keys and values (N, Lk, heads, e) they see."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def read_first(block: nn.Module, x: Tensor) -> Tensor:
    """The block's output (N, 1, d) for the first token of `x` (N, L, d), which sees all tokens."""
    keys, values = project(block, x, "kv")
    asking = x[:, :1]
    (queries,) = project(block, asking, "q")
    return finish(block, asking, look(queries, keys, values))


def causal_mask(length: int, before: int, device: torch.device) -> Tensor:
    """What tokens see, bool (length, before + length): `before` others, and up to themselves."""
    sees = torch.ones(length, before + length, dtype=torch.bool, device=device)
    return sees.tril(diagonal=before)
