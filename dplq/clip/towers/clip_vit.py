"""open_clip's ViT, in all its variants of pooling.

docs/method.md, "Forward pass" step 6. It runs open_clip's own residual blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import (
    call_block,
    expand_to_batch,
    forward_at,
    forward_block,
    is_supported,
    run_blocks,
)
from dplq.clip.modules import ResidualBlock, VisionTransformer
from dplq.clip.towers.base import ImageTower, project
from dplq.errors import UserError


class ClipViT(ImageTower):
    """open_clip's `VisionTransformer`.

    It pools at the class token, over the patches (`avg`), or by attention (CoCa): of the image's
    own tokens, not of prompts.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.visual: VisionTransformer = _declared(module)
        blocks = self.visual.transformer.resblocks
        self.width, self.layers = self.visual.conv1.out_channels, len(blocks)
        self.is_supported = all(map(is_supported, blocks))
        if not self.is_supported:
            self.lacks_blocks = "the blocks of its image tower are not CLIP's"
        pools = self.visual.pool_type != "none" or getattr(module, "attn_pool_contrastive", None)
        if not pools:
            raise UserError(
                "pool_type 'none' in vision_cfg leaves an image without a feature: use tok or avg"
            )
        by_attention = getattr(self.visual, "attn_pool", None) is not None
        self.pools_class_token = not by_attention and self.visual.pool_type == "tok"

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the patch embedding."""
        return self.visual.conv1.weight.dtype

    def encode(
        self, images: Tensor, prompts: Tensor | None = None, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features; prompts are appended before `ln_pre`."""
        visual = self.visual
        x = self._embed_patches(images)
        start = x.shape[1]
        if prompts is not None:
            x = torch.cat([x, expand_to_batch(prompts, x)], dim=1)
        x = visual.ln_pre(x)
        forward: Callable[[ResidualBlock, Tensor], Tensor]
        forward_last: Callable[[ResidualBlock, Tensor], Tensor]
        forward = forward_last = partial(call_block, visual.transformer, None)
        if self.is_supported:
            forward = forward_last = forward_block
            if self.pools_class_token:
                # Only the class token of the last layer is needed.
                class_token = x.new_zeros(x.shape[0], 1, dtype=torch.long)
                forward_last = partial(forward_at, positions=class_token)
        if self.grad_checkpointing and torch.is_grad_enabled():
            forward = partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False)
        x = run_blocks(
            visual.transformer.resblocks,
            x,
            deep_prompts,
            prompt_start=start,
            forward=forward,
            forward_last=forward_last,
        )
        return project(self._pool(x[:, :start]), visual.proj)

    def block_names(self) -> list[str]:
        """Return the names of the residual blocks."""
        return [f"transformer.resblocks.{i}" for i in range(self.layers)]

    def _embed_patches(self, images: Tensor) -> Tensor:
        """Return class and patch tokens (B, 1 + patches, d_v), positional embedding added."""
        visual = self.visual
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([expand_to_batch(visual.class_embedding[None], patches), patches], dim=1)
        # Cast as open_clip does: under autocast the dtype is that of the convolution's output.
        return x + visual.positional_embedding.to(x.dtype)

    def _pool(self, x: Tensor) -> Tensor:
        """Return the pooled feature of the image's own tokens (B, 1 + patches, d_v)."""
        visual: Any = self.visual
        if self.pools_class_token:
            return visual.ln_post(x[:, 0])
        if visual.attn_pool is None:  # the patches' average, normalised before or after it
            after = getattr(visual, "final_ln_after_pool", False)
            return (
                visual.ln_post(x[:, 1:].mean(dim=1))
                if after
                else visual.ln_post(x)[:, 1:].mean(dim=1)
            )
        second = getattr(visual, "attn_pool_contrastive", None)
        if second is None:
            x = visual.ln_post(visual.attn_pool(x))
            return x[:, 0] if visual.pool_type == "tok" else x[:, 1:].mean(dim=1)
        x = visual.ln_post(x)
        x = visual.attn_pool(x) if visual.attn_pool_type == "cascade" else x
        return second(x)[:, 0]


def _declared(module: Any) -> VisionTransformer:
    return module
