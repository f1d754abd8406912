"""16-bit colour PNG: every filter, both numbers of channels, and what is left to Pillow."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from dplq.errors import UserError
from dplq.images.png import read_colour16
from dplq.images.reader import read_image, read_with_facts

HEIGHT, WIDTH = 11, 7
FILTERS = ("none", "sub", "up", "average", "paeth")


def paeth(left, above, corner):
    """The predictor of the PNG standard, section 9.4."""
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))


PREDICTORS = (
    lambda left, above, corner: 0,
    lambda left, above, corner: left,
    lambda left, above, corner: above,
    lambda left, above, corner: (left + above) // 2,
    paeth,
)


def filtered(values, filters):
    """The bytes of an image before compression, one by one as the standard has it."""
    rows = values.astype(">u2").reshape(len(values), -1).view(np.uint8).tolist()
    step, before, out = 2 * values.shape[2], [0] * len(rows[0]), bytearray()
    for row, number in zip(rows, filters, strict=True):
        out.append(number)
        for i, value in enumerate(row):
            left, corner = (row[i - step], before[i - step]) if i >= step else (0, 0)
            out.append((value - PREDICTORS[min(number, 4)](left, before[i], corner)) % 256)
        before = row
    return bytes(out)


def write(path, values, data, *, pieces=3, interlaced=0, after=()):
    """Write a PNG of given data, in several IDAT chunks, with chunks after them."""
    height, width, channels = values.shape
    colour_type = {3: 2, 4: 6}[channels]
    packed = zlib.compress(data)
    cut = -(-len(packed) // pieces)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)),
        *((b"IDAT", packed[i : i + cut]) for i in range(0, len(packed), cut)),
        *after,
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
             for t, d in chunks]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def noise(channels, height=HEIGHT, width=WIDTH):
    values = np.random.default_rng(0).integers(0, 65536, (height, width, channels), np.uint16)
    values[..., 3:] = 65535
    return values


def shown(values):
    return np.floor(values[..., :3] / 257 + 0.5)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("number", range(5), ids=FILTERS)
def test_every_filter(number, channels, tmp_path):
    values = noise(channels)
    write(tmp_path / "x.png", values, filtered(values, [number] * HEIGHT))
    with open(tmp_path / "x.png", "rb") as file:
        assert np.array_equal(read_colour16(file, channels), values)
    assert np.array_equal(read_image(tmp_path / "x.png"), shown(values))


@pytest.mark.parametrize("seed", range(20))
def test_filters_that_change_from_row_to_row(seed, tmp_path):
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 9, 2)
    values = noise(int(random.integers(3, 5)), height, width)
    write(tmp_path / "x.png", values, filtered(values, random.integers(0, 5, height)))
    with open(tmp_path / "x.png", "rb") as file:
        assert np.array_equal(read_colour16(file, values.shape[2]), values)


def test_interlaced_files_and_late_metadata_are_decoded_by_pillow(tmp_path):
    values = noise(3)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1))  # fmt: skip
    parts = [values[top::down, left::right] for top, left, down, right in passes]
    data = b"".join(filtered(part, [4] * len(part)) for part in parts if part.size)
    write(tmp_path / "interlaced.png", values, data, interlaced=1)
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = filtered(values, [4] * HEIGHT)
    write(tmp_path / "late.png", values, data, after=[(b"eXIf", turned)])
    for name in ("interlaced", "late"):
        with open(tmp_path / f"{name}.png", "rb") as file:
            assert read_colour16(file, 3) is None
    assert np.array_equal(read_image(tmp_path / "interlaced.png"), shown(values))
    image, facts = read_with_facts(tmp_path / "late.png")
    assert facts.orientation == 6
    assert np.array_equal(image, shown(values).swapaxes(0, 1)[:, ::-1])


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_image(path)
    return str(caught.value)


@pytest.mark.parametrize("number", [0, 4])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(share, number, tmp_path):
    path = tmp_path / "x.png"
    values = noise(3, 60, 60)
    write(path, values, filtered(values, [number] * 60))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "damaged or truncated" in refusal(path)


def test_damaged_files_are_refused(tmp_path):
    values = noise(3)
    data = filtered(values, [4] * HEIGHT)
    write(tmp_path / "short.png", values, data[:-20])
    write(tmp_path / "filter.png", values, filtered(values, [*([4] * (HEIGHT - 1)), 9]))
    write(tmp_path / "zlib.png", values, data)
    content = bytearray((tmp_path / "zlib.png").read_bytes())
    at = content.index(b"IDAT")
    content[at + 4 : at + 40] = bytes(36)
    (tmp_path / "zlib.png").write_bytes(content)
    for name in ("short", "filter", "zlib"):
        assert "damaged or truncated" in refusal(tmp_path / f"{name}.png")
