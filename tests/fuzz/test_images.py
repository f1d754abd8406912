"""Image files with damaged bytes: 8-bit RGB of the size that the file has, or refused."""

from __future__ import annotations

import math
import warnings
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


@fuzzed(0.2, data=st.data(), edge=st.sampled_from([None, None, 8]))
def test_damaged_images(data, edge, files):
    name = data.draw(st.sampled_from(sorted(files.found)))
    whole, kind = files.found[name]
    settings = data.draw(st.sampled_from([kind.settings, kind.settings, *SETTINGS]))
    path = Path(files.folder) / f"x{kind.suffix}"
    path.write_bytes(data.draw(damaged(whole, head=200)))
    with untouched(files.folder):
        got = outcome(f"images: {family(kind)}", read, path, settings, edge)
    if not isinstance(got, Refusal):
        require_picture(got, settings, edge)
        is_smaller = any("of the size" in step for step in got[1].steps)  # as INPUT.MAX_PIXELS asks
        if not is_smaller and kind.suffix not in (".tif", ".dcm"):
            stated = size_by_pillow(path, settings.frame)
            assert stated in (None, sorted(got[0].size))
    path.unlink()
