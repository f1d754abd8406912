"""The cache of domain features: what is stored, and what its key depends on."""

from __future__ import annotations

import logging
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from dplq.domain.load import load_domain_encoder
from dplq.errors import UserError
from dplq.io import checkpoint
from dplq.io.spec import Spec
from dplq.training.feature_cache import FeatureCache
from tests.tiny import tiny_backbone

PREPARATION = {"size": 32}


class Encoder(torch.nn.Linear):
    spec = Spec("test")

    def identity(self):
        return self.state_dict()


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return Encoder(2, 3)


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in paths:
        path.write_text(path.stem)
    return [str(path) for path in paths]


def test_features_come_back_by_content(encoder, files, tmp_path):
    features = torch.randn(3, 4)
    cache = FeatureCache(encoder, PREPARATION)
    assert cache.get(files) is None
    cache.put(files, features)
    cache.write()
    moved = tmp_path / "elsewhere.jpg"
    moved.write_text("b")
    again = FeatureCache(encoder, PREPARATION)
    assert torch.equal(again.get([str(moved), files[0]]), features[[1, 0]])
    moved.write_text("changed")
    assert FeatureCache(encoder, PREPARATION).get([str(moved)]) is None


def test_other_weights_or_inputs_are_another_cache(encoder, files):
    first = FeatureCache(encoder, PREPARATION)
    assert FeatureCache(encoder, PREPARATION).path == first.path
    assert FeatureCache(encoder, {"size": 64}).path != first.path
    with torch.no_grad():
        encoder.weight[0, 0] += 1e-6
    assert FeatureCache(encoder, PREPARATION).path != first.path


def test_two_runs_add_to_each_other(encoder, files):
    runs = [FeatureCache(encoder, PREPARATION) for _ in range(2)]
    for run, name in zip(runs, files, strict=False):
        run.put([name], torch.ones(1, 4))
        run.write()
    assert FeatureCache(encoder, PREPARATION).get(files[:2]).shape == (2, 4)


def test_a_damaged_file_and_a_full_disk_only_warn(encoder, files, monkeypatch, caplog):
    cache = FeatureCache(encoder, PREPARATION)
    cache.path.parent.mkdir(parents=True)
    cache.path.write_bytes(b"not safetensors")
    with caplog.at_level(logging.WARNING):
        cache = FeatureCache(encoder, PREPARATION)
    assert "computed again" in caplog.text

    def full(*args):
        raise UserError("No space left on device.")

    monkeypatch.setattr("dplq.io.checkpoint.save", full)
    cache.put(files, torch.ones(3, 4))
    with caplog.at_level(logging.WARNING):
        cache.write()
    assert "not kept: No space left on device." in caplog.text
    assert torch.equal(cache.get(files), torch.ones(3, 4))


def test_clips_own_feature_depends_on_the_clip(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path))
    paths = {
        FeatureCache(load_domain_encoder("clip", backbone=tiny_backbone(seed=seed)), {}).path
        for seed in (0, 1, 1)
    }
    assert len(paths) == 2


def test_many_runs_write_one_file(encoder, files):
    caches = [FeatureCache(encoder, PREPARATION) for _ in range(8)]
    for cache in caches:
        cache.put(files, torch.ones(3, 4))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(FeatureCache.write, caches))
    assert torch.equal(FeatureCache(encoder, PREPARATION).get(files), torch.ones(3, 4))
    assert [path.suffix for path in caches[0].path.parent.iterdir()] == [".safetensors"]


def test_flips_and_truncations_are_recomputed_and_said_once(encoder, files, caplog):
    features = torch.randn(3, 4)
    cache = FeatureCache(encoder, PREPARATION)
    cache.put(files, features)
    cache.write()
    whole = cache.path.read_bytes()
    draw = random.Random(0)
    bits = [draw.randrange(8 * len(whole)) for _ in range(100)]
    damaged = [bytes(b ^ (1 << k % 8) * (i == k // 8) for i, b in enumerate(whole)) for k in bits]
    damaged += [whole[: draw.randrange(len(whole))] for _ in range(20)]
    for content in damaged:
        caplog.clear()
        cache.path.write_bytes(content)
        again = FeatureCache(encoder, PREPARATION)
        assert again.get(files) is None
        again.put(files, features)
        again.write()
        assert cache.path.read_bytes() == whole
        (said,) = [record.getMessage() for record in caplog.records]
        assert said.startswith(str(cache.path))
        assert said.endswith("The features are computed again.")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, header: tensors.pop("files"),
        lambda tensors, header: tensors.update(features=torch.ones(2, 4)),
        lambda tensors, header: tensors.update(features=torch.ones(3)),
        lambda tensors, header: tensors.update(features=torch.ones(3, 4).half()),
        lambda tensors, header: tensors["features"].fill_(float("nan")),
        lambda tensors, header: tensors.update(files=torch.ones(3, 16)),
        lambda tensors, header: tensors.update(files=torch.ones(3, 8, dtype=torch.uint8)),
        lambda tensors, header: header.update(key="another encoder's"),
        lambda tensors, header: header.update(format=1),
    ],
)
def test_what_is_no_cache_of_this_encoder_is_not_used(change, encoder, files, caplog):
    cache = FeatureCache(encoder, PREPARATION)
    cache.put(files, torch.ones(3, 4))
    cache.write()
    tensors, header = checkpoint.read(cache.path)
    change(tensors, header)
    checkpoint.save(cache.path, tensors, header)
    assert FeatureCache(encoder, PREPARATION).get(files) is None
    assert "The features are computed again." in caplog.text


def test_features_of_another_width_are_not_used(encoder, files):
    cache = FeatureCache(encoder, PREPARATION)
    cache.put(files, torch.ones(3, 4))
    cache.write()
    for width, used in ((4, True), (5, False)):
        encoder.feature_dim = width
        assert (FeatureCache(encoder, PREPARATION).get(files) is not None) == used


def test_features_that_are_not_finite_are_not_stored(encoder, files):
    cache = FeatureCache(encoder, PREPARATION)
    cache.put(files, torch.tensor([[1.0], [float("nan")], [float("inf")]]))
    cache.write()
    again = FeatureCache(encoder, PREPARATION)
    assert torch.equal(again.get(files[:1]), torch.ones(1, 1))
    assert again.get(files[1:2]) is None
    assert again.get(files[2:]) is None
