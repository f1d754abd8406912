"""Caches: damage costs time, never a result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image

from dplq.datasets._engine.images import CHECKED_FILE, ImageCheck, _checksum
from dplq.datasets._engine.store import Store
from dplq.images.cache import ImageCache
from dplq.images.reader import ImageFacts, read_image
from dplq.io import checkpoint
from dplq.io.spec import Spec
from dplq.training.feature_cache import FeatureCache
from tests.fuzz.campaign import Held, fuzzed, outcome, untouched
from tests.fuzz.mutations import as_json, damaged, json_files, trees
from tests.images.noise import write_noise


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A folder with images, and a cache folder beside it."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPLQ_CACHE", str(folder / "cache"))
        (folder / "images").mkdir()
        yield Held(images=folder / "images", paths=write_noise(folder / "images")[:4])


class Encoder(torch.nn.Linear):
    spec = Spec("test")
    feature_dim = 4

    def identity(self):
        return self.state_dict()


@pytest.fixture(scope="module")
def features(home):
    """The cache of an encoder, the features in it, the bytes of its file."""
    torch.manual_seed(0)
    encoder, rows = Encoder(2, 4), torch.randn(len(home.paths), 4)
    cache = FeatureCache(encoder, {"size": 32})
    cache.put(home.paths, rows)
    cache.write()
    return Held(encoder=encoder, rows=rows, path=cache.path, whole=cache.path.read_bytes())


def cached(features, paths):
    return FeatureCache(features.encoder, {"size": 32}).get(paths)


@fuzzed(0.04, data=st.data())
def test_bytes_of_the_feature_cache(data, features, home):
    content = data.draw(damaged(features.whole, head=600))
    features.path.write_bytes(content)
    with untouched(home.images):
        got = outcome("feature cache, bytes", cached, features, home.paths)
    if content == features.whole:
        assert torch.equal(got, features.rows)
    else:
        assert got is None


@fuzzed(0.02, data=st.data())
def test_headers_of_the_feature_cache(data, features, home):
    features.path.write_bytes(features.whole)
    tensors, header = checkpoint.read(features.path)
    header = data.draw(trees(header))
    if isinstance(header, dict):
        try:
            checkpoint.save(features.path, tensors, header)
        except Exception:  # no header that any version can have written
            return
    got = outcome("feature cache, headers", cached, features, home.paths)
    assert got is None or torch.equal(got, features.rows)


@fuzzed(0.04, data=st.data(), number=st.integers(0, 3), resized=st.booleans())
def test_bytes_of_image_copies(data, number, resized, home):
    """What is used is the image, whatever lies in the cache."""
    cache, path = ImageCache(16 if resized else None, enlarge=resized), home.paths[number]
    copy = Path(cache.copy(path))
    whole = copy.read_bytes()
    copy.write_bytes(data.draw(damaged(whole, head=40)))
    with untouched(home.images):
        got = outcome("image copies", cache.copies, [path])
    assert got == {path: str(copy)}
    assert copy.read_bytes() == whole
    if not resized:
        with Image.open(copy) as image:
            assert np.array_equal(np.asarray(image), np.asarray(read_image(path)))


@pytest.fixture(scope="module")
def checked(home):
    """A folder with good images and a broken one, and the record of the good ones."""
    (home.images / "broken.jpg").write_bytes(Path(home.paths[0]).read_bytes()[:400])
    store = Store(str(home.images), "Toy")
    names = [*(Path(path).name for path in home.paths), "broken.jpg"]
    assert list(ImageCheck(str(home.images), store).broken(names)) == ["broken.jpg"]
    path = store.find(CHECKED_FILE)
    return Held(store=store, names=names, path=path, content=json.loads(path.read_bytes()))


def check(checked, folder):
    check = ImageCheck(str(folder), checked.store)
    return check.broken(checked.names), check.facts


def require_checked(got, checked):
    broken, facts = got
    assert list(broken) == ["broken.jpg"]
    assert set(facts) == set(checked.names) - {"broken.jpg"}
    assert all(isinstance(fact, ImageFacts) for fact in facts.values())


@fuzzed(0.04, data=st.data())
def test_the_record_of_checked_images(data, checked, home):
    """However it is damaged, the broken image is found, and the good ones are described."""
    content = data.draw(json_files(checked.content))
    checked.path.write_bytes(content)
    with untouched(home.images):
        got = outcome("images_checked.json", check, checked, home.images)
    require_checked(got, checked)


@fuzzed(0.02, data=st.data())
def test_entries_of_the_record(data, checked, home):
    """Entries that have the right checksum, but were written by no version."""
    entries = data.draw(trees(checked.content["images"]))
    try:
        digest = _checksum(entries)
    except (ValueError, UnicodeError):
        return
    checked.path.write_bytes(as_json({"checksum": digest, "images": entries}))
    got = outcome("images_checked.json", check, checked, home.images)
    require_checked(got, checked)
