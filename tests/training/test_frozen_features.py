"""Loaders with known features: the same batches, and what a file with features depends on."""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torchvision import transforms as T

import dplq.training.loaders
import dplq.training.seeding
from dplq.errors import UserError
from dplq.methods.coop import CoOpModel
from dplq.training.feature_cache import features_folder
from dplq.training.frozen.description import describe
from dplq.training.frozen.features import CODE, FrozenFeatures
from dplq.training.frozen.loader import FROZEN, FrozenLoader
from dplq.training.loaders import AcceleratedImages, accelerate_loader
from dplq.training.seeding import RandomState, seed_all
from tests.tiny import tiny_backbone
from tests.training.test_loaders import config
from tests.training.test_loaders import loader as dassl_loader

LIMIT = 10**9


@pytest.fixture(scope="module")
def model():
    return CoOpModel(tiny_backbone(), ["a", "b", "c"], seed=0, n_ctx=2)


@pytest.fixture(autouse=True)
def end_workers():
    yield
    while Passes.made:
        Passes.made.pop().close()


class Passes:
    """Passes over a loader, as a trainer makes them; the loaders of a test are closed after it."""

    made: ClassVar[list] = []

    def __init__(self, model, images, *, workers=0, is_train=True, limit=LIMIT, facts=(), cfg=None):
        cfg = config(workers) if cfg is None else cfg
        self.features = FrozenFeatures(model, dict(facts), limit, lambda: 2)
        quick = accelerate_loader(dassl_loader(cfg, images, is_train), cfg, is_train=is_train)
        self.made.append(quick)
        self.loader = FrozenLoader(quick, lambda: self.features, draws=is_train)
        self.model = model

    def make(self, seed=5, step=lambda: None):
        """Return the batches of a pass, their features, and the generators' state after it."""
        seed_all(seed)
        found = []
        for batch in self.loader:
            self.features.attach(batch, batch["img"])
            found.append((batch, self.model.encode_frozen(batch["img"])))
            step()
        assert self.model.frozen_batch is None
        return found, RandomState.now()


def resized(image, size, turn=False):
    return image.resize((size, size)).rotate(90 if turn else 0)


def no_reading(monkeypatch):
    """Have every image that is read fail."""

    def read(self, index):
        raise AssertionError("an image was read")

    monkeypatch.setattr(AcceleratedImages, "__getitem__", read)


def files():
    return sorted(features_folder().glob("*.safetensors"))


@pytest.mark.parametrize("is_train", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_known_pass_is_the_same_without_images(model, images, workers, is_train, monkeypatch):
    """Order, labels, features and the state of the generators, bit for bit."""
    first = Passes(model, images, workers=workers, is_train=is_train)
    plain = first.loader.loader
    seed_all(5)
    expected = [(batch, model.clip.encode_image(batch["img"])) for batch in plain]
    state = RandomState.now()
    recorded, after_recording = Passes(model, images, workers=workers, is_train=is_train).make()
    assert after_recording == state
    assert len(files()) == 1
    no_reading(monkeypatch)
    known, after = Passes(model, images, workers=workers, is_train=is_train).make()
    assert after == state
    for (want, features), *others in zip(expected, recorded, known, strict=True):
        for batch, found in others:
            assert torch.equal(found, features)
            assert batch["impath"] == want["impath"]
            for key in ("label", "domain", "index"):
                assert torch.equal(batch[key], want[key])
                assert batch[key].dtype == want[key].dtype
    assert known[0][0]["img"].shape == (4, 3, 0, 0)


def test_several_passes_go_on_from_each_other(model, images, monkeypatch):
    """The views of a second pass follow from the generators that the first one leaves."""
    seed_all(1)
    passes = Passes(model, images)
    recorded = [[batch["impath"] for batch, _ in passes.make(5 + n)[0]] for n in range(2)]
    seed_all(9)
    first = list(passes.loader.loader), list(passes.loader.loader)
    seed_all(9)
    for batches in first:
        for batch, want in zip(passes.loader, batches, strict=True):
            passes.features.attach(batch, batch["img"])
            assert torch.equal(batch["img"], want["img"])
            model.encode_frozen(batch["img"])
    no_reading(monkeypatch)
    seed_all(9)
    for batches in first:
        for batch, want in zip(passes.loader, batches, strict=True):
            passes.features.attach(batch, batch["img"])
            assert torch.equal(
                model.encode_frozen(batch["img"]), model.clip.encode_image(want["img"])
            )
    assert recorded[0] != recorded[1]


def changed(name, images, model, tmp_path):
    """Return the arguments of `Passes` with one thing changed, and the seed."""
    arguments, seed, cfg = {}, 5, config()
    if name == "seed":
        seed = 6
    elif name == "crop":
        cfg.INPUT.TRANSFORMS = ("random_resized_crop", "normalize")
    elif name == "batches":
        images = images[:8] + images[9:]
    elif name == "facts":
        arguments["facts"] = {"precision": "amp"}
    elif name == "encoder":
        model = CoOpModel(tiny_backbone(seed=1), ["a", "b", "c"], seed=0, n_ctx=2)
    elif name == "content":
        Datum, path = type(images[0]), tmp_path / Path(images[0].impath).name
        path.write_bytes(Path(images[1].impath).read_bytes())
        images = [Datum(str(path), 0, 0, "class 0"), *images[1:]]
    elif name == "order":
        images = images[::-1]
    elif name == "workers":
        cfg = config(2)
    return Passes(model, images, cfg=cfg, **arguments), seed


@pytest.mark.parametrize(
    "name", ["seed", "crop", "batches", "facts", "encoder", "content", "order", "workers"]
)
def test_whatever_decides_a_feature_is_part_of_the_key(name, model, images, tmp_path):
    Passes(model, images).make()
    passes, seed = changed(name, images, model, tmp_path)
    found, _ = passes.make(seed)
    assert len(files()) == 2
    assert found[0][0]["img"].shape == (4, 3, 32, 32)


def with_transform(passes, *steps):
    """Return passes with these steps before the last, which makes pixels."""
    images = passes.loader.loader.dataset.images
    images.transform = T.Compose([*steps, images.transform.transforms[-1]])
    return passes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (T.RandomResizedCrop(32, (0.08, 1)), T.RandomResizedCrop(32, (0.5, 1))),
        (
            T.Compose([T.Resize((32, 32)), T.RandomHorizontalFlip(0.5)]),
            T.Compose([T.Resize((32, 32)), T.RandomHorizontalFlip(0.9)]),
        ),
        (partial(resized, size=32), partial(resized, size=32, turn=True)),
        (lambda image: resized(image, 32), lambda image: resized(image, 32, True)),
    ],
    ids=["crop", "nested", "partial", "lambda"],
)
def test_parameters_of_transforms_are_part_of_the_key(one, other, model, images):
    for number, step in enumerate((one, other), start=1):
        for _ in range(2):  # the second is a hit
            with_transform(Passes(model, images), step).make()
            assert len(files()) == number


def test_the_wrapper_of_the_images_and_the_normalizer_are_part_of_the_key(model, images):
    from dassl.data.data_manager import DatasetWrapper

    class Mirrored(DatasetWrapper):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "img": item["img"].flip(1)}

    Passes(model, images).make()
    passes = Passes(model, images)
    passes.loader.loader.dataset.images.__class__ = Mirrored
    passes.make()
    assert len(files()) == 2
    passes = Passes(model, images)
    passes.loader.loader.normalizer.table *= 2
    passes.make()
    assert len(files()) == 3


def test_descriptions_differ_where_objects_do():
    def scaled(factor):
        return lambda image: image * factor

    class Locked:
        def __init__(self, value):
            self.value, self.lock = value, threading.Lock()

    assert describe(scaled(2)) == describe(scaled(2)) != describe(scaled(3))
    assert describe(Locked(1)) == describe(Locked(1)) != describe(Locked(2))
    for make in (np.random.default_rng, random.Random, lambda seed: torch.full((2,), seed)):
        assert describe(make(1)) == describe(make(1)) != describe(make(2))
    namespace = {}
    for text in ("1", "2"):
        exec(f"def f{text}(): return {text}", namespace)
        namespace[f"f{text}"].__qualname__ = "f"
    assert describe(namespace["f1"]) != describe(namespace["f2"])
    circle = []
    circle.append(circle)
    assert describe(circle) == ["part of itself"]


def test_the_code_that_makes_views_is_part_of_the_key():
    for module in (dplq.training.loaders, dplq.training.seeding):
        assert Path(module.__file__).relative_to(Path(dplq.__file__).parent).as_posix() in CODE
    assert "_fallback/dassl" in CODE


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_are_part_of_the_key_where_the_order_is_fixed(model, images, workers):
    """As of the augmented views that heads are fitted to."""
    passes = Passes(model, images, workers=workers, is_train=False)
    passes.loader.draws = True
    for number, seed in enumerate((5, 6), start=1):
        passes.make(seed)
        assert len(files()) == number


def test_views_without_the_state_that_follows_are_not_used(model, images):
    from dplq.io import checkpoint

    Passes(model, images).make()
    (path,) = files()
    tensors, header = checkpoint.read(path)
    checkpoint.save(path, tensors, {key: header[key] for key in header if key != "random"})
    found, _ = Passes(model, images).make()
    assert found[0][0]["img"].shape == (4, 3, 32, 32)


def test_names_and_folders_of_images_are_no_part_of_the_key(model, images, tmp_path):
    Passes(model, images).make()
    for number, item in enumerate(images):
        (tmp_path / f"{number}.jpg").write_bytes(Path(item.impath).read_bytes())
    moved = [
        type(item)(str(tmp_path / f"{n}.jpg"), item.label, 0, item.classname)
        for n, item in enumerate(images)
    ]
    found, _ = Passes(model, moved).make()
    assert len(files()) == 1
    assert found[0][0]["img"].shape == (4, 3, 0, 0)
    assert all(Path(path).parent == tmp_path for batch, _ in found for path in batch["impath"])


def test_threads_are_part_of_the_key(model, images):
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            Passes(model, images).make()
            assert len(files()) == number
    finally:
        torch.set_num_threads(threads)


def test_a_step_that_draws_is_not_shared(model, images):
    """The views after its draws depend on the method: nothing is kept, nothing is used."""
    found, _ = Passes(model, images).make(step=lambda: torch.rand(1))
    assert files() == []
    recorded, _ = Passes(model, images).make()
    with pytest.raises(RuntimeError, match="CoOpModel draws from global generators in a step"):
        Passes(model, images).make(step=random.random)
    assert not torch.equal(found[1][1], recorded[1][1])


def test_a_model_that_needs_images_gets_them(model, images, monkeypatch):
    """Its features are known all the same, up to a draw of its own."""
    Passes(model, images).make()
    monkeypatch.setattr(CoOpModel, "needs_images", True)
    monkeypatch.setattr(CoOpModel, "frozen_inputs", ("clip",))
    found, state = Passes(model, images).make()
    seed_all(5)
    passes = Passes(model, images)
    plain = list(passes.loader.loader)
    assert RandomState.now() == state
    for (batch, features), want in zip(found, plain, strict=True):
        assert torch.equal(batch["img"], want["img"])
        assert batch[FROZEN].known["clip"] is not None
        assert torch.equal(features, model.clip.encode_image(want["img"]))
    drawn, _ = passes.make(step=lambda: torch.rand(1))
    assert [bool(batch[FROZEN].known) for batch, _ in drawn] == [True, False, False]
    for batch, features in drawn:
        assert torch.equal(features, model.clip.encode_image(batch["img"]))


def test_other_images_get_features_of_their_own(model, images):
    """Known features belong to the very tensor of the loader."""
    Passes(model, images).make()
    passes = Passes(model, images)
    seed_all(5)
    batch = next(iter(passes.loader))
    passes.features.attach(batch, batch["img"])
    other = torch.randn(4, 3, 32, 32)
    assert torch.equal(model.encode_frozen(other), model.clip.encode_image(other))
    with pytest.raises(UserError, match="images of 0x0 pixels"):
        model.encode_frozen(batch["img"].clone())
    passes.features.detach()


def test_a_seed_given_twice_in_a_row_is_not_shared(model, images):
    """Worker processes that live on are not seeded anew by it."""
    passes = Passes(model, images, workers=1)
    first, _ = passes.make()
    (path,) = files()
    path.unlink()
    second, _ = passes.make()
    assert not torch.equal(first[0][1], second[0][1])
    assert files() == []


def test_a_damaged_file_is_said_once_and_made_again(model, images, caplog):
    want, _ = Passes(model, images).make()
    (path,) = files()
    whole = path.read_bytes()
    draw = random.Random(0)
    for _ in range(4):
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        caplog.clear()
        found, _ = Passes(model, images).make()
        for (_, one), (_, other) in zip(want, found, strict=True):
            assert torch.equal(one, other)
        assert path.read_bytes() == whole
        (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert said.startswith(str(path))
        assert said.endswith("The features are computed again.")


def test_features_of_other_images_are_not_used(model, images, caplog):
    from dplq.io import checkpoint

    Passes(model, images).make()
    (path,) = files()
    tensors, header = checkpoint.read(path)
    for wrong in ({"features": tensors["features"][:-1]}, {}, {"features": torch.ones(12).long()}):
        checkpoint.save(path, wrong, header)
        found, _ = Passes(model, images).make()
        assert found[0][0]["img"].shape == (4, 3, 32, 32)
    assert "does not hold the features of 12 images" in caplog.text


def test_a_full_disk_only_warns(model, images, monkeypatch, caplog):
    def full(*args):
        raise UserError("No space left on device.")

    monkeypatch.setattr("dplq.io.checkpoint.save", full)
    found, _ = Passes(model, images).make()
    assert len(found) == 3
    assert "Features are not kept: No space left on device." in caplog.text


def test_features_unused_for_the_longest_time_are_removed(model, images, caplog):
    caplog.set_level(logging.INFO)
    passes = Passes(model, images)
    for seed in range(3):
        passes.make(seed)
        for age, path in enumerate(sorted(files(), key=os.path.getmtime, reverse=True)):
            os.utime(path, (1e9 - 100 * age, 1e9 - 100 * age))
    oldest, middle, newest = sorted(files(), key=os.path.getmtime)
    size = sum(path.stat().st_size for path in files())
    limited = Passes(model, images, limit=size + 10)
    limited.make(0)  # used: no longer the oldest
    limited.make(7)
    assert len(files()) == 3
    assert middle not in files()
    assert oldest in files()
    assert newest in files()
    assert caplog.text.count("features that were not used for the longest time are removed") == 1


def test_a_run_larger_than_the_limit_keeps_nothing(model, images, caplog):
    caplog.set_level(logging.INFO)
    passes = Passes(model, images, limit=2 * 12 * 48 * 4 - 1)  # two passes of 12 rows of 48
    for seed in range(2):
        passes.make(seed)
    assert files() == []
    (said,) = [r.getMessage() for r in caplog.records if "not kept" in r.getMessage()]
    assert "those of this run are 4.61e-06 GB, and TRAIN.FEATURE_CACHE is 4.607e-06" in said


def test_a_run_larger_than_the_limit_digests_no_image(model, images, monkeypatch):
    """The decision comes before the digests, which read every file."""
    digested = []

    def digest(self, path):
        digested.append(path)
        return path

    monkeypatch.setattr(FrozenFeatures, "image_digest", digest)
    seed_all(5)
    plain = list(Passes(model, images).loader.loader)
    state = RandomState.now()
    found, after = Passes(model, images, limit=2 * 12 * 48 * 4 - 1).make()
    assert after == state
    for (batch, _), want in zip(found, plain, strict=True):
        assert torch.equal(batch["img"], want["img"])
        assert FROZEN not in batch
    assert digested == []
    Passes(model, images, limit=2 * 12 * 48 * 4).make()
    assert len(digested) == 12


def test_the_limit_is_of_all_encoders_together(model, images, caplog):
    caplog.set_level(logging.INFO)
    clip = model.unchanged_clip
    both = SimpleNamespace(
        frozen_inputs=("clip", "domain"),
        domain=SimpleNamespace(feature_dim=16, identity=dict),
        **{"unchanged_clip": clip, "clip": clip},
    )
    size = 12 * (48 * 2 + 16 * 4)  # CLIP's in half precision, the domain encoder's in single
    features = FrozenFeatures(both, {}, size - 1, lambda: 2, torch.bfloat16)
    assert not features.has_place(12, 1)
    assert "Frozen features are not kept: those of this run are 1.92e-06 GB" in caplog.text
    features = FrozenFeatures(both, {}, size, lambda: 2, torch.bfloat16)
    assert features.has_place(12, 1)
    features.write("views", {"clip": [torch.ones(12, 48)]}, None, 1)  # in single, too
    assert files() == []
    assert not features.has_place(12, 1)


def test_a_pass_that_ends_early_keeps_nothing(model, images):
    passes = Passes(model, images)
    seed_all(5)
    for batch in itertools.islice(passes.loader, 2):
        passes.features.attach(batch, batch["img"])
        model.encode_frozen(batch["img"])
    assert files() == []


def test_an_image_that_is_gone_is_the_loaders_to_report(model, images, tmp_path):
    (tmp_path / "x.jpg").write_bytes(Path(images[0].impath).read_bytes())
    passes = Passes(model, [*images, type(images[0])(str(tmp_path / "x.jpg"))], is_train=False)
    (tmp_path / "x.jpg").unlink()
    with pytest.raises(UserError, match=r"/x\.jpg"):
        passes.make()


def test_state_of_generators_as_text():
    seed_all(3)
    random.gauss(0, 1), np.random.randn()
    state = RandomState.now()
    want = torch.rand(2), random.random(), random.gauss(0, 1), np.random.randn()
    RandomState.from_text(state.to_text()).restore()
    assert torch.equal(torch.rand(2), want[0])
    assert (random.random(), random.gauss(0, 1), np.random.randn()) == want[1:]
    with pytest.raises(ValueError, match="no state of generators"):
        RandomState.from_text("[1, 2, 3]")
