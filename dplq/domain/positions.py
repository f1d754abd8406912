"""Position embeddings that are computed, not learned: Scale-MAE's."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def set_positions(model: Any, resolution: float, name: str) -> None:
    """Set a ViT's positions to sines and cosines of the ground distance; log it.

    As in Scale-MAE's encoder (Reed et al., ICCV 2023), which scales the grid by metres per pixel.

    Args:
        model: a timm ViT with a class token.
        resolution: metres per pixel.
        name: of the encoder, for the message.
    """
    height, width = model.patch_embed.grid_size
    x, y = torch.meshgrid(
        torch.arange(width, dtype=torch.float32),
        torch.arange(height, dtype=torch.float32),
        indexing="xy",
    )
    half = model.embed_dim // 2
    both = [_waves(grid.reshape(-1) * resolution, half) for grid in (x, y)]
    patches = torch.cat(both, 1)
    positions = torch.cat([torch.zeros(1, model.embed_dim), patches])[None]
    model.pos_embed.data = positions.to(model.pos_embed.dtype)
    logger.info(
        "domain encoder '%s': its positions are computed for images of %g metres per pixel",
        *(name, resolution),
    )


def _waves(distance: Tensor, width: int) -> Tensor:
    """Return sines and cosines of distances (N,) at width / 2 wave lengths: (N, width)."""
    exponent = torch.arange(width // 2, dtype=torch.float32) / (width / 2.0)
    angles = distance[:, None] * (1.0 / 10000**exponent)
    return torch.cat([angles.sin(), angles.cos()], 1)
