"""Forward passes through frozen residual attention blocks, for the tokens that are needed.

open_clip's block computes all tokens of a sequence. Here the last layer is needed at one token
only (the class token, or EOT), and packed texts need a mask of their own. For the requested tokens
the functions below compute exactly what the block computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations

from dplq.clip.modules import ResidualBlock, Transformer
from dplq.errors import UserError


def is_supported(block: Any) -> bool:
    """Return whether a block has the structure of open_clip's ResidualAttentionBlock.

    Only then do the functions of this module compute what the block itself computes.
    """
    parts = ("ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2")
    return (
        all(hasattr(block, part) for part in parts)
        and type_before_parametrizations(block.attn) is nn.MultiheadAttention
        and not block.attn.add_zero_attn
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and not hasattr(block, "ln_1_kv")
    )


def project_qkv(block: ResidualBlock, x: Tensor, parts: str = "qkv") -> tuple[Tensor, ...]:
    """Return queries, keys or values of tokens.

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
    bias: Tensor | None = attention.in_proj_bias
    projected = F.linear(
        block.ln_1(x),
        attention.in_proj_weight[first:last],
        None if bias is None else bias[first:last],
    )
    split = projected.unflatten(-1, (len(parts), attention.num_heads, attention.head_dim))
    return split.unbind(-3)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return multi-head attention.

    Args:
        q: queries, (N, Lq, heads, e).
        k: keys, (N, Lk, heads, e).
        v: values, (N, Lk, heads, e).
        mask: additive, broadcast to (N, heads, Lq, Lk).

    Returns:
        (N, Lq, heads, e).
    """
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def add_residuals(block: ResidualBlock, x: Tensor, attention: Tensor) -> Tensor:
    """Return the block's output for tokens whose attention is computed.

    Args:
        block: a residual block.
        x: the tokens that entered the block, (..., L, d).
        attention: output of `attend` for them, (..., L, heads, e).
    """
    x = x + block.ls_1(block.attn.out_proj(attention.flatten(-2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def forward_block(block: ResidualBlock, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the block's output for all tokens of `x` (N, L, d); `mask` as in `attend`."""
    q, k, v = project_qkv(block, x)
    return add_residuals(block, x, attend(q, k, v, mask))


def forward_at(
    block: ResidualBlock, x: Tensor, positions: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return the block's output at some positions only.

    Args:
        block: a residual block.
        x: tokens, (N, L, d).
        positions: (N, M) long.
        mask: as in `attend`, for the M queries.

    Returns:
        (N, M, d).
    """
    keys, values = project_qkv(block, x, "kv")
    selected = x.gather(1, positions[:, :, None].expand(-1, -1, x.shape[-1]))
    (queries,) = project_qkv(block, selected, "q")
    return add_residuals(block, selected, attend(queries, keys, values, mask))


def run_blocks(
    blocks: Sequence[ResidualBlock],
    x: Tensor,
    deep_prompts: Sequence[Tensor],
    *,
    prompt_start: int,
    forward: Callable[[ResidualBlock, Tensor], Tensor],
    forward_last: Callable[[ResidualBlock, Tensor], Tensor],
) -> Tensor:
    """Run a tower's residual blocks, with deep prompts.

    Args:
        blocks: the tower's residual blocks.
        x: tokens, (N, L, d).
        deep_prompts: before layer l = 1..len(deep_prompts) the tokens from position `prompt_start`
            on are replaced by the rows of deep_prompts[l - 1], (n, d) or one set per item
            (N, n, d); no rows leave the layer's tokens unchanged.
        prompt_start: position of the first prompt token.
        forward: runs one block.
        forward_last: runs the last block.

    Raises:
        UserError: more deep prompts than layers 1, 2, ....
    """
    check_deep_prompts(deep_prompts, len(blocks))
    for layer, block in enumerate(blocks):
        if 0 < layer <= len(deep_prompts) and deep_prompts[layer - 1].shape[-2]:
            x = replace_tokens(x, deep_prompts[layer - 1], prompt_start)
        x = (forward_last if layer + 1 == len(blocks) else forward)(block, x)
    return x


def check_deep_prompts(deep_prompts: Sequence[Tensor], layers: int) -> None:
    """Refuse (UserError) more deep prompts than a tower has layers 1, 2, ...."""
    if len(deep_prompts) >= layers:
        raise UserError(
            f"prompt depth {len(deep_prompts) + 1} is more than the tower's "
            f"{layers} layers; lower PROMPT_DEPTH"
        )


def replace_tokens(x: Tensor, prompts: Tensor, start: int) -> Tensor:
    """Return tokens `x` (N, L, d) with `prompts`, (n, d) or (N, n, d), from position `start` on."""
    new = expand_to_batch(prompts, x)
    return torch.cat([x[:, :start], new, x[:, start + new.shape[1] :]], dim=1)


def expand_to_batch(prompts: Tensor, x: Tensor) -> Tensor:
    """Return `prompts`, (n, d) or (N, n, d), as (N, n, d) in the dtype of tokens `x` (N, L, d)."""
    return prompts.to(x.dtype).expand(x.shape[0], -1, -1)


def call_block(
    transformer: Transformer, mask: Tensor | None, block: ResidualBlock, x: Tensor
) -> Tensor:
    """Call one of open_clip's blocks on `x` (N, L, d)."""
    # open_clip before 2.26 has no such attribute and runs its blocks on (L, N, d).
    if getattr(transformer, "batch_first", False):
        return block(x, attn_mask=mask)
    return block(x.transpose(0, 1), attn_mask=mask).transpose(0, 1)
