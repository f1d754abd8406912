"""Near-duplicates: pictures that are copies but not equal in bytes.

A copy that was saved again, resized, shifted by a pixel or made brighter has nearly the same small
version. Pictures of one kind, such as slices of heads, have the same outline and shading. So the
small versions are compared window by window, each without its own mean and contrast, and once more
without its gradient: two pictures that share a smooth shading and no detail are no copies.
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
MIN_DETAIL = 0.6  # of copies of smooth images 0.64, of different ones with one shading 0.46
# Images of few pixels have little detail: handwritten digits of one kind reach 0.96.
FEW_PIXELS = 2 * SMALL_EDGE  # edge, px
MIN_SIMILARITY_OF_FEW = 0.97
MIN_LENGTH = 0.1  # of a vector before it is normalised; less is rounding
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
    contrast, detail = window_vectors(looks[path].small for path in paths)
    limits = np.array([_limit(looks[path]) for path in paths], dtype=np.float32)
    rows = max(1, BLOCK // len(paths))
    pairs: list[tuple[str, str]] = []
    for start in range(0, len(paths), rows):
        block = slice(start, start + rows)
        similarity = contrast[block] @ contrast[start:].T
        similar = similarity >= np.maximum(limits[block, None], limits[start:])
        similar = np.triu(similar, 1)
        if similar.any():
            similar &= detail[block] @ detail[start:].T >= MIN_DETAIL
        first, second = np.nonzero(similar)
        for i, j in zip(first + start, second + start, strict=True):
            if len(pairs) == MAX_PAIRS:
                return pairs, False
            pairs.append((paths[i], paths[j]))
    return pairs, True


def _limit(one: Look) -> float:
    edge = min(one.facts.width, one.facts.height)
    return MIN_SIMILARITY_OF_FEW if edge < FEW_PIXELS else MIN_SIMILARITY


def window_vectors(smalls: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the small versions, normalised in windows; dot products are similarities.

    Args:
        smalls: `Look.small` of N images.

    Returns:
        Two arrays (N, 1024) of float32, without the mean, and without the plane fitted to each
        window. Each row has length 1, or nearly 0 for an image that has nothing else.
    """
    steps = SMALL_EDGE // WINDOW
    rows = np.stack([np.frombuffer(bytes.fromhex(small), dtype=np.uint8) for small in smalls])
    windows = rows.astype(np.float32).reshape(-1, steps, WINDOW, steps, WINDOW).swapaxes(2, 3)
    windows = windows.reshape(len(rows), steps**2, WINDOW**2)
    y, x = np.mgrid[:WINDOW, :WINDOW].reshape(2, -1)
    mean, plane = np.ones((1, WINDOW**2)), np.stack([np.ones(WINDOW**2), x, y])
    return _normalised(windows, mean), _normalised(windows, plane)


def _normalised(windows: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return (N, windows x pixels): windows less their fit to `without`, (terms, pixels)."""
    basis = np.linalg.qr(without.T)[0].astype(np.float32)
    rest = windows - windows @ basis @ basis.T
    rest /= np.sqrt((rest**2).mean(axis=2, keepdims=True) + NOISE)
    vectors = rest.reshape(len(windows), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, MIN_LENGTH)
