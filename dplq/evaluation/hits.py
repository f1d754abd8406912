"""Which test images were classified right, as a short text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode_hits(labels: Sequence[int], predictions: Sequence[int]) -> str:
    """Return a bit per image, in the order of the test, as hexadecimal digits."""
    hits = np.asarray(labels) == np.asarray(predictions)
    return np.packbits(hits).tobytes().hex()


def decode_hits(text: str, total: int) -> NDArray[np.bool_]:
    """Return whether each of `total` images was classified right, (total,).

    Raises:
        ValueError: the text is not of so many images.
    """
    packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    if len(packed) != (total + 7) // 8:
        raise ValueError(f"hits of {8 * len(packed)} images at most, not of {total}")
    return np.unpackbits(packed, count=total).astype(bool)
