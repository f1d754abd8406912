"""Images converted to other kinds of file, of which the model should get the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.image_kinds import write_dicom, write_png16
from dplq.images.reader import read_image
from dplq.images.settings import DEFAULTS, ReadSettings

Array = np.ndarray
SUFFIXES = (".jpg", ".png", ".tif", ".dcm")
BORDER = 12  # pixels made transparent at each edge
FRAMED = "PNG, 8 bits, black border"


class Conversion(NamedTuple):
    """A kind of file.

    Args:
        name: container, depth, oddity.
        suffix: of the files.
        write: writes bytes, (H, W) or (H, W, 3), to a path.
        settings: of the reader, for these files.
        grey_only: whether it is for grey images only.
        origin: conversion that should have the same pixels; "" for the originals.
    """

    name: str
    suffix: str
    write: Callable[[Path, Array], None]
    settings: ReadSettings = DEFAULTS
    grey_only: bool = False
    origin: str = ""

    @property
    def options(self) -> list[str]:
        """The settings as config keys and values."""
        window = self.settings.window
        return ["INPUT.WINDOW", str([*window])] if window else []


def twelve(pixels: Array) -> Array:
    """Return bytes spread over 12 bits."""
    return np.round(pixels * (4095 / 255)).astype(np.uint16)


def sixteen(pixels: Array) -> Array:
    """Return bytes spread over 16 bits."""
    return pixels * np.uint16(257)


def _png(path: Path, pixels: Array) -> None:
    Image.fromarray(pixels).save(path)


def _png16(path: Path, values: Array) -> None:
    write_png16(path, values if values.ndim == 3 else values[..., None])


def _tiff(path: Path, values: Array) -> None:
    import tifffile

    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack")


def framed(pixels: Array) -> Array:
    """Return the picture with a black border."""
    inner = np.zeros_like(pixels)
    inside = (slice(BORDER, -BORDER),) * 2
    inner[inside] = pixels[inside]
    return inner


def with_alpha(pixels: Array, border: int) -> Array:
    """Return RGBA: opaque, but for a border that hides random colours."""
    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
    alpha = np.full(colour.shape[:2], 255, np.uint8)
    if border:
        hidden = np.random.default_rng(0).integers(0, 256, colour.shape, dtype=np.uint8)
        inside = (slice(border, -border),) * 2
        hidden[inside] = colour[inside]
        colour, alpha = hidden, np.zeros_like(alpha)
        alpha[inside] = 255
    return np.dstack([colour, alpha])


WINDOW = ReadSettings(window=(0, 4095))
WHITE_IS_ZERO = {"BitsStored": 12, "PhotometricInterpretation": "MONOCHROME1"}
CONVERSIONS = (
    Conversion("PNG, 8 bits", ".png", _png),
    Conversion("PNG, 16 bits", ".png", lambda path, v: _png16(path, sixteen(v))),
    Conversion(
        "PNG, 12 bits in 16, INPUT.WINDOW", ".png", lambda path, v: _png16(path, twelve(v)), WINDOW
    ),
    Conversion("TIFF, 16 bits", ".tif", lambda path, v: _tiff(path, sixteen(v))),
    Conversion(
        "TIFF, 32-bit float", ".tif", lambda path, v: _tiff(path, (v / 255).astype(np.float32))
    ),
    Conversion("DICOM, 8 bits", ".dcm", write_dicom),
    Conversion(
        "DICOM, 12 bits", ".dcm", lambda path, v: write_dicom(path, twelve(v), BitsStored=12),
        grey_only=True,
    ),
    Conversion(
        "DICOM, 16 bits", ".dcm", lambda path, v: write_dicom(path, sixteen(v)), grey_only=True
    ),
    Conversion(
        "DICOM, 12 bits, MONOCHROME1", ".dcm",
        lambda path, v: write_dicom(path, 4095 - twelve(v), **WHITE_IS_ZERO), grey_only=True,
    ),
    Conversion("PNG, RGBA, opaque", ".png", lambda path, v: _png(path, with_alpha(v, 0))),
    Conversion(FRAMED, ".png", lambda path, v: _png(path, framed(v)), origin=FRAMED),
    Conversion(
        "PNG, RGBA, border hides colours", ".png",
        lambda path, v: _png(path, with_alpha(v, BORDER)), origin=FRAMED,
    ),
)  # fmt: skip


def stems_in(folder: Path) -> dict[str, Path]:
    """Return the images of a folder and below by their path in it, without extension."""
    paths = sorted(path for path in folder.rglob("*.*") if path.suffix in SUFFIXES)
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}


def convert(source: Path, target: Path, conversion: Conversion) -> None:
    """Convert the images of a folder; names and sub-folders are kept.

    Args:
        source: of the originals.
        target: of the converted files.
        conversion: what they become.

    Raises:
        ValueError: a conversion of grey images meets one in colour.
    """
    for stem, path in stems_in(source).items():
        pixels = np.asarray(read_image(path))
        if (pixels == pixels[..., :1]).all():
            pixels = np.ascontiguousarray(pixels[..., 0])
        elif conversion.grey_only:
            raise ValueError(f"{path} is in colour; {conversion.name} is for grey images")
        place = target / f"{stem}{conversion.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        conversion.write(place, pixels)


def largest_difference(one: Path, other: Path, settings: ReadSettings) -> int:
    """Return the largest difference of any pixel between two folders of the same pictures.

    Args:
        one: a folder that is read with `settings`.
        other: a folder that is read without.
        settings: of the reader.

    Raises:
        ValueError: their images have other names.
    """
    ours, theirs = stems_in(one), stems_in(other)
    if not ours or ours.keys() != theirs.keys():
        raise ValueError(f"{one} and {other} do not have the same images")
    largest = 0
    for stem, path in ours.items():
        got = np.asarray(read_image(path, settings)).astype(int)
        largest = max(largest, int(np.abs(got - np.asarray(read_image(theirs[stem]))).max()))
    return largest
