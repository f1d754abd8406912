"""16-bit colour PNG, of which Pillow keeps 8 bits, decoded once.

The filters of PNG work on each byte of a pixel alone. So the upper and the lower bytes of the
values can be taken apart while they are filtered, as two pictures of 8 bits, one below the other,
whose filters Pillow undoes.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image

START = 8  # bytes of the signature
HEADER = ">IIBBBBB"  # width, height, bit depth, colour type, compression, filter, interlacing
METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
LETTERS = {3: "RGB", 4: "RGBA"}


def read_colour16(file: BinaryIO, channels: int) -> np.ndarray | None:
    """Return the values of a PNG of 16 bits, (H, W, channels) uint16.

    Args:
        file: the file; any position.
        channels: 3 or 4.

    Returns:
        The values; None if it is interlaced, or has metadata after the image data, which Pillow
        reads only where it decodes the file.

    Raises:
        ValueError: the data are damaged or truncated; zlib's own error for some damage.
    """
    file.seek(START + 8)
    width, height, *_, interlaced = struct.unpack(HEADER, file.read(13))
    if interlaced:
        return None
    data = _image_data(file)
    if data is None:
        return None
    step = 2 * channels * width
    packed = zlib.decompressobj().decompress(data, height * (1 + step))
    if len(packed) < height * (1 + step):
        raise ValueError("image data end too early")
    rows = np.frombuffer(packed, np.uint8).reshape(height, 1 + step)
    if rows[:, 0].any():
        upper, lower = _unfiltered(rows, channels)
        values = upper.astype(np.uint16) << 8
        values |= lower
        return values
    plain = np.ascontiguousarray(rows[:, 1:]).view(">u2").astype(np.uint16)
    return plain.reshape(height, width, channels)


def _unfiltered(rows: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper and the lower bytes of filtered rows, (H, W, channels) each.

    Args:
        rows: (H, 1 + bytes of a row), the first byte is the row's filter.
        channels: 3 or 4.
    """
    height, step = len(rows), rows.shape[1] // 2
    both = np.empty((2 * height + 1, 1 + step), np.uint8)
    both[height] = 0  # the row between is black, as what is above a picture
    both[:height, 0] = both[height + 1 :, 0] = rows[:, 0]
    pairs = np.ascontiguousarray(rows[:, 1:]).view("<u2")  # upper bytes come first
    both[:height, 1:] = pairs & 255
    both[height + 1 :, 1:] = pairs >> 8
    mode, size = LETTERS[channels], (step // channels, len(both))
    image = Image.frombytes(mode, size, zlib.compress(both.data, 0), "zip", mode, 0)
    pixels = np.asarray(image)
    return pixels[:height], pixels[height + 1 :]


def _image_data(file: BinaryIO) -> bytes | None:
    """Return the content of the IDAT chunks, which follow each other; None if metadata follow."""
    file.seek(START)
    parts: list[bytes] = []
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT":
            parts.append(file.read(size))
        elif parts and kind in METADATA:
            return None
        elif kind == b"IEND":
            break
        else:
            file.seek(size, 1)
        file.seek(4, 1)  # checksum
    return b"".join(parts)
