"""What an image file stores, before it is made 8-bit RGB, and the error for one that cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from .settings import ReadSettings

Range: TypeAlias = tuple[float, float]
MAX_ASPECT = 1000  # of the edges; a resize makes the longer one this many times the input size
KINDS = {
    "1": "1-bit",
    "L": "8-bit grey",
    "LA": "8-bit grey with alpha",
    "La": "8-bit grey with alpha",
    "P": "8-bit palette",
    "PA": "8-bit palette with alpha",
    "RGB": "8-bit RGB",
    "RGBA": "8-bit RGB with alpha",
    "RGBa": "8-bit RGB with alpha",
    "CMYK": "8-bit CMYK",
    "YCbCr": "8-bit YCbCr",
    "LAB": "8-bit CIELAB",
    "HSV": "8-bit HSV",
}  # by mode of Pillow


class Refusal(Exception):
    """An image that is not read: what it is and what to do, without the file's name."""


class WindowNeeded(str):
    """What is wrong with floats that have no range: the text of a `Refusal`.

    Args:
        kind: of the image.
        extremes: smallest and largest finite value, None without any.
        finite: whether all are.
    """

    kind: str
    extremes: Range | None
    finite: bool

    def __new__(cls, kind: str, extremes: Range | None, finite: bool) -> WindowNeeded:
        """Return the text, which advises the whole range."""
        low, high = extremes or (math.nan, math.nan)
        what = "outside 0 to 1" if finite else "and some that are not finite"
        window = range_text((low, high)) if low < high else "[low, high]"
        self = super().__new__(
            cls,
            f"is a {kind} image with values from {low:.6g} to {high:.6g}, {what}; set INPUT.WINDOW "
            f'"{window}", the values that become black and white, or percentile',
        )
        self.kind, self.extremes, self.finite = kind, extremes, finite
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return WindowNeeded, (self.kind, self.extremes, self.finite)

    def together(self, other: WindowNeeded) -> WindowNeeded:
        """Return the text for two images, whose window is the same."""
        known = [extremes for extremes in (self.extremes, other.extremes) if extremes]
        lows, highs = zip(*known, strict=True) if known else ((), ())
        extremes = (min(lows), max(highs)) if known else None
        return WindowNeeded(self.kind, extremes, self.finite and other.finite)


def range_text(window: Range) -> str:
    """Return a range as it is written in a config."""
    return f"[{window[0]:.6g}, {window[1]:.6g}]" if window[1] < 1e6 else str([*map(int, window)])


@dataclass
class Raster:
    """Values of an image as stored.

    Args:
        values: (H, W, bands), any real dtype.
        kind: in words, such as ``"16-bit grey"``.
        span: smallest and largest value of the format; None: floats, whose range is 0 to 1.
        bits: per value.
        alpha: whether the last band is alpha.
        premultiplied: whether the colours are multiplied by alpha.
        rgb: whether the first three bands are declared red, green and blue.
        inverted: whether the smallest value is white.
        window: from the file, in the values' unit; `INPUT.WINDOW` precedes it.
        scaled: whether windows are used even if the values are bytes.
        absent: (H, W), True where the file says that there are no data; None: nowhere.
    """

    values: np.ndarray
    kind: str
    span: Range | None
    bits: int
    alpha: bool = False
    premultiplied: bool = False
    rgb: bool = False
    inverted: bool = False
    window: Range | None = None
    scaled: bool = False
    absent: np.ndarray | None = None

    @property
    def deep(self) -> bool:
        """Whether the values are other than plain bytes, 0 black."""
        plain = self.values.dtype == np.uint8 and self.span == (0, 255) and not self.inverted
        return self.scaled or not plain


class Measured(NamedTuple):
    """What the values of more than 8 bits in an image are.

    Attributes:
        extremes: smallest and largest.
        most: 1st and 99th percentile.
        span: the format's range; None where a window was used.
    """

    extremes: Range
    most: Range
    span: Range | None


@dataclass
class Stored:
    """An image as stored, and what the file says of it.

    Args:
        pixels: a Pillow image of 8 bits or less, or a raster.
        frames: pages or frames in the file.
        orientation: of EXIF, 1 to 8, as stored.
        turned: whether the pixels are upright already.
        steps: what has been done to it so far, in words.
    """

    pixels: Image.Image | Raster
    frames: int = 1
    orientation: int = 1
    turned: bool = False
    steps: list[str] = field(default_factory=list)


def kind_of(dtype: np.dtype[Any], bits: int, bands: int, alpha: bool = False) -> str:
    """Return the kind of a raster in words."""
    sort = {"f": "float ", "i": "signed "}.get(dtype.kind, "")
    colours = bands - alpha
    what = {1: "grey", 3: "RGB"}.get(colours, f"{colours}-band")
    return f"{bits}-bit {sort}{what}" + " with alpha" * alpha


def span_of(dtype: np.dtype[Any], bits: int) -> Range | None:
    """Return the smallest and the largest value of an integer format; None for floats."""
    if dtype.kind == "f":
        return None
    if dtype.kind == "i":
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0, 2.0**bits - 1


def choose_frame(frames: int, settings: ReadSettings, steps: list[str], word: str = "frame") -> int:
    """Return the index of the frame to use, from 0.

    Raises:
        Refusal: there are not so many.
    """
    if settings.frame > frames:
        raise Refusal(
            f"has {frames} {word}{'s' * (frames != 1)}, but INPUT.FRAME is {settings.frame}; set "
            f"it to 1{f' to {frames}' if frames > 1 else ''}"
        )
    if frames > 1:
        which = "first" if settings.frame == 1 else f"number {settings.frame}"
        steps.append(f"{which} of several {word}s used")
    return settings.frame - 1


def check_size(width: int, height: int, settings: ReadSettings) -> None:
    """Refuse an image above `INPUT.MAX_PIXELS` or `MAX_ASPECT`; lift Pillow's limit for others.

    Pillow would else warn of it, or refuse a crop of it.

    Raises:
        Refusal: it is too large, or would be once its shorter edge is resized.
    """
    shorter, longer = sorted((width, height))
    if longer > MAX_ASPECT * shorter:
        raise Refusal(
            f"has {width} x {height} pixels, one edge more than {MAX_ASPECT:,} times the other, of "
            "which a square input shows next to nothing; cut it into parts, or remove it"
        )
    pixels = width * height
    if pixels > settings.max_pixels:
        raise Refusal(
            f"has {width} x {height} = {pixels:,} pixels, more than INPUT.MAX_PIXELS "
            f"{settings.max_pixels:,}; scale it down, or raise INPUT.MAX_PIXELS"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        Image.MAX_IMAGE_PIXELS = settings.max_pixels  # one value, whichever thread is first
