"""Pixel statistics of images, each decoded once by the reader of the runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops
from tqdm import tqdm

from dplq.errors import one_line
from dplq.images.reader import ImageFacts, UnreadableImage, read_with_facts
from dplq.images.settings import ReadSettings

FLAT_SPREAD = 1.0  # grey levels of 256; below it an image is constant
COLOUR_STEP = 16  # levels between the channels; less is noise of the compression
SAMPLE_EDGE = 256  # px at least, of the pixels that are counted
SMALL_EDGE = 32  # px of the small version


class Look(NamedTuple):
    """Statistics of one image as the model gets it; JSON-able.

    Those of a large image are of a regular sample of its pixels.

    Attributes:
        facts: what the reader says of the file.
        mean: of the grey values, 0 to 255.
        spread: their standard deviation.
        white: share of the pixels at 255 in every channel.
        black: share of the pixels at 0 in every channel.
        coloured: whether the channels differ anywhere by more than noise.
        small: 32 rows of 32 grey values, its small version, a byte each in hexadecimal; "" for an
            image that is constant.
    """

    facts: ImageFacts
    mean: float
    spread: float
    white: float
    black: float
    coloured: bool
    small: str

    @property
    def content(self) -> tuple[float, float, float, float, str]:
        """What equal pictures have in common."""
        return (self.mean, self.spread, self.white, self.black, self.small)


def look(path: str, settings: ReadSettings | None = None) -> Look | str:
    """Decode an image; return its statistics, or why it cannot be read, without its name.

    Args:
        path: image file.
        settings: of the reader, None for its defaults.
    """
    try:
        image, facts = read_with_facts(path, settings)
        return _statistics(image, facts)
    except UnreadableImage as error:
        return error.problem
    except Exception as error:  # decoders raise nearly anything on damaged data
        return one_line(error).replace(path, os.path.basename(path))


def _statistics(image: Image.Image, facts: ImageFacts) -> Look:
    sample = _sample(image)
    red, green, blue = sample.split()
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    lightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    pixels = sample.width * sample.height
    counts = np.asarray(sample.convert("L").histogram(), dtype=np.float64)
    levels = np.arange(256)
    mean = float(counts @ levels) / pixels
    spread = math.sqrt(float(counts @ (levels - mean) ** 2) / pixels)
    channel_steps = ImageChops.difference(darkest, lightest).histogram()
    return Look(
        facts,
        round(mean, 4),
        round(spread, 4),
        darkest.histogram()[255] / pixels,
        lightest.histogram()[0] / pixels,
        any(channel_steps[COLOUR_STEP + 1 :]),
        _small(image) if spread >= FLAT_SPREAD else "",
    )


def _sample(image: Image.Image) -> Image.Image:
    """Return every n-th pixel of a large image: its statistics, in a fraction of the time."""
    step = min(image.size) // SAMPLE_EDGE
    if step < 2:
        return image
    return image.resize((image.width // step, image.height // step), Image.Resampling.NEAREST)


def _small(image: Image.Image) -> str:
    grey = image.convert("L")
    factor = min(grey.size) // (16 * SMALL_EDGE)
    if factor > 1:  # faster, and nearly the same: each cell still averages 16 x 16 values
        grey = grey.reduce(factor)
    return grey.resize((SMALL_EDGE, SMALL_EDGE), Image.Resampling.BILINEAR).tobytes().hex()


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
