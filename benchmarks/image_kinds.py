"""Table of what the model gets from every kind of image file, against other libraries.

python benchmarks/image_kinds.py            # prints a Markdown table (docs/images.md has it)

Every file is written on the fly and read by `dplq.images.reader`. The reference is made without it:
from the values that were written, with numpy, or by tifffile, pydicom or imageio from the file.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dplq.images.reader import ImageFacts, read_with_facts
from dplq.images.settings import DEFAULTS, ReadSettings

HEIGHT, WIDTH = 36, 48
Array = np.ndarray


class Kind(NamedTuple):
    """A kind of file.

    Args:
        name: container, mode, depth, oddity.
        write: writes the file, returns the picture that the model should get, (H, W, 3) of 0 to
            255, not rounded.
        suffix: of the file.
        by: what computed the reference.
        settings: of the reader.
        exact: whether the bytes are those of the reference; else it may differ by 1.
    """

    name: str
    write: Callable[[Path], Array]
    suffix: str
    by: str = "numpy"
    settings: ReadSettings = DEFAULTS
    exact: bool = True


class Row(NamedTuple):
    """A line of the table: what the model got, and how far it is from the reference."""

    name: str
    kind: str
    mean: float
    spread: float
    levels: int
    orientation: str
    by: str
    reference_mean: float
    difference: float
    facts: ImageFacts


def scene(bands: int = 3, seed: int = 0) -> Array:
    """Return a picture without symmetry, (HEIGHT, WIDTH, bands) of 0 to 1."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    random = np.random.default_rng(seed)
    waves = [0.5 + 0.3 * np.sin((x * (b + 1) + 2 * y) / 9) for b in range(bands)]
    ramp = 0.2 * (x / WIDTH - y / HEIGHT)[..., None]
    return np.clip(np.stack(waves, 2) + ramp + random.normal(0, 0.05, (HEIGHT, WIDTH, bands)), 0, 1)


def rgb(values: Array) -> Array:
    """Return grey or colour values as (H, W, 3)."""
    values = values[..., None] if values.ndim == 2 else values
    return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.float64)


def scaled(values: Array, low: float, high: float) -> Array:
    """Return values as (H, W, 3) on the scale of 0 to 255."""
    return rgb(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255)


def over(colour: Array, alpha: Array, background: tuple[int, int, int] = (0, 0, 0)) -> Array:
    """Return a colour of 0 to 255 composited on a background; alpha is of 0 to 1."""
    share = alpha[..., None].astype(np.float64)
    return rgb(colour) * share + np.array(background) * (1 - share)


def full(values: Array) -> Array:
    """Return values of 16 bits as (H, W, 3) on the scale of 0 to 255."""
    return scaled(values, 0, 65535)


BYTES = (scene() * 255).astype(np.uint8)
GREY = BYTES[..., 0].copy()
ALPHA = (scene(1, 7)[..., 0] * 255).astype(np.uint8)
ALPHA[:4] = 0
WORDS = (scene() * 65535).astype(np.uint16)
WORDS4 = (scene(4) * 65535).astype(np.uint16)
SIGNED = (scene(1)[..., 0] * 4000 - 1024).astype(np.int16)
MANY = (scene(13) * 9000).astype(np.uint16)
TWELVE = (scene(1)[..., 0] * 4095).astype(np.uint16)


def save(pixels: Array, mode: str | None = None, want: Array | None = None, **how: Any) -> Any:
    """Return a writer by Pillow of lossless bytes; `want` is the picture if not the bytes."""

    def write(path: Path) -> Array:
        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(path, **how)
        return rgb(pixels) if want is None else want

    return write


def by_imageio(pixels: Array, mode: str | None = None, **how: Any) -> Any:
    """Return a writer of lossy bytes, whose reference is imageio's reading."""

    def write(path: Path) -> Array:
        import imageio.v3 as iio

        image = Image.fromarray(pixels)
        (image if mode is None else image.convert(mode)).save(path, **how)
        return rgb(iio.imread(path))

    return write


def palette(transparent: int | None = None) -> Any:
    """Return a writer of a palette PNG, one entry transparent or none."""

    def write(path: Path) -> Array:
        image = Image.fromarray(BYTES).quantize(16)
        colours = np.array(image.getpalette()[: 3 * 16]).reshape(16, 3)
        indices = np.asarray(image)
        key = {} if transparent is None else {"transparency": transparent}
        image.save(path, **key)
        return over(colours[indices], np.asarray(indices != transparent))

    return write


def with_key() -> Any:
    """Return a writer of an RGB PNG in which one colour is transparent."""

    def write(path: Path) -> Array:
        pixels = BYTES.copy()
        pixels[5:20, 5:20] = (1, 200, 3)
        Image.fromarray(pixels).save(path, transparency=(1, 200, 3))
        return over(pixels, (pixels != (1, 200, 3)).any(axis=2))

    return write


def write_png16(path: Path, values: Array) -> None:
    """Write a 16-bit PNG of 1 to 4 channels, (H, W, channels), which Pillow lacks.

    Every row is stored as its difference to the row above, which is filter 2 of PNG.
    """
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = np.vstack([rows[:1], rows[1:] - rows[:-1]])
    chunks = [
        (b"IHDR", pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(np.insert(rows, 0, 2, axis=1).tobytes())),
        (b"IEND", b""),
    ]
    parts = [pack(">I", len(d)) + t + d + pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def png16(values: Array, want: Array) -> Any:
    """Return a writer of a 16-bit PNG."""

    def write(path: Path) -> Array:
        write_png16(path, values)
        return want

    return write


def tiff(values: Array, want: Callable[[Array], Array], **how: Any) -> Any:
    """Return a writer by tifffile; the reference is made of what tifffile reads back."""

    def write(path: Path) -> Array:
        import tifffile

        tifffile.imwrite(path, values, **how)
        return want(tifffile.imread(path))

    return write


def turned(orientation: int, suffix: str) -> Any:
    """Return a writer of a picture that is stored turned, with the tag that says so."""
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]

    def write(path: Path) -> Array:
        stored = turns(BYTES)[inverse]
        if suffix == ".tif16":
            import tifffile

            deep = stored.astype(np.uint16) * 257
            tag = [(274, "H", 1, orientation, True)]
            tifffile.imwrite(path, deep, photometric="rgb", extratags=tag)
            return rgb(BYTES)
        exif = Image.Exif()
        exif[0x0112] = orientation
        if suffix == ".jpg":  # lossy: blocks are what JPEG keeps
            stored = np.full_like(stored, 128)
            stored[:16, :16] = 255
            Image.fromarray(stored).save(path, exif=exif, quality=100, subsampling=0)
            return rgb(turns(stored)[orientation])
        how = {"lossless": True} if suffix == ".webp" else {}
        Image.fromarray(stored).save(path, exif=exif, **how)
        return rgb(BYTES)

    return write


def turns(pixels: Array) -> dict[int, Array]:
    """Return a picture after the turn that each EXIF orientation asks for, by numpy."""
    across = pixels.swapaxes(0, 1)
    return {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: across,
        6: across[:, ::-1],
        7: across[::-1, ::-1],
        8: across[::-1],
    }


def frames(suffix: str) -> Any:
    """Return a writer of three frames, the second of which is wanted."""

    def write(path: Path) -> Array:
        levels = [rgb(np.where(cut < GREY, 255, 0)).astype(np.uint8) for cut in (90, 120, 150)]
        first, *rest = [Image.fromarray(level) for level in levels]
        how = {"lossless": True} if suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=rest, **how)
        return rgb(levels[1])

    return write


def pgm12(path: Path) -> Array:
    """Write a PGM of 12 bits."""
    head = b"P5\n# scanner\n%d %d\n4095\n" % (WIDTH, HEIGHT)
    path.write_bytes(head + TWELVE.astype(">u2").tobytes())
    return scaled(TWELVE, 0, 4095)


def write_dicom(path: Path, values: Array, **tags: Any) -> None:
    """Write a DICOM file of (H, W), (H, W, 3) or (frames, H, W); `tags` replace the defaults."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    colour = values.ndim == 3 and values.shape[-1] == 3
    data.Rows, data.Columns = values.shape[-3:-1] if colour else values.shape[-2:]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    elif values.ndim == 3:
        data.NumberOfFrames = len(values)
    data.BitsAllocated = data.BitsStored = 8 * values.itemsize
    data.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value() if callable(value) else value)
    data.HighBit = data.BitsStored - 1
    data.PixelData = values.tobytes()
    data.save_as(path, enforce_file_format=True)


def dicom(values: Array, want: Callable[[Any, Array], Array], **tags: Any) -> Any:
    """Return a writer of a DICOM file; `want` makes the reference of data set and pixels."""

    def write(path: Path) -> Array:
        import pydicom

        write_dicom(path, values, **tags)
        again = pydicom.dcmread(path)
        return want(again, again.pixel_array)

    return write


def windowed(data: Any, pixels: Array) -> Array:
    """Return pydicom's modality LUT and window, on the scale of 0 to 255."""
    from pydicom.pixels import apply_modality_lut, apply_windowing

    shown = apply_windowing(apply_modality_lut(pixels, data), data)
    top = 2.0 ** int(data.BitsStored) - 1
    low = -(top + 1) / 2 if data.PixelRepresentation else 0.0
    offset = float(data.get("RescaleIntercept", 0))
    return scaled(shown, low + offset, low + top + offset)


def modality(data: Any, pixels: Array) -> Array:
    """Return pydicom's modality LUT."""
    from pydicom.pixels import apply_modality_lut

    return apply_modality_lut(pixels, data)


def colour_lut(data: Any, pixels: Array) -> Array:
    """Return pydicom's palette colours."""
    from pydicom.pixels import apply_color_lut

    return rgb(apply_color_lut(pixels, data)) / 257


def from_ybr(data: Any, pixels: Array) -> Array:
    """Return pydicom's conversion of YBR."""
    return rgb(pixels)  # pixel_array has converted it


def voi_lut(data: Any, pixels: Array) -> Array:
    """Return pydicom's VOI LUT."""
    from pydicom.pixels import apply_voi_lut

    return scaled(apply_voi_lut(pixels, data), 0, 65535)


def curve() -> Any:
    """Return a VOI LUT: a square root."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.LUTData = (np.sqrt(np.arange(4096) / 4095) * 65535).astype("<u2").tobytes()
    return [item]


PALETTE_TAGS = {
    f"{colour}PaletteColorLookupTable{part}": value
    for colour, power in (("Red", 1), ("Green", 2), ("Blue", 3))
    for part, value in (
        ("Descriptor", [256, 0, 16]),
        ("Data", ((np.arange(256) / 255) ** power * 65535).astype("<u2").tobytes()),
    )
}
CT = {"BitsStored": 16, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
BODY = {**CT, "WindowCenter": "40", "WindowWidth": "400"}
LOW, HIGH = np.percentile(WORDS[..., 0], (1, 99))
DEEP = over(scaled(WORDS4[..., :3], 0, 65535), WORDS4[..., 3] / 65535)
GREY_ALPHA16 = over(scaled(WORDS4[..., 0], 0, 65535), WORDS4[..., 3] / 65535)
BODY_WINDOW = ReadSettings(window=(-160, 240))
SECOND = ReadSettings(frame=2)


def kinds() -> list[Kind]:
    """Return every kind of file in the table."""
    straight = np.dstack([BYTES, ALPHA])
    grey_alpha = np.dstack([GREY, ALPHA])
    return [
        Kind("PNG 1-bit", save((GREY > 120), want=rgb((GREY > 120) * 255)), ".png"),
        Kind("PNG 8-bit grey", save(GREY), ".png"),
        Kind("PNG 8-bit RGB", save(BYTES), ".png"),
        Kind("BMP 8-bit RGB", save(BYTES), ".bmp"),
        Kind("PPM 8-bit RGB", save(BYTES), ".ppm"),
        Kind("TGA 8-bit RGB", save(BYTES), ".tga"),
        Kind("WebP 8-bit RGB, lossless", save(BYTES, lossless=True), ".webp"),
        Kind("JPEG 2000 8-bit RGB", save(BYTES), ".jp2"),
        Kind("GIF 8-bit grey", save(GREY), ".gif"),
        Kind("TIFF 8-bit RGB, LZW", save(BYTES, compression="tiff_lzw"), ".tif"),
        Kind("JPEG 8-bit RGB", by_imageio(BYTES), ".jpg", "imageio"),
        Kind("JPEG 8-bit grey, .jfif", by_imageio(GREY, format="JPEG"), ".jfif", "imageio"),
        Kind("PNG palette", palette(), ".png"),
        Kind("PNG palette, one entry transparent", palette(3), ".png"),
        Kind("PNG 8-bit RGB, one colour transparent", with_key(), ".png"),
        Kind("PNG 8-bit RGBA", save(straight, want=over(BYTES, ALPHA / 255)), ".png"),
        Kind(
            "PNG 8-bit RGBA on INPUT.BACKGROUND",
            save(straight, want=over(BYTES, ALPHA / 255, (255, 128, 0))),
            ".png",
            settings=ReadSettings(background=(255, 128, 0)),
        ),
        Kind("PNG 8-bit LA", save(grey_alpha, want=over(GREY, ALPHA / 255)), ".png"),
        Kind(
            "WebP RGBA, lossless",
            save(straight, want=over(BYTES, ALPHA / 255), lossless=True, exact=True),
            ".webp",
        ),
        Kind(
            "TIFF 8-bit RGBA, premultiplied",
            tiff(
                np.dstack([(BYTES * (ALPHA[..., None] / 255)).astype(np.uint8), ALPHA]),
                lambda v: rgb(v[..., :3]),
                photometric="rgb",
                extrasamples=["assocalpha"],
            ),
            ".tif",
            "tifffile",
        ),
        Kind(
            "TIFF CMYK",
            cmyk,
            ".tif",
            exact=False,
        ),
        Kind("PNG 16-bit grey", save(WORDS[..., 0], want=scaled(WORDS[..., 0], 0, 65535)), ".png"),
        Kind(
            "PNG 12 bits in 16-bit grey, INPUT.WINDOW",
            save(TWELVE, want=scaled(TWELVE, 0, 4095)),
            ".png",
            settings=ReadSettings(window=(0, 4095)),
        ),
        Kind(
            "PNG 16-bit grey, percentile",
            save(WORDS[..., 0], want=scaled(WORDS[..., 0], LOW, HIGH)),
            ".png",
            settings=ReadSettings(window="percentile"),
        ),
        Kind("PNG 16-bit RGB", png16(WORDS, scaled(WORDS, 0, 65535)), ".png"),
        Kind("PNG 16-bit RGBA", png16(WORDS4, DEEP), ".png", exact=False),
        Kind("PNG 16-bit LA", png16(WORDS4[..., [0, 3]], GREY_ALPHA16), ".png", exact=False),
        Kind("PGM 12-bit", pgm12, ".pgm"),
        Kind("JPEG 2000 16-bit grey", save(WORDS[..., 0], want=full(WORDS[..., 0])), ".jp2"),
        Kind("TIFF 16-bit grey, big endian",
             tiff(WORDS[..., 0], full, byteorder=">"), ".tif", "tifffile"),
        Kind("TIFF 16-bit grey, LZW",
             save(WORDS[..., 0], want=full(WORDS[..., 0]), compression="tiff_lzw"), ".tif"),
        Kind("TIFF 16-bit grey, white is zero",
             tiff(WORDS[..., 0], lambda v: 255 - full(v), photometric="miniswhite"),
             ".tif", "tifffile"),
        Kind("TIFF 16-bit RGB, planar",
             tiff(np.moveaxis(WORDS, 2, 0), lambda v: full(np.moveaxis(v, 0, 2)),
                  photometric="rgb", planarconfig="separate"), ".tif", "tifffile"),
        Kind("TIFF 16-bit RGB, tiled, deflate",
             tiff(WORDS, full, photometric="rgb", tile=(16, 16), compression="zlib"),
             ".tif", "tifffile"),
        Kind("TIFF 16-bit RGB and near infrared",
             tiff(WORDS4, lambda v: full(v[..., :3]), photometric="rgb",
                  extrasamples=["unspecified"]), ".tif", "tifffile"),
        Kind("TIFF 16-bit signed, INPUT.WINDOW",
             tiff(SIGNED, lambda v: scaled(v, -160, 240)), ".tif", "tifffile", BODY_WINDOW),
        Kind("TIFF 32-bit integer",
             tiff(WORDS[..., 0].astype(np.uint32) * 65537, lambda v: scaled(v, 0, 2**32 - 1)),
             ".tif", "tifffile"),
        Kind("TIFF 32-bit float, 0 to 1",
             tiff(scene(1)[..., 0].astype(np.float32), lambda v: scaled(v, 0, 1)),
             ".tif", "tifffile"),
        Kind("TIFF 64-bit float RGB, INPUT.WINDOW",
             tiff(scene() * 9000 - 50, lambda v: scaled(v, 0, 8000), photometric="rgb"),
             ".tif", "tifffile", ReadSettings(window=(0, 8000))),
        Kind("TIFF 13 bands of 16 bits, INPUT.BANDS",
             tiff(MANY, lambda v: scaled(v[..., [3, 2, 1]], 0, 9000), photometric="minisblack",
                  planarconfig="contig"), ".tif", "tifffile",
             ReadSettings(bands=(4, 3, 2), window=(0, 9000))),
        Kind("TIFF 13 bands of 32-bit floats, planar, INPUT.BANDS",
             tiff(np.moveaxis(MANY / np.float32(9000), 2, 0), lambda v: scaled(v[7], 0, 1),
                  photometric="minisblack", planarconfig="separate"), ".tif", "tifffile",
             ReadSettings(bands=(8,))),
        Kind("TIFF of pages, INPUT.FRAME",
             tiff(np.moveaxis(WORDS, 2, 0), lambda v: full(v[1]), photometric="minisblack"),
             ".tif", "tifffile", SECOND),
        Kind("GIF animated, INPUT.FRAME", frames(".gif"), ".gif", settings=SECOND),
        Kind("PNG animated, INPUT.FRAME", frames(".png"), ".png", settings=SECOND),
        Kind("WebP animated, INPUT.FRAME", frames(".webp"), ".webp", settings=SECOND),
        *(Kind(f"JPEG, EXIF orientation {o}", turned(o, ".jpg"), ".jpg", exact=False)
          for o in (3, 6, 8)),
        Kind("PNG, EXIF orientation 6", turned(6, ".png"), ".png"),
        Kind("WebP, EXIF orientation 5", turned(5, ".webp"), ".webp"),
        Kind("TIFF 8-bit, orientation 8", turned(8, ".tif"), ".tif"),
        Kind("TIFF 16-bit, orientation 6", turned(6, ".tif16"), ".tif"),
        Kind("DICOM 12-bit", dicom(TWELVE, lambda d, v: scaled(v, 0, 4095), BitsStored=12),
             ".dcm", "pydicom"),
        Kind("DICOM 12-bit, MONOCHROME1",
             dicom(TWELVE, lambda d, v: 255 - scaled(v, 0, 4095), BitsStored=12,
                   PhotometricInterpretation="MONOCHROME1"), ".dcm", "pydicom"),
        Kind("DICOM CT, window of the file", dicom(SIGNED, windowed, **BODY), ".dcm", "pydicom"),
        Kind("DICOM CT, INPUT.WINDOW in HU",
             dicom(SIGNED, lambda d, v: scaled(modality(d, v), -160, 240), **BODY), ".dcm",
             "pydicom", BODY_WINDOW),
        Kind("DICOM VOI LUT", dicom(TWELVE, voi_lut, BitsStored=12, VOILUTSequence=curve),
             ".dcm", "pydicom"),
        Kind("DICOM of frames, INPUT.FRAME",
             dicom(np.stack([TWELVE, TWELVE[::-1]]), lambda d, v: scaled(v[1], 0, 4095),
                   BitsStored=12), ".dcm", "pydicom", SECOND),
        Kind("DICOM RGB",
             dicom(BYTES, lambda d, v: rgb(v), PhotometricInterpretation="RGB"), ".dcm", "pydicom"),
        Kind("DICOM YBR",
             dicom(BYTES, from_ybr, PhotometricInterpretation="YBR_FULL"), ".dcm", "pydicom"),
        Kind("DICOM palette",
             dicom(GREY, colour_lut, PhotometricInterpretation="PALETTE COLOR", **PALETTE_TAGS),
             ".dcm", "pydicom"),
    ]  # fmt: skip


def cmyk(path: Path) -> Array:
    """Write a CMYK TIFF; the reference is the plain formula (1 - C) (1 - K)."""
    inks = np.dstack([BYTES, ALPHA])
    Image.fromarray(inks, "CMYK").save(path)
    share = 1 - inks.astype(np.float64) / 255
    return share[..., :3] * share[..., 3:] * 255


def measure(kind: Kind, folder: Path) -> Row:
    """Write a file of a kind, read it, and compare."""
    path = folder / f"image{kind.suffix}"
    want = kind.write(path)
    image, facts = read_with_facts(path, kind.settings)
    got = np.asarray(image).astype(np.float64)
    rounded = np.floor(want + 0.5)
    if got.shape == want.shape:
        gaps = {o: np.abs(v - want).mean() for o, v in turns(got).items() if v.shape == want.shape}
        found = min(gaps, key=gaps.__getitem__)
        difference = float(np.abs(got - rounded).max())
    else:
        found, difference = 0, 255.0
    return Row(
        kind.name,
        facts.kind,
        float(got.mean()),
        float(got.std()),
        len(np.unique(got)),
        "upright" if found == 1 else f"turned ({found})",
        kind.by,
        float(want.mean()),
        difference,
        facts,
    )


def table() -> list[Row]:
    """Return a row per kind."""
    with tempfile.TemporaryDirectory() as folder:
        return [measure(kind, Path(folder)) for kind in kinds()]


def markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    out = io.StringIO()
    out.write("| file | kind | mean | spread | levels | orientation | reference | its mean | ")
    out.write("largest difference |\n|---|---|---|---|---|---|---|---|---|\n")
    for row in rows:
        out.write(
            f"| {row.name} | {row.kind} | {row.mean:.2f} | {row.spread:.2f} | {row.levels} | "
            f"{row.orientation} | {row.by} | {row.reference_mean:.2f} | {row.difference:.0f} |\n"
        )
    return out.getvalue()


if __name__ == "__main__":
    print(markdown(table()), end="")
