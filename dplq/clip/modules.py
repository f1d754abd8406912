"""Type declarations of the open_clip modules that are used by attribute.

`nn.Module.__getattr__` hides the types of submodules. These protocols declare the parts that
`dplq.clip` relies on, so that a type checker can follow them; nothing is checked at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn


class ResidualBlock(Protocol):
    """A pre-norm attention block, as open_clip's `ResidualAttentionBlock`."""

    ln_1: nn.Module
    attn: nn.MultiheadAttention
    ls_1: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    ls_2: nn.Module

    def __call__(self, x: Tensor, *, attn_mask: Tensor | None = None) -> Tensor:
        """Return the block's output for all tokens."""


class Transformer(Protocol):
    """The stack of residual blocks of a tower."""

    resblocks: Sequence[ResidualBlock]


class TextTransformer(Protocol):
    """CLIP's causal text transformer."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor  # (context_length, d_t)
    transformer: Transformer
    ln_final: nn.Module
    text_projection: Tensor | nn.Module | None
    attn_mask: Tensor | None  # (context_length, context_length), additive


class VisionTransformer(Protocol):
    """open_clip's ViT."""

    image_size: int | Sequence[int]
    conv1: nn.Conv2d
    class_embedding: Tensor  # (d_v,)
    positional_embedding: Tensor  # (1 + patches, d_v)
    ln_pre: nn.Module
    transformer: Transformer
    ln_post: nn.Module
    pool_type: str
    proj: Tensor | nn.Module | None


class CLIPModel(Protocol):
    """open_clip's `CLIP`, `CustomTextCLIP` or `CoCa`."""

    visual: Any
    logit_scale: Tensor
