"""The one reader of image files: whatever they hold becomes 8-bit RGB, upright, or is refused.

docs/images.md has the rules and what they give for every kind of file. Data of 8 bits give the
same bytes as `PIL.Image.open(path).convert("RGB")`, unless they have alpha or an orientation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from PIL import Image

from dplq.errors import UserError, one_line, printable
from dplq.io.files import bytes_digest
from dplq.io.validation.paths import not_regular

from .dicom import is_dicom, read_dicom
from .pictures import as_raster, decodes, picture_to_rgb, read_picture, stored_picture, turn
from .rasters import raster_to_rgb
from .settings import DEFAULTS, ReadSettings
from .stored import KINDS, Measured, Range, Refusal, Stored, check_size
from .tiff import STARTS, read_tiff

_ALWAYS = (
    "apng bmp dcm dib dic dicom gif ima jfif jpe jpeg jpg mpo pbm pcx pgm png pnm ppm qoi tga tif "
    "tiff"
)
_BY_CODEC = {"avif": "avif", "jpg_2000": "j2c j2k jp2 jpc jpf jpx", "webp": "webp"}
_NAMES = " ".join([_ALWAYS, *(names for codec, names in _BY_CODEC.items() if decodes(codec))])
VERSION = 3  # goes up when the same file and settings give other pixels
EXTENSIONS: tuple[str, ...] = tuple(sorted(f".{name}" for name in _NAMES.split()))


class ImageFacts(NamedTuple):
    """What an image file holds, and what was done to it.

    Attributes:
        kind: such as ``"16-bit grey"``.
        width: in pixels, as shown.
        height: in pixels, as shown.
        steps: what was done, in words that are the same for images treated alike.
        low: smallest stored value that was used, for data of more than 8 bits.
        high: largest one.
        most: their 1st and 99th percentile.
        span: range of the format that became 0 to 255; None where a window was used.
        frames: pages or frames in the file.
        bands: channels as stored.
        orientation: of EXIF, 1 to 8.
    """

    kind: str
    width: int
    height: int
    steps: tuple[str, ...]
    low: float | None
    high: float | None
    most: tuple[float, float] | None
    span: tuple[float, float] | None
    frames: int
    bands: int
    orientation: int


class ImageFile(str):
    """Path of an image file, with how it is to be read.

    Attributes:
        settings: of the reader.
    """

    settings: ReadSettings

    def __new__(cls, path: str, settings: ReadSettings) -> ImageFile:
        """Return the path with its settings."""
        self = super().__new__(cls, path)
        self.settings = settings
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageFile, (str(self), self.settings)


class UnreadableImage(UserError):
    """An image that is refused.

    Args:
        name: of the file.
        problem: what it is and what to do, without the name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{printable(name)} {problem}.")
        self.name, self.problem = name, problem

    def __reduce__(self) -> tuple[Any, ...]:
        return UnreadableImage, (self.name, self.problem)


def read_image(
    path: str | os.PathLike[str], settings: ReadSettings | None = None, *, edge: int | None = None
) -> Image.Image:
    """Return an image file as 8-bit RGB, upright.

    Args:
        path: of the file.
        settings: None: those of an `ImageFile`, else the defaults.
        edge: a JPEG may be decoded at a fraction of its size, with its shorter edge not below.

    Raises:
        UserError: it cannot be read, or not without a decision; the message says what to do.
    """
    settings = _settings(path, settings)
    with _opened(path) as file:
        return _decode(file, os.fspath(path), settings, edge, False)[0]


def read_with_facts(
    path: str | os.PathLike[str], settings: ReadSettings | None = None
) -> tuple[Image.Image, ImageFacts]:
    """Return the same as `read_image`, and what was in the file."""
    settings = _settings(path, settings)
    with _opened(path) as file:
        image, facts = _decode(file, os.fspath(path), settings, None, True)
    assert facts is not None  # as requested
    return image, facts


def read_opened(file: BinaryIO, name: str, settings: ReadSettings) -> Image.Image:
    """Return the same as `read_image` for an open file, whose name messages have."""
    return _decode(file, name, settings, None, False)[0]


def convert_image(image: Image.Image, settings: ReadSettings = DEFAULTS) -> Image.Image:
    """Return a PIL image as `read_image` returns its file, once Pillow has opened it.

    What Pillow drops of a file (colours' bits above the eighth) is lost; of several frames the
    current one is used.

    Raises:
        UserError: it has no conversion, or not without a decision; the message says what to do.
    """
    with _refusing(getattr(image, "filename", "") or "This image"):
        check_size(*image.size, settings)
        return _shown(stored_picture(image, []), settings, False)[0]


def _settings(path: str | os.PathLike[str], given: ReadSettings | None) -> ReadSettings:
    if given is not None:
        return given
    return path.settings if isinstance(path, ImageFile) else DEFAULTS


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        problem = not_regular(
            os.stat(path).st_mode, "an image"
        )  # to open a pipe would wait for a writer
        if not problem:
            return open(path, "rb")
    except OSError as error:
        problem = f"cannot be opened: {error.strerror or error}"
        raise UnreadableImage(os.fspath(path), problem) from error
    except ValueError as error:
        raise UnreadableImage(os.fspath(path), f"cannot be opened: {error}") from error
    raise UnreadableImage(os.fspath(path), problem)


def _decode(
    file: BinaryIO, name: str, settings: ReadSettings, edge: int | None, measured: bool
) -> tuple[Image.Image, ImageFacts | None]:
    with _refusing(name):
        return _shown(_read(file, name, settings, edge), settings, measured)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Raise UnreadableImage for whatever the decoders raise."""
    try:
        yield
    except Refusal as error:
        raise UnreadableImage(str(name), error.args[0]) from error
    except Exception as error:  # the decoders raise nearly anything on damaged data
        problem = f"cannot be decoded, it is damaged or truncated ({one_line(error)}); replace it"
        raise UnreadableImage(str(name), problem) from error


def _read(file: BinaryIO, name: str, settings: ReadSettings, edge: int | None) -> Stored:
    head = file.read(132)
    file.seek(0)
    if not head:
        raise Refusal("is empty (0 bytes); get the file again")
    if head[:4] in STARTS:
        return read_tiff(file, settings)
    if is_dicom(head):
        return read_dicom(file, settings)
    return read_picture(file, name, settings, edge)


def _shown(
    stored: Stored, settings: ReadSettings, measured: bool
) -> tuple[Image.Image, ImageFacts | None]:
    """Return the image as it is shown, and the facts where they are measured."""
    pixels, steps = stored.pixels, stored.steps
    values: Measured | None = None
    if isinstance(pixels, Image.Image) and settings.bands:
        pixels = as_raster(pixels, settings, steps)
    if isinstance(pixels, Image.Image):
        kind, bands = KINDS.get(pixels.mode, pixels.mode), len(pixels.getbands())
        if settings.window is not None:
            steps.append("INPUT.WINDOW not used for 8 bits")
        image = picture_to_rgb(pixels, settings, steps)
    else:
        kind, bands = pixels.kind, pixels.values.shape[2]
        image, values = raster_to_rgb(pixels, settings, steps, measured)
    image = turn(image, stored)
    if not measured:
        return image, None
    (low, high), most, span = values or ((None, None), None, None)
    facts = ImageFacts(
        kind,
        *image.size,
        steps=tuple(steps),
        low=low,
        high=high,
        most=most,
        span=span,
        frames=stored.frames,
        bands=bands,
        orientation=stored.orientation,
    )
    return image, facts


def reading_key(settings: ReadSettings) -> str:
    """Return a short name of how files are read, for what is kept on disk."""
    return f"reader{VERSION}" + (
        "" if settings == DEFAULTS else f"-{bytes_digest(repr(settings).encode())[:12]}"
    )


def unused_range(facts: Iterable[ImageFacts], settings: ReadSettings) -> str:
    """Return what is wrong where data of more than 8 bits use a small part of their range.

    That is less than half of it by all images, or less than a quarter, the same one, by nearly all
    values of half of the images: a few pixels (defects, burnt-in letters, a fill value) and a few
    images (of another scanner) do not make 12 bits 16.

    Args:
        facts: of all images that are used together.
        settings: of the reader.

    Returns:
        One line with the remedy, "" if there is nothing wrong.
    """
    if settings.window is not None:
        return ""
    kinds: dict[str, list[ImageFacts]] = {}
    for fact in facts:
        if fact.span is not None:
            kinds.setdefault(fact.kind, []).append(fact)
    for kind, same in kinds.items():
        first, last = _union(fact.span for fact in same)
        low, high = _union((fact.low, fact.high) for fact in same)
        use = f"The {kind} images use only the values"
        if high - low >= (last - first) / 2:
            quarter = (last - first) / 4
            narrow = [most for fact in same if (most := fact.most) and most[1] - most[0] < quarter]
            if 2 * len(narrow) < len(same):
                continue
            low, high = _union(narrow)
            if high - low >= quarter:
                continue
            every = len(narrow) == len(same)
            share = "each of the" if every else f"{len(narrow):,} of the {len(same):,}"
            use = f"In {share} {kind} images, 98 % of the values are within"
        return (
            f"{use} {_number(low)} to {_number(high)} of "
            f"{_number(first)} to {_number(last)}, so they would be nearly uniform: set "
            f'INPUT.WINDOW "{_suggestion(low, high, first, last)}" or percentile; INPUT.WINDOW '
            f'"[{_number(first)}, {_number(last)}]" keeps the full range.'
        )
    return ""


def beyond_window(facts: Iterable[ImageFacts], settings: ReadSettings) -> str:
    """Return what is wrong where INPUT.WINDOW makes much of what images show white.

    That is where in half of the images of a kind the 99th percentile lies three of its widths
    above it or more, as if it were for 12 bits and they had 16. DICOM is left out: a window of the
    brain ends far below bone.

    Args:
        facts: of all images that are used together.
        settings: of the reader.

    Returns:
        One line with the remedy, "" if there is nothing wrong.
    """
    if settings.window is None or isinstance(settings.window, str):
        return ""
    low, high = settings.window
    kinds: dict[str, list[Range]] = {}
    for fact in facts:
        if fact.most and "DICOM" not in fact.kind:
            kinds.setdefault(fact.kind, []).append(fact.most)
    for kind, same in kinds.items():
        far = [most for most in same if most[1] > high + 3 * (high - low)]
        if 2 * len(far) >= len(same):
            first, last = _union(far)
            return (
                f"In {len(far):,} of the {len(same):,} {kind} images, 98 % of the values are "
                f"within {_number(first)} to {_number(last)}, and INPUT.WINDOW "
                f'"[{_number(low)}, {_number(high)}]" makes all above {_number(high)} white: set '
                "one that fits, or percentile."
            )
    return ""


def _union(ranges: Iterable[Any]) -> Range:
    """Return the range from the lowest low to the highest high."""
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)


def _suggestion(low: float, high: float, first: float, last: float) -> str:
    """Return a window for values that use a part of their range."""
    if first == 0 and last > 1 and low >= 0:
        power = 2 ** math.ceil(math.log2(high + 1)) - 1 if high >= 1 else 1
        if high - low >= power / 2:
            return f"[0, {power}]"
    if high <= low:
        high = low + 1
    return f"[{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.6g}"
