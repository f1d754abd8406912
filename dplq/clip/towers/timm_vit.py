"""timm's ViTs inside open_clip: BiomedCLIP, SigLIP, EVA02, PE, ViTamin.

Prompts follow the patches into the first block, with no position of their own; deep prompts replace
them before later ones. The model's own pooling, which may average or attend, gets the image's own
tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dplq.clip.blocks import expand_to_batch, run_blocks
from dplq.clip.towers.base import ImageTower

Block = Callable[[Tensor], Tensor]


def is_timm_vit(trunk: nn.Module) -> bool:
    """Return whether a timm model runs as its plain ViT or its EVA does."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    run: Any = getattr(type(trunk), "forward_features", None)
    return run in (Eva.forward_features, VisionTransformer.forward_features)


class TimmViT(ImageTower):
    """A timm ViT or EVA, and open_clip's projection of its feature.

    Args:
        module: open_clip's `TimmModel`, its trunk of `is_timm_vit`.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.model = module
        trunk: Any = module.trunk
        self.width, self.layers = trunk.embed_dim, len(trunk.blocks)
        self.lacks_blocks = f"its image tower is timm's {type(trunk).__name__}, not open_clip's ViT"

    def encode(
        self, images: Tensor, prompts: Tensor | None = None, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return features; prompts are appended before `norm_pre`, as in CLIP's own ViT."""
        trunk = self.model.trunk
        x, ropes = self._embed_patches(images)
        start = x.shape[1]
        if prompts is not None:
            x = torch.cat([x, expand_to_batch(prompts, x)], dim=1)
            ropes = [_extend(rope, prompts.shape[-2]) for rope in ropes]
        x = trunk.norm_pre(x)
        blocks: list[Any] = [
            block if rope is None else partial(block, rope=rope)
            for block, rope in zip(trunk.blocks, ropes, strict=True)
        ]
        forward: Callable[[Block, Tensor], Tensor] = _call
        if self.grad_checkpointing and torch.is_grad_enabled():
            forward = partial(checkpoint, _call, use_reentrant=False, preserve_rng_state=False)
        x = run_blocks(
            blocks, x, deep_prompts, prompt_start=start, forward=forward, forward_last=_call
        )
        return self.model.head(trunk.forward_head(trunk.norm(x[:, :start])))

    def block_names(self) -> list[str]:
        """Return the names of the blocks."""
        return [f"trunk.blocks.{i}" for i in range(self.layers)]

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return the tokens with absolute position, and each block's rotary position if any."""
        trunk = self.model.trunk
        x = trunk._pos_embed(trunk.patch_embed(images))
        if not isinstance(x, tuple):
            return x, [None] * self.layers
        x, rope = x
        per_block = rope is not None and getattr(trunk, "rope_mixed", False)
        return x, list(rope) if per_block else [rope] * self.layers


def _call(block: Block, x: Tensor) -> Tensor:
    return block(x)


def _extend(rope: Tensor | None, count: int) -> Tensor | None:
    """Return a rotary position (..., patches, sines and cosines) with `count` rows of no turn."""
    if rope is None or not count:
        return rope
    shape = (*rope.shape[:-2], count, rope.shape[-1] // 2)
    still = torch.cat([rope.new_zeros(shape), rope.new_ones(shape)], dim=-1)
    return torch.cat([rope, still], dim=-2)
