"""Image files with damaged bytes: 8-bit RGB of the size that the file has, or refused."""

from __future__ import annotations

import contextlib
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from benchmarks.image_kinds import kinds
from dplq.images.reader import read_image, read_with_facts
from dplq.images.settings import DEFAULTS, ReadSettings
from tests.fuzz.campaign import Held, Refusal, fuzzed, outcome, untouched
from tests.fuzz.mutations import damaged

SETTINGS = (
    DEFAULTS,
    ReadSettings(window="percentile"),
    ReadSettings(window=(0, 1)),
    ReadSettings(frame=2),
    ReadSettings(bands=(3, 2, 1)),
    ReadSettings(max_pixels=1000),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of a file of every kind, and its settings; and a folder to write to."""
    folder = tmp_path_factory.mktemp("kinds")
    found = {}
    for kind in kinds():
        path = folder / f"x{kind.suffix}"
        kind.write(path)
        found[kind.name] = (path.read_bytes(), kind)
        path.unlink()
    return Held(found=found, folder=folder)


def family(kind):
    """Return the first word of a kind's name: the container."""
    return kind.name.split()[0].rstrip(",")


def read(path, settings, edge):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the decoders', of damaged metadata
        image, facts = read_with_facts(path, settings)
        again = read_image(path, settings, edge=edge)
    return image, facts, again


def require_picture(got, settings, edge):
    image, facts, again = got
    for picture in (image, again):
        assert (picture.mode, np.asarray(picture).dtype) == ("RGB", np.uint8)
        assert min(picture.size) >= 1
        assert picture.width * picture.height <= settings.max_pixels
    assert image.size == (facts.width, facts.height)
    if edge is None:
        assert image.tobytes() == again.tobytes()
    else:
        assert min(again.size) >= min(edge, *image.size)
    numbers = [facts.low, facts.high, *(facts.most or ()), *(facts.span or ())]
    assert all(math.isfinite(number) for number in numbers if number is not None)
    assert facts.frames >= 1
    assert facts.bands >= 1
    assert 1 <= facts.orientation <= 8


@st.composite
def damaged_chunks(draw, whole):
    """Draw a PNG file of which one chunk is damaged and has the right checksum all the same."""
    chunks, at = [], 8
    while at < len(whole):
        (length,) = struct.unpack(">I", whole[at : at + 4])
        chunks.append((whole[at + 4 : at + 8], whole[at + 8 : at + 8 + length]))
        at += 12 + length
    number = draw(st.integers(0, len(chunks) - 1))
    name, content = chunks[number]
    is_packed = name == b"IDAT" and number and chunks[number - 1][0] != b"IDAT"
    if is_packed and draw(st.booleans()):
        with contextlib.suppress(zlib.error):
            content = zlib.decompress(content)
            content = zlib.compress(draw(damaged(content, head=100)))
    else:
        content = draw(damaged(content))
    chunks[number] = (name, content)
    if draw(st.sampled_from([0, 0, 0, 1])):
        chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from(chunks)))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return whole[:8] + b"".join(parts)


def size_by_pillow(path, frame):
    """Return the size of a file as Pillow states it, both ways round; None if it cannot."""
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")
            if frame > 1:
                image.seek(frame - 1)
            return sorted(image.size)
    except Exception:
        return None


def tried(kind, content, settings, edge, folder):
    """Read a file of this content; require what it must be."""
    path = Path(folder) / f"x{kind.suffix}"
    path.write_bytes(content)
    with untouched(folder):
        got = outcome(f"images: {family(kind)}", read, path, settings, edge)
    if not isinstance(got, Refusal):
        require_picture(got, settings, edge)
        is_smaller = any("of the size" in step for step in got[1].steps)  # as INPUT.MAX_PIXELS asks
        if not is_smaller and kind.suffix not in (".tif", ".dcm"):
            stated = size_by_pillow(path, settings.frame)
            assert stated in (None, sorted(got[0].size))
    path.unlink()


EDGES = st.sampled_from([None, None, 8])


@fuzzed(0.13, data=st.data(), edge=EDGES)
def test_damaged_images(data, edge, files):
    whole, kind = files.found[data.draw(st.sampled_from(sorted(files.found)))]
    settings = data.draw(st.sampled_from([kind.settings, kind.settings, *SETTINGS]))
    tried(kind, data.draw(damaged(whole, head=200)), settings, edge, files.folder)


@fuzzed(0.05, data=st.data(), edge=EDGES)
def test_damaged_chunks_of_png(data, edge, files):
    names = sorted(name for name, (_, kind) in files.found.items() if kind.suffix == ".png")
    whole, kind = files.found[data.draw(st.sampled_from(names))]
    settings = data.draw(st.sampled_from([kind.settings, kind.settings, *SETTINGS]))
    tried(kind, data.draw(damaged_chunks(whole)), settings, edge, files.folder)
