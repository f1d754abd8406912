"""The image cache: keys, sizes, concurrent writers, errors."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dplq.errors import UserError
from dplq.images.cache import ImageCache
from dplq.images.reader import read_image
from dplq.images.settings import ReadSettings
from tests.images.noise import write_noise

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("images"))


def test_copies_are_keyed_by_content(images, tmp_path):
    cache = ImageCache()
    path = tmp_path / "x.jpg"
    path.write_bytes(Path(images[3]).read_bytes())
    copies = cache.copies([images[3], str(path), images[4]])
    first, second, third = copies.values()
    assert first == second != third
    assert np.array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(path)))
    written = os.stat(first).st_mtime_ns
    assert cache.copy(str(path)) == first
    assert os.stat(first).st_mtime_ns == written
    path.write_bytes(Path(images[5]).read_bytes())
    assert cache.copy(str(path)) not in (first, third)
    files = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert len(files) == 3
    assert {file.suffix for file in files} == {".ppm"}


def test_sizes_of_resized_copies(images):
    small, large = images[0], images[-1]
    sizes = {
        enlarge: [
            Image.open(ImageCache(40, "bicubic", enlarge).copy(path)).size
            for path in (small, large)
        ]
        for enlarge in (False, True)
    }
    assert sizes == {False: [(33, 24), (44, 40)], True: [(55, 40), (44, 40)]}


@pytest.mark.parametrize("content", [b"", b"P6 69 60 255\nabc", b"rubbish\n"])
def test_an_incomplete_copy_is_made_again(images, content):
    cache = ImageCache()
    copy = Path(cache.copy(images[1]))
    whole = copy.read_bytes()
    copy.write_bytes(content)
    assert cache.copy(images[1]) == str(copy)
    assert copy.read_bytes() == whole


def test_many_writers_at_once(images, tmp_path):
    paths = images * 8
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda path: ImageCache().copy(path), paths))
    assert len(copies) == len(images)
    assert {str(file) for file in (tmp_path / "cache").rglob("*.ppm*")} == copies


def test_copies_are_those_of_the_reader_and_its_settings(tmp_path):
    path = str(tmp_path / "x.png")
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    Image.fromarray(values).save(path)
    settings = [ReadSettings(window=(0, top)) for top in (599, 1198)]
    copies = [ImageCache(settings=s).copy(path) for s in settings]
    assert copies[0] != copies[1]
    for copy, s in zip(copies, settings, strict=True):
        assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(read_image(path, s)))


def test_cache_errors(images, tmp_path, monkeypatch):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.jpg is not an image.*; convert or remove it"):
        ImageCache().copies([str(broken)])
    (tmp_path / "file").touch()
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written to .*set DPLQ_CACHE .*IMAGE_CACHE emp"):
        ImageCache().copy(images[0])


def test_full_disk_leaves_no_copy(images, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"No space left on device\. Free some space"):
        ImageCache().copy(images[0])
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_flips_and_truncations_are_made_again_and_said_once(images, caplog):
    cache = ImageCache()
    (path,) = cache.copies(images[:1]).values()
    copy, draw = Path(path), random.Random(0)
    whole = copy.read_bytes()
    assert np.array_equal(np.asarray(Image.open(copy)), np.asarray(read_image(images[0])))
    bits = [*range(8 * 30), *(draw.randrange(8 * len(whole)) for _ in range(100))]
    damaged = [
        whole[: k // 8] + bytes([whole[k // 8] ^ 1 << k % 8]) + whole[k // 8 + 1 :] for k in bits
    ]
    damaged += [whole[: draw.randrange(len(whole))] for _ in range(20)]
    for content in damaged:
        caplog.clear()
        copy.write_bytes(content)
        cache.copies(images[:1])
        assert copy.read_bytes() == whole
        assert [record.getMessage() for record in caplog.records] == [
            f"1 copies in the image cache were damaged and are made again: {copy}"
        ]
    caplog.clear()
    cache.copies(images[:1])
    assert not caplog.records


def test_a_copy_does_not_pass_for_another_images(images):
    one, other = map(Path, ImageCache().copies(images[:2]).values())
    whole = other.read_bytes()
    other.write_bytes(one.read_bytes())
    assert ImageCache().copy(images[1]) == str(other)
    assert other.read_bytes() == whole


def test_temporaries_of_dead_runs_are_cleared(images):
    copy = Path(ImageCache().copy(images[0]))
    left = copy.with_name(".x.1-1.part.ppm")
    left.touch()
    os.utime(left, (1, 1))
    ImageCache().copy(images[0])
    assert left.exists()  # nothing was written
    copy.unlink()
    ImageCache().copy(images[0])
    assert list(copy.parent.iterdir()) == [copy]
