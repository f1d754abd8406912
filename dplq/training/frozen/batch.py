"""Frozen features of one batch of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

CLIP, DOMAIN = "clip", "domain"  # the encoders: CLIP's image tower, and the domain encoder


class FrozenBatch:
    """Features of a batch that are known, and those that are computed meanwhile.

    A feature belongs to one tensor of images: the same object, not an equal one. So a model that is
    given other images, or changed ones, computes their features as ever.

    Args:
        known: features (B, d) by encoder, on the device of the images.

    Attributes:
        images: of the batch, (B, 3, H, W); None until they are on the device.
        computed: features (B, d) by encoder that were not known.
    """

    def __init__(self, known: Mapping[str, Tensor]) -> None:
        self.known = known
        self.images: Tensor | None = None
        self.computed: dict[str, Tensor] = {}

    def feature(self, encoder: str, images: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Return the feature (B, d) of images: the known one, else what `compute` returns."""
        if images is not self.images:
            return compute()
        if encoder in self.known:
            return self.known[encoder]
        found = compute()
        self.computed.setdefault(encoder, found.detach())
        return found


def without_pixels(size: int, device: torch.device) -> Tensor:
    """Return images (B, 3, 0, 0), which every encoder refuses: their features are known."""
    return torch.empty(size, 3, 0, 0, device=device)
