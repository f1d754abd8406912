"""Pixel statistics of images, each decoded once by the reader of the runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops
from tqdm import tqdm

from dplq.errors import UserError, one_line
from dplq.images.reader import ImageFacts, read_with_facts
from dplq.images.settings import ReadSettings

FLAT_SPREAD = 1.0  # grey levels of 256; below it an image is constant
COLOUR_STEP = 16  # levels between the channels; less is noise of the compression
GRID = (17, 16)  # columns, rows of the small version
HASH_STEP = 1.0  # grey levels; less is noise of the compression
UNIT = 32  # levels of one standard deviation in `Look.small`


class Look(NamedTuple):
    """Statistics of one image as the model gets it; JSON-able.

    Attributes:
        facts: what the reader says of the file.
        mean: of the grey values, 0 to 255.
        spread: their standard deviation.
        white: share of the pixels at 255 in every channel.
        black: share of the pixels at 0 in every channel.
        coloured: whether the channels differ anywhere by more than noise.
        hash: 256-bit difference hash in hexadecimal, "" for an image that is nearly constant.
        small: the 16 rows of 17 grey values it is from, standardised, in hexadecimal; "" as above.
    """

    facts: ImageFacts
    mean: float
    spread: float
    white: float
    black: float
    coloured: bool
    hash: str
    small: str

    @property
    def content(self) -> tuple[float, float, float, float, str, str]:
        """What equal pictures have in common."""
        return (self.mean, self.spread, self.white, self.black, self.hash, self.small)


def look(path: str, settings: ReadSettings | None = None) -> Look | str:
    """Decode an image and return its statistics, or why it cannot be decoded.

    Args:
        path: image file.
        settings: of the reader, None for its defaults.
    """
    try:
        image, facts = read_with_facts(path, settings)
        return _statistics(image, facts)
    except UserError as error:
        return str(error)
    except Exception as error:  # decoders raise nearly anything on damaged data
        return one_line(error).replace(path, os.path.basename(path))


def _statistics(image: Image.Image, facts: ImageFacts) -> Look:
    red, green, blue = image.split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    lightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    pixels = image.width * image.height
    grey = image.convert("L")
    counts = np.asarray(grey.histogram(), dtype=np.float64)
    levels = np.arange(256)
    mean = float(counts @ levels) / pixels
    spread = float(np.sqrt(counts @ (levels - mean) ** 2 / pixels))
    small = _small(grey)
    known = spread >= FLAT_SPREAD and small.std() >= FLAT_SPREAD
    return Look(
        facts,
        round(mean, 4),
        round(spread, 4),
        darkest.histogram()[255] / pixels,
        lightest.histogram()[0] / pixels,
        ImageChops.difference(darkest, lightest).getextrema()[1] > COLOUR_STEP,
        _hash(small) if known else "",
        _standardised(small) if known else "",
    )


def _small(grey: Image.Image) -> np.ndarray:
    """Return the grey image as (16, 17) float32 values."""
    factor = min(grey.width // GRID[0], grey.height // GRID[1]) // 16
    if factor > 1:  # whole numbers suffice for what is averaged again
        grey = grey.reduce(factor)
    resized = grey.convert("F").resize(GRID, Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _hash(small: np.ndarray) -> str:
    return np.packbits(np.diff(small, axis=1) > HASH_STEP).tobytes().hex()


def _standardised(small: np.ndarray) -> str:
    scaled = (small - small.mean()) / small.std() * UNIT + 128
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).tobytes().hex()


def looks(
    paths: Iterable[str],
    image_dir: str,
    settings: ReadSettings | None = None,
    progress: bool = True,
) -> tuple[dict[str, Look], dict[str, str]]:
    """Decode images with one thread per core.

    Args:
        paths: images, relative to `image_dir`.
        image_dir: their folder.
        settings: of the reader, None for its defaults.
        progress: whether a terminal shows a bar.

    Returns:
        The statistics of the readable images and the problems of the others, by sorted path.
    """
    paths = sorted(set(paths))
    files = (os.path.join(image_dir, path) for path in paths)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # decoders release the GIL
        results = pool.map(partial(look, settings=settings), files)
        hidden = None if progress else True
        bar = tqdm(results, "Checking pixels", len(paths), leave=False, disable=hidden)
        found = dict(zip(paths, bar, strict=True))
    return (
        {path: result for path, result in found.items() if isinstance(result, Look)},
        {path: result for path, result in found.items() if isinstance(result, str)},
    )
