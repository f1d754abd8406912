"""Frozen residual attention blocks, in parts: which token asks, and what it may look at.

open_clip's block runs all tokens of a sequence against each other. The towers here need less: only
one token is read from the last layer, and the classes' texts share what stands before the name. The
functions below compute exactly what the block computes for the tokens that are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.errors import UserError


def divisible(block: nn.Module) -> bool:
    """Whether the functions below know this block's inside (open_clip's ResidualAttentionBlock)."""
    parts = ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2")
    return (
        all(hasattr(block, part) for part in parts)
        and type(block.attn) is nn.MultiheadAttention
        and not block.attn.add_zero_attn
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


def advance(block: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The block's output for all tokens of `x` (N, L, d); the mask is as for `look`."""
    return finish(block, x, look(*project(block, x), mask))


def read(block: nn.Module, x: Tensor, places: Tensor, mask: Tensor | None = None) -> Tensor:
    """The block's output (N, M, d) for the tokens of `x` (N, L, d) at `places` (N, M) alone."""
    keys, values = project(block, x, "kv")
    asking = x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))
    (queries,) = project(block, asking, "q")
    return finish(block, asking, look(queries, keys, values, mask))


def run_blocks(
    blocks: Sequence[nn.Module],
    x: Tensor,
    deep_prompts: Sequence[Tensor],
    *,
    first: int,
    step: Callable[[nn.Module, Tensor], Tensor],
    last: Callable[[nn.Module, Tensor], Tensor],
) -> Tensor:
    """Run residual blocks on `x` (N, L, d); the one place where sequences take deep prompts.

    Args:
        blocks: the tower's residual blocks.
        x: tokens.
        deep_prompts: before layer l = 1..len(deep_prompts) the tokens from position `first` on are
            replaced by the rows of deep_prompts[l - 1], (n, d) or one set per item (N, n, d).
        first: see there.
        step: runs a block.
        last: runs the last one.

    Raises:
        UserError: more deep prompts than layers 1, 2, ....
    """
    if len(deep_prompts) >= len(blocks):
        raise UserError(
            f"prompt depth {len(deep_prompts) + 1} is more than the tower's "
            f"{len(blocks)} layers; lower PROMPT_DEPTH"
        )
    for layer, block in enumerate(blocks):
        if 0 < layer <= len(deep_prompts) and deep_prompts[layer - 1].shape[-2]:
            new = per_item(deep_prompts[layer - 1], x)
            x = torch.cat([x[:, :first], new, x[:, first + new.shape[1] :]], dim=1)
        x = (last if layer + 1 == len(blocks) else step)(block, x)
    return x


def per_item(prompts: Tensor, x: Tensor) -> Tensor:
    """Return `prompts`, (n, d) or (N, n, d), as (N, n, d) in the type of tokens `x` (N, L, d)."""
    return prompts.to(x.dtype).expand(x.shape[0], -1, -1)
