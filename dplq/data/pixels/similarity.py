"""Near-duplicates: pictures that are copies but not equal in bytes.

A copy that was saved again, resized, shifted by a pixel or made brighter has nearly the same small
grey version. Both thresholds were chosen on 1,200 aerial and MRI images, so that their copies are
found and no two of them count as copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .statistics import Look

MAX_DISTANCE = 24  # bits of 256
MIN_CORRELATION = 0.975
BLOCK = 2**21  # pairs that are compared at once
MAX_PAIRS = 100_000
_SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(
    axis=1, dtype=np.uint8
)


def near_duplicates(looks: Mapping[str, Look]) -> tuple[list[tuple[str, str]], bool]:
    """Return the pairs of images that are nearly the same picture.

    Their small grey versions correlate by `MIN_CORRELATION` at least and their hashes differ in
    `MAX_DISTANCE` bits at most. Nearly constant images are left out. Flipped, rotated and cropped
    copies are not found.

    Args:
        looks: statistics by path.

    Returns:
        Sorted pairs of sorted paths, and whether these are all; a search ends at `MAX_PAIRS`.
    """
    paths = sorted(path for path, one in looks.items() if one.hash)
    if len(paths) < 2:
        return [], True
    vectors = _bytes_of(looks[path].small for path in paths).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = _bytes_of(looks[path].hash for path in paths)
    rows = max(1, BLOCK // len(paths))
    pairs: list[tuple[str, str]] = []
    for start in range(0, len(paths), rows):
        correlation = vectors[start : start + rows] @ vectors[start:].T
        first, second = np.nonzero(np.triu(correlation >= MIN_CORRELATION, 1))
        differing = _SET_BITS[hashes[first + start] ^ hashes[second + start]]
        near = differing.sum(axis=1) <= MAX_DISTANCE
        for i, j in zip(first[near] + start, second[near] + start, strict=True):
            if len(pairs) == MAX_PAIRS:
                return pairs, False
            pairs.append((paths[i], paths[j]))
    return pairs, True


def _bytes_of(texts: Iterable[str]) -> np.ndarray:
    """Return hexadecimal texts of equal length as rows of uint8."""
    return np.stack([np.frombuffer(bytes.fromhex(text), dtype=np.uint8) for text in texts])
