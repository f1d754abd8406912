"""Noisy JPEG files for tests of image loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_noise(folder: Path) -> list[str]:
    """Write thirteen JPEG files of several shapes, the first one small; return their paths."""
    generator = np.random.default_rng(0)
    paths = []
    for index, side in enumerate([24, *range(60, 84, 2)]):
        pixels = generator.integers(0, 256, (side, side + 9, 3), dtype=np.uint8)
        paths.append(str(folder / f"{index}.jpg"))
        Image.fromarray(pixels).save(paths[-1])
    return paths
