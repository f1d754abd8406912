"""Near-duplicates: pictures that are copies but not equal in bytes.

A copy that was saved again, resized, shifted by a pixel or made brighter has nearly the same small
version. Pictures of one kind, such as slices of heads, have the same outline and shading. So the
small versions are compared window by window, each without its own mean and contrast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .statistics import SMALL_EDGE, Look

WINDOW = 4  # px of the small version
NOISE = 25.0  # grey levels squared: a window of less variance counts less
# Of 1,200 aerial and MRI images, no two are more similar than 0.82; made-up fundus images with
# different vessels reach 0.92; copies are hardly below 0.93.
MIN_SIMILARITY = 0.93
# Images of few pixels have little detail: handwritten digits of one kind reach 0.96.
FEW_PIXELS = 2 * SMALL_EDGE  # edge, px
MIN_SIMILARITY_OF_FEW = 0.97
BLOCK = 2**22  # pairs that are compared at once
MAX_PAIRS = 100_000


def near_duplicates(looks: Mapping[str, Look]) -> tuple[list[tuple[str, str]], bool]:
    """Return the pairs of images that are nearly the same picture.

    Constant images are left out. Flipped, rotated and cropped copies are not found.

    Args:
        looks: statistics by path.

    Returns:
        Sorted pairs of sorted paths, and whether these are all; a search ends at `MAX_PAIRS`.
    """
    paths = sorted(path for path, one in looks.items() if one.small)
    if len(paths) < 2:
        return [], True
    vectors = contrast_vectors(looks[path].small for path in paths)
    limits = np.array([_limit(looks[path]) for path in paths], dtype=np.float32)
    rows = max(1, BLOCK // len(paths))
    pairs: list[tuple[str, str]] = []
    for start in range(0, len(paths), rows):
        similarity = vectors[start : start + rows] @ vectors[start:].T
        similarity -= np.maximum(limits[start : start + rows, None], limits[start:])
        first, second = np.nonzero(np.triu(similarity >= 0, 1))
        for i, j in zip(first + start, second + start, strict=True):
            if len(pairs) == MAX_PAIRS:
                return pairs, False
            pairs.append((paths[i], paths[j]))
    return pairs, True


def _limit(one: Look) -> float:
    edge = min(one.facts.width, one.facts.height)
    return MIN_SIMILARITY_OF_FEW if edge < FEW_PIXELS else MIN_SIMILARITY


def contrast_vectors(smalls: Iterable[str]) -> np.ndarray:
    """Return the locally normalised small versions as vectors; dot products are similarities.

    Args:
        smalls: `Look.small` of N images.

    Returns:
        (N, 1024) float32, each of length 1, or 0 for an image without contrast.
    """
    rows = [np.frombuffer(bytes.fromhex(small), dtype=np.uint8) for small in smalls]
    steps = SMALL_EDGE // WINDOW
    windows = np.stack(rows).astype(np.float32).reshape(-1, steps, WINDOW, steps, WINDOW)
    windows -= windows.mean(axis=(2, 4), keepdims=True)
    windows /= np.sqrt((windows**2).mean(axis=(2, 4), keepdims=True) + NOISE)
    vectors = windows.reshape(len(rows), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
