"""TIFF files: plain 8-bit pages by Pillow, all others by tifffile."""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .pictures import TURNS, open_picture, orientation_of, with_args
from .settings import ReadSettings
from .stored import Raster, Refusal, Stored, check_size, choose_frame, kind_of, span_of

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
NAMES = {
    PALETTE: "a palette",
    CMYK: "CMYK",
    YCBCR: "YCbCr",
    CIELAB: "CIELAB",
    32803: "a raw filter",
}
# (samples, photometric interpretation) that Pillow reads whole, up to 8 bits without extra samples
PLAIN = {(1, 0), (1, 1), (1, 3), (1, 6), (3, 2), (3, 6), (3, 8), (4, 5)}
SMALLER, MASK = 1, 4  # bits of NewSubfileType
PREMULTIPLIED, STRAIGHT = 1, 2  # ExtraSamples
UNSIGNED, SIGNED, COMPLEX = 1, 2, (5, 6)  # SampleFormat
CONTIGUOUS = 1  # PlanarConfiguration
SUBSAMPLING = 530  # of YCbCr; (2, 2) where the tag is absent
CODECS = "install it with `pip install imagecodecs`, or save the image without compression"


def read_tiff(file: BinaryIO, settings: ReadSettings) -> Stored:
    """Return what a TIFF file stores.

    Args:
        file: at its start.
        settings: of the reader.

    Raises:
        Refusal: it cannot be used as it is.
    """
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        every: list[Any] = list(tiff.pages)
        # overviews and masks of a GeoTIFF are no pages of their own
        if not every:
            raise Refusal("is truncated: its list of pages is missing; get the file again")
        pages = [p for p in every if not p.subfiletype & (SMALLER | MASK)] or every
        steps: list[str] = []
        count = _pages_in_one(tiff) if len(every) == 1 else len(pages)
        index = choose_frame(count, settings, steps, "page")
        if index >= len(pages):
            raise Refusal(
                f"holds {count} pages under one entry, of which only the first can be read; save "
                "each page with an entry of its own"
            )
        page = pages[index]
        check_size(page.imagewidth, page.imagelength, settings)
        if _is_plain(page):
            try:
                image = _by_pillow(file, page.index)
            except Refusal:
                pass  # a combination of tags that Pillow does not know
            else:
                return Stored(image, count, *_orientation(page, image), steps)
        raster, orientation, turned = _raster(file, page)
        return Stored(raster, count, orientation, turned, steps)


def _pages_in_one(tiff: Any) -> int:
    """Return the pages of a file with one entry: its writer may have listed the first alone."""
    if not (tiff.is_shaped or tiff.is_imagej):
        return 1
    return max(tiff.series[0].size // max(tiff.pages[0].size, 1), 1)


def _orientation(page: Any, image: Image.Image | None = None) -> tuple[int, bool]:
    """Return the orientation of a page, and whether Pillow has turned its image already."""
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag and tag.value in TURNS else 1
    return orientation, image is not None and orientation_of(image) != orientation


def _bits(page: Any) -> int:
    return int(np.max(page.bitspersample))


def _is_plain(page: Any) -> bool:
    return (
        _bits(page) <= 8
        and page.sampleformat != SIGNED
        and not page.extrasamples
        and (page.samplesperpixel, int(page.photometric)) in PLAIN
        and not _is_subsampled(page)
    )


def _is_subsampled(page: Any) -> bool:
    """Return whether colours have fewer pixels than brightness, with no codec to undo that."""
    tag = page.tags.get(SUBSAMPLING)
    shares = (2, 2) if tag is None else tuple(tag.value)
    return page.photometric == YCBCR and page.compression == 1 and shares != (1, 1)


def _by_pillow(file: BinaryIO, index: int, lower: bool = False) -> Image.Image:
    """Return a page that Pillow has decoded, upright where this Pillow turns TIFFs.

    Of compressed 16-bit colours Pillow keeps the upper byte, or with `lower` the other one.
    """
    file.seek(0)
    image: Any = open_picture(file, ("TIFF",))
    if index:
        image.seek(index)
    if lower:
        other = ";16B" if sys.byteorder == "little" else ";16L"
        image.tile = [
            with_args(tile, (tile[3][0].replace(";16N", other), *tile[3][1:]))
            for tile in image.tile
        ]
    image.load()
    return image


def _raster(file: BinaryIO, page: Any) -> tuple[Raster, int, bool]:
    """Return the values of a page, its orientation, and whether they are upright already."""
    photometric, samples = int(page.photometric), page.samplesperpixel
    if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
        colours = NAMES.get(photometric, str(page.photometric))
        raise Refusal(
            f"is a TIFF of {samples} bands of {_bits(page)} bits with {colours} colours, which "
            "cannot be read; convert it to RGB"
        )
    if page.dtype is None or page.sampleformat in COMPLEX:
        raise Refusal("holds values of an unknown or complex type; convert it to integers")
    _require_whole(file, page)
    values, orientation = _values(file, page)
    extra = int(page.extrasamples[-1]) if page.extrasamples else 0
    alpha = extra in (PREMULTIPLIED, STRAIGHT) and samples in (2, 4)
    bits = _bits(page)
    raster = Raster(
        values.view(np.uint8) if values.dtype == bool else values,
        kind_of(values.dtype, bits, values.shape[2], alpha),
        span_of(values.dtype, bits),
        bits,
        alpha,
        premultiplied=extra == PREMULTIPLIED,
        rgb=photometric == RGB,
        inverted=photometric == MIN_IS_WHITE,
        absent=_absent(page, values),
    )
    return raster, *orientation


def _absent(page: Any, values: np.ndarray) -> np.ndarray | None:
    """Return where all bands have the value that GDAL declares to be no data; None: nowhere."""
    tag = page.tags.get("GDAL_NODATA")
    if not tag:
        return None
    try:
        nodata = float(str(tag.value).strip(" \0"))
    except ValueError:  # some writers put words there
        return None
    if values.dtype.kind == "f":
        nodata = float(values.dtype.type(nodata))  # written with fewer or more digits
    same = np.isnan(values) if np.isnan(nodata) else values == nodata
    absent = same.all(axis=2)
    return absent if absent.any() else None


def _require_whole(file: BinaryIO, page: Any) -> None:
    """Refuse a file that lacks a part of its image; tifffile would fill up with zeros, or nothing.

    What it leaves out is what happens to be in memory.
    """
    size = file.seek(0, 2)
    listed, needed = min(len(page.dataoffsets), len(page.databytecounts)), _segments(page)
    is_one_block = page.compression == 1 and not page.is_tiled  # however many strips are listed
    if listed < needed and not is_one_block:
        raise Refusal(
            f"is damaged: it lists {listed} of the {needed} parts of its image; get the file again"
        )
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    short = page.compression == 1 and not page.is_tiled and all(page.databytecounts)
    if max(ends, default=0) > size or (short and sum(page.databytecounts) < page.nbytes):
        raise Refusal("is truncated: its image data end early; get the file again")


def _segments(page: Any) -> int:
    """Return the number of strips or tiles that a page needs."""
    if page.is_tiled:
        per_band = -(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth)
    else:
        per_band = -(-page.imagelength // max(min(page.rowsperstrip, page.imagelength), 1))
    return per_band * (page.samplesperpixel if page.axes.startswith("S") else 1)


def _values(file: BinaryIO, page: Any) -> tuple[np.ndarray, tuple[int, bool]]:
    """Return the values of a page, (H, W, bands), and what `_orientation` returns."""
    try:
        values = page.asarray(maxworkers=1)
    except (ValueError, ImportError, NotImplementedError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        found = _values_by_pillow(file, page)
        if found is None:
            name = getattr(page.compression, "name", page.compression)
            raise Refusal(f"needs the decoder of {name} in imagecodecs; {CODECS}") from error
        values, orientation = found
    else:
        orientation = _orientation(page)
        if page.axes.startswith("S"):
            values = np.moveaxis(values, 0, -1)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise Refusal(f"is a volume of shape {values.shape}; save its slices as images")
    return values, orientation


def _values_by_pillow(file: BinaryIO, page: Any) -> tuple[np.ndarray, tuple[int, bool]] | None:
    """Return the same for a compression that tifffile cannot decode; None: nor can Pillow."""
    if not _pillow_is_exact(page):
        return None
    try:
        image = _by_pillow(file, page.index)
        values = np.asarray(image)
        if page.samplesperpixel > 1 and _bits(page) == 16:
            lower = np.asarray(_by_pillow(file, page.index, lower=True))
            values = values.astype(np.uint16) << 8 | lower
    except (Refusal, OSError):
        return None
    bands = 1 if values.ndim == 2 else values.shape[2]
    if bands != page.samplesperpixel or _bits(page) > 8 * values.dtype.itemsize:
        return None
    return values.astype(page.dtype), _orientation(page, image)


def _pillow_is_exact(page: Any) -> bool:
    """Return whether what Pillow decodes are the stored values.

    It swaps the bytes of compressed big-endian values that are signed or floats once too often,
    divides 8-bit colours by their alpha, and mixes up bands that are stored one after the other.
    """
    swaps = page.parent.byteorder == ">" and page.sampleformat != UNSIGNED
    one_by_one = page.samplesperpixel > 1 and page.planarconfig != CONTIGUOUS
    return not (swaps or one_by_one or PREMULTIPLIED in page.extrasamples)
