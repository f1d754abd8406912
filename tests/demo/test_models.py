"""The demo's shipped models and datasets, and what they are meant to show."""

from __future__ import annotations

import pytest
import torch

import dplq
from dplq.demo import AERIAL_CLASSES, models
from dplq.demo.gallery import gallery
from tools.make_demo_weights import draw, zero_shot


@pytest.fixture(scope="module")
def clip():
    return dplq.load_backbone("demo")


def test_tokens_round_trip():
    """Compacting keeps the words that were used, exactly; the others come back the same always."""
    table = torch.randn(49408, 128, generator=torch.Generator().manual_seed(1))
    state = {models.TABLE: table, "attn_mask": torch.zeros(1), "x": torch.ones(2)}
    compact = models.compact_tokens(state, {5, 3})
    assert {key: tuple(value.shape) for key, value in compact.items()} == {
        "x": (2,),
        models.ROWS: (2, 128),
        models.FILLED: (2,),
    }
    full = models.expand_tokens(compact)
    assert torch.equal(full[models.TABLE][[3, 5]], table[[3, 5]])
    assert torch.equal(full[models.TABLE], models.expand_tokens(compact)[models.TABLE])
    assert models.expand_tokens(state).keys() == state.keys()


def test_shipped_weights_are_small():
    sizes = {path.name: path.stat().st_size for path in models.ASSETS.iterdir()}
    assert set(sizes) == {models.CLIP_FILE, models.DOMAIN_FILE, "figures.json"}
    assert sum(sizes.values()) < 20e6


def test_domain_encoder_loads(clip):
    encoder = dplq.load_domain_encoder("demo", backbone=clip)
    features = encoder(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, encoder.feature_dim) == (2, 128)
    assert not encoder.spec.sha256
    assert not clip.spec.sha256


@pytest.mark.parametrize(("look", "low", "high"), [("general", 96, 100), ("domain", 37, 47)])
def test_zero_shot_knows_the_concepts_but_not_the_domain(clip, look, low, high):
    """Measured on 50 pictures per class: 98.2 % in the general look, 41.4 % in the domain look."""
    pictures = draw(look, "test", 10, workers=1)
    assert low <= zero_shot(clip, pictures, AERIAL_CLASSES) <= high


def test_gallery_is_drawn_once_into_class_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path))
    folder = gallery("tiny", ("river", "lake"), per_class=3)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")) == [
        f"{name}/{number:03d}.jpg" for name in ("lake", "river") for number in range(3)
    ]
    monkeypatch.setattr("dplq.demo.gallery._draw_all", None)  # drawing again would fail
    assert gallery("tiny", ("river", "lake"), per_class=3) == folder
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_gallery_that_cannot_be_drawn_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path))
    monkeypatch.setattr("dplq.demo.gallery._draw_all", full)
    with pytest.raises(dplq.UserError, match=r"No space left on device\. Set DPLQ_CACHE"):
        gallery("tiny", ("river",), per_class=1)
    assert list(tmp_path.iterdir()) == []
