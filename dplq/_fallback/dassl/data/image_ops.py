"""Augmentations that torchvision lacks.

They draw from Python's, NumPy's and torch's generators in the order of the real Dassl.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF


class Random2DTranslation:
    """Enlarge by an eighth and crop at a random position, or only resize.

    Args:
        height: of the result, pixels.
        width: of the result, pixels.
        p: probability of the translation.
        interpolation: of the resize.
    """

    def __init__(
        self,
        height: int,
        width: int,
        p: float = 0.5,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ):
        self.size = (height, width)
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        """Return an image of the given size."""
        height, width = self.size
        if random.uniform(0, 1) > self.p:
            return TF.resize(img, [height, width], self.interpolation)
        large_h, large_w = round(height * 1.125), round(width * 1.125)
        large = TF.resize(img, [large_h, large_w], self.interpolation)
        left = round(random.uniform(0, large_w - width))
        top = round(random.uniform(0, large_h - height))
        return TF.crop(large, top, left, height, width)


class InstanceNormalization:
    """Normalise each channel of a (C, H, W) tensor to mean 0 and standard deviation 1."""

    def __init__(self, eps: float = 1e-8):
        self.eps = eps

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return the normalised image."""
        channels = img.flatten(1)
        mean, std = channels.mean(1)[:, None, None], channels.std(1)[:, None, None]
        return (img - mean) / (std + self.eps)


class Cutout:
    """Set squares at random positions of a (C, H, W) tensor to zero.

    Args:
        n_holes: how many.
        length: their side, pixels; they are clipped at the border.
    """

    def __init__(self, n_holes: int = 1, length: int = 16):
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return a copy with the holes."""
        out = img.clone()
        for _ in range(self.n_holes):
            rows, columns = (self._span(side) for side in img.shape[1:])
            out[:, rows, columns] = 0
        return out

    def _span(self, side: int) -> slice:
        centre = np.random.randint(side)
        return slice(max(centre - self.length // 2, 0), centre + self.length // 2)


class GaussianNoise:
    """Add normal noise to a tensor, with probability p."""

    def __init__(self, mean: float = 0.0, std: float = 0.15, p: float = 0.5):
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Return the image, with or without noise."""
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn(img.shape) * self.std + self.mean
