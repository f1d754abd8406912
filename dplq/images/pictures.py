"""Formats that Pillow decodes, with what it would drop: depth, transparency, later frames."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, features

from .png import read_colour16
from .rasters import composite
from .settings import ReadSettings
from .stored import KINDS, Raster, Refusal, Stored, check_size, choose_frame, kind_of, span_of

# Picture formats only: no documents, no vector graphics, which Pillow hands to Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "AVIF", "JPEG2000", "PPM", "PCX", "QOI")
ORIENTATION = 0x0112
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
WITH_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6  # colour types of PNG


def decodes(codec: str) -> bool:
    """Return whether this Pillow was built with a codec, such as ``"avif"``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of codecs it does not know
        return bool(features.check(codec))


def open_picture(file: BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return a file as a Pillow image that is not yet decoded.

    Unlike `Image.open` this opens no other formats, and leaves the limit on sizes to `check_size`.

    Raises:
        Refusal: it is in none of the formats.
    """
    head, problem = file.read(16), None
    for name in formats:
        factory, accepts = _plugin(name)
        if factory is None or (accepts and accepts(head) is not True):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            problem = error if accepts else problem
    if problem is not None:
        raise Refusal(f"cannot be decoded, it is damaged or truncated ({problem}); replace it")
    raise Refusal(
        "is not an image, or not in a format that can be read, whatever its name says; convert or "
        "remove it"
    )


def _is_tga(file: BinaryIO, name: str) -> bool:
    """Return whether a file is named a TGA image, or ends as one: its start can be anything."""
    file.seek(max(file.seek(0, 2) - 18, 0))
    ends_as_one = file.read() == b"TRUEVISION-XFILE.\0"
    file.seek(0)
    return ends_as_one or name.lower().endswith(".tga")


def _plugin(name: str) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
    if name not in Image.OPEN:
        Image.init()
    return Image.OPEN.get(name, (None, None))


def read_picture(
    file: BinaryIO, name: str, settings: ReadSettings, edge: int | None = None
) -> Stored:
    """Return what a file of any of `FORMATS`, or a TGA, stores.

    Args:
        file: at its start.
        name: of the file, which tells a TGA where nothing in it does.
        settings: of the reader.
        edge: a JPEG may be decoded at a fraction of its size, with its shorter edge not below.

    Raises:
        Refusal: it cannot be used as it is.
    """
    image = open_picture(file, (*FORMATS, "TGA") if _is_tga(file, name) else FORMATS)
    steps: list[str] = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 or settings.frame > 1:
        if image.format not in ("JPEG", "MPO"):  # which `_draft` makes smaller
            check_size(*image.size, settings)  # to go to a frame, those before are decoded
        image.seek(choose_frame(frames, settings, steps))
    if image.format == "JPEG":
        _draft(image, settings, edge, steps)
    check_size(*image.size, settings)
    if image.format == "AVIF" and _is_deep_avif(file):
        steps.append("10- or 12-bit AVIF decoded to 8 bits")
    read_deep = DEEP.get(image.format or "")
    if read_deep and (raster := read_deep(file, image, settings)):
        return Stored(raster, frames, orientation_of(image), steps=steps)
    return stored_picture(image, steps, frames)


def stored_picture(image: Image.Image, steps: list[str], frames: int = 1) -> Stored:
    """Return what a Pillow image stores, once it is decoded.

    Args:
        image: as Pillow opens it.
        steps: what has been done to it so far.
        frames: pages or frames in its file.
    """
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        return Stored(_as_stored(image), frames, orientation_of(image), steps=steps)
    return Stored(image, frames, orientation_of(image), steps=steps)


def _as_stored(image: Image.Image) -> Raster:
    """Return the values of a grey image of more than 8 bits, with what its file says of them."""
    values = np.asarray(image)[..., None]
    bits = 16 if image.mode.startswith("I;16") else 32
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if BITS in tags:  # Pillow holds 32 bits of any integers, and leaves white 0
        (bits,) = tags[BITS][:1]
        letter = "uif"[tags.get(SAMPLE_FORMAT, (1,))[0] - 1]
        values = values.astype(f"{letter}{2 if bits <= 16 else 4}")
    alpha, key = False, image.info.get("transparency")
    if image.format == "PNG" and isinstance(key, int):
        values, alpha = _with_key(values, key), True
    kind = kind_of(values.dtype, bits, values.shape[2], alpha)
    inverted = tags.get(PHOTOMETRIC) == 0
    return Raster(values, kind, span_of(values.dtype, bits), bits, alpha, inverted=inverted)


def _with_key(values: np.ndarray, key: Any) -> np.ndarray:
    """Return 16-bit values (H, W, bands) with alpha, 0 where all bands are the key's."""
    opaque = (values != np.asarray(key, np.uint16)).any(axis=2, keepdims=True)
    return np.concatenate([values, opaque * np.uint16(65535)], 2)


def _draft(image: Image.Image, settings: ReadSettings, edge: int | None, steps: list[str]) -> None:
    """Have a JPEG decoded at 1/2, 1/4 or 1/8 where it is too large, or a small one will do."""
    width, height = image.size
    if width * height > settings.max_pixels:
        for part in (2, 4, 8):
            if -(-width // part) * -(-height // part) <= settings.max_pixels or part == 8:
                image.draft(image.mode, (width // part, height // part))
                steps.append(f"decoded at 1/{part} of the size, for INPUT.MAX_PIXELS")
                return
    if edge:
        image.draft(image.mode, (edge, edge))


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation that is still to be applied, 1 to 8."""
    if image.format != "TIFF" and not any(key in image.info for key in WITH_EXIF):
        return 1
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata say nothing of the orientation
        return 1
    return value if value in TURNS else 1


def turn(image: Image.Image, stored: Stored) -> Image.Image:
    """Return an image upright."""
    if stored.orientation not in TURNS:
        return image
    stored.steps.append("turned upright by EXIF orientation")
    if stored.turned:
        return image
    turned = image.transpose(TURNS[stored.orientation])
    for key in WITH_EXIF:  # which would have it turned again
        turned.info.pop(key, None)
    return turned


def picture_to_rgb(image: Image.Image, settings: ReadSettings, steps: list[str]) -> Image.Image:
    """Return an image of 8 bits or less as RGB, transparent parts on the background.

    Raises:
        Refusal: its mode has no conversion.
    """
    mode, info = image.mode, image.info
    clear = "transparency" in info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if mode in ("P", "PA"):
        steps.append("palette to RGB")
        clear = clear or (image.palette is not None and "A" in image.palette.mode)
    if clear:
        return _on_background(image, settings, steps)
    if mode == "RGB":
        return image
    if mode == "LAB":
        steps.append("CIELAB to RGB")
        return _lab_to_rgb(image)
    if mode in ("CMYK", "YCbCr", "HSV"):
        steps.append(f"{mode} to RGB")
    elif mode not in ("1", "L", "P"):
        raise Refusal(f"is an image of mode {mode}, which cannot be made RGB; convert it to PNG")
    return image.convert("RGB")


def _on_background(image: Image.Image, settings: ReadSettings, steps: list[str]) -> Image.Image:
    premultiplied = image.mode == "RGBa"
    if image.mode == "La":
        image = image.convert("LA")
    values = np.asarray(image if image.mode in ("RGBA", "RGBa") else image.convert("RGBA"))
    pixels = composite(
        values[..., :3],
        values[..., 3],
        255,
        settings.background,
        steps,
        premultiplied=premultiplied,
    )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    try:
        from PIL import ImageCms
    except ImportError as error:
        raise Refusal("is a CIELAB image; convert it to RGB") from error
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert converted is not None  # only with inPlace
    return converted


def as_raster(image: Image.Image, settings: ReadSettings, steps: list[str]) -> Raster:
    """Return an image of 8 bits or less as a raster of its bands, a palette as its colours.

    Colours of another kind are made RGB, but for a CMYK TIFF, which may be any four bands.
    """
    if image.mode in ("YCbCr", "LAB", "HSV") or (image.mode == "CMYK" and image.format != "TIFF"):
        image = picture_to_rgb(image, settings, steps)
    clear = "transparency" in image.info
    kind = KINDS.get(image.mode, f"of mode {image.mode}")
    if image.mode in ("1", "La") or (image.mode in ("P", "PA", "L", "RGB") and clear):
        image = image.convert("RGBA" if clear else {"1": "L", "La": "LA"}[image.mode])
    elif image.mode in ("P", "PA", "RGBa"):
        image = image.convert("RGB" if image.mode == "P" else "RGBA")
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values
    return Raster(values, kind, (0, 255), 8, alpha="A" in image.mode[-1:])


def _read_deep_png(file: BinaryIO, image: Image.Image, settings: ReadSettings) -> Raster | None:
    """Return the values of a PNG of 16 bits, of which Pillow keeps the upper 8 in colour."""
    file.seek(0)
    head = file.read(26)
    depth, colour_type = head[24], head[25]
    if depth != 16:
        return None
    if settings.frame > 1:
        raise Refusal("is an animated 16-bit PNG, of which only frame 1 can be read")
    key = image.info.get("transparency")
    values: np.ndarray
    if colour_type == GREY:
        values = np.asarray(image).astype(np.uint16, copy=False)[..., None]
    elif colour_type == GREY_ALPHA:
        # Pillow's RGBA has the four bytes of a pixel: two of grey, two of alpha
        values = np.asarray(_with_raw_mode(image, "RGBA")).view(">u2").astype(np.uint16)
    else:
        letters = "RGB" if colour_type == RGB else "RGBA"
        once = read_colour16(file, len(letters))
        values = _decoded_twice(file, image, letters) if once is None else once
    alpha = colour_type in (GREY_ALPHA, RGB_ALPHA)
    if key is not None and not alpha:
        values, alpha = _with_key(values, key), True
    kind = kind_of(values.dtype, 16, values.shape[2], alpha)
    return Raster(values, kind, (0, 65535), 16, alpha, rgb=True)


def _decoded_twice(file: BinaryIO, image: Image.Image, letters: str) -> np.ndarray:
    """Return the values of a 16-bit colour PNG, the upper and lower bytes one after the other."""
    lower = _with_raw_mode(_again(file), f"{letters};16L")  # the second byte of each value
    values = np.asarray(image).astype(np.uint16) << 8
    values |= np.asarray(lower)
    return values


def _again(file: BinaryIO) -> Image.Image:
    file.seek(0)
    return open_picture(file, ("PNG",))


def _with_raw_mode(image: Image.Image, raw: str) -> Image.Image:
    """Return a PNG that will be decoded with another arrangement of bytes of the same size."""
    picture: Any = image
    picture.tile = [with_args(picture.tile[0], raw)]
    return image


def with_args(tile: Any, args: Any) -> Any:
    """Return an entry of Pillow's list of what to decode with other arguments of the decoder."""
    if hasattr(tile, "_replace"):  # since Pillow 11 by name, which its decoder of TIFF relies on
        return tile._replace(args=args)
    return (*tile[:3], args)


def _read_deep_jpeg2000(
    file: BinaryIO, image: Image.Image, settings: ReadSettings
) -> Raster | None:
    """Return the values of a JPEG 2000 of more than 8 bits."""
    file.seek(_start_of_codestream(file))
    head = file.read(42)  # start of codestream, then image and tile size
    (bands,) = struct.unpack_from(">H", head, 40)
    each = file.read(3 * bands)[::3]
    bits, signed = max(byte & 0x7F for byte in each) + 1, bool(each[0] & 0x80)
    if bits <= 8:
        return None
    if bands > 1 or bits > 16 or not image.mode.startswith("I;16"):
        raise Refusal(
            f"is a JPEG 2000 image of {bands} bands of {bits} bits, of which only one band up to "
            "16 bits can be read whole; convert it to TIFF or 16-bit PNG"
        )
    shifted = (np.asarray(image) >> (16 - bits)).astype(np.int32)[..., None]
    dtype = np.dtype(np.int16 if signed else np.uint16)
    values = (shifted - (1 << bits - 1) * signed).astype(dtype)
    return Raster(values, kind_of(dtype, bits, 1), span_of(dtype, bits), bits)


def _start_of_codestream(file: BinaryIO) -> int:
    """Return where the image data of a JPEG 2000 file begin: at once, or in a box ``jp2c``."""
    file.seek(0)
    if file.read(4) == b"\xff\x4f\xff\x51":
        return 0
    at, end = 0, file.seek(0, 2)
    while at < end:
        file.seek(at)
        size, kind, long = struct.unpack(">I4sQ", file.read(16))
        if kind == b"jp2c":
            return at + (16 if size == 1 else 8)
        step = long if size == 1 else size or end
        if step < 8:  # no box is as small as its own head
            break
        at += step
    raise Refusal("is damaged: it has no image data; get the file again")


def _read_deep_pnm(file: BinaryIO, image: Image.Image, settings: ReadSettings) -> Raster | None:
    """Return the values of a PGM or PPM of more than 8 bits, which Pillow rescales."""
    file.seek(0)
    head = file.read(1 << 16)
    words: list[bytes] = []
    at = 0
    while len(words) < 4 and at < len(head):
        if head[at : at + 1].isspace():
            at += 1
        elif head[at : at + 1] == b"#":
            at = head.find(b"\n", at) if b"\n" in head[at:] else len(head)
        else:
            end = next((i for i in range(at, len(head)) if head[i : i + 1].isspace()), len(head))
            words.append(head[at:end])
            at = end
    if words[0] not in (b"P2", b"P3", b"P5", b"P6") or (top := int(words[3])) <= 255:
        return None
    bands = 1 if words[0] in (b"P2", b"P5") else 3
    file.seek(at + 1)
    width, height = image.size
    count = width * height * bands
    if words[0] in (b"P2", b"P3"):
        digits = re.sub(rb"#[^\n]*", b"", file.read()).split()[:count]
        stored = np.array(digits, np.int64)
        if ((stored < 0) | (stored > top)).any():
            raise Refusal(f"is damaged: it has values outside 0 to {top}; get the file again")
    else:
        stored = np.frombuffer(file.read(2 * count), ">u2")
    if len(stored) < count:
        raise Refusal("is truncated; get the file again")
    values = stored.reshape(height, width, bands).astype(np.uint16)
    bits = top.bit_length()
    return Raster(values, kind_of(values.dtype, bits, bands), (0, top), bits, rgb=bands == 3)


def _is_deep_avif(file: BinaryIO) -> bool:
    """Return whether an AVIF has more than 8 bits, which its decoder makes 8."""
    file.seek(0)
    head = file.read(1 << 14)
    at = head.find(b"av1C")
    return at >= 0 and bool(head[at + 6] & 0x40)


DEEP: dict[str, Callable[[BinaryIO, Image.Image, ReadSettings], Raster | None]] = {
    "PNG": _read_deep_png,
    "JPEG2000": _read_deep_jpeg2000,
    "PPM": _read_deep_pnm,
}
