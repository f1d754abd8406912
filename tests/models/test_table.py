"""Every published model: loaded by its name from a file in its public layout, against its own code.

`dplq/models/published.yaml` says of each model what was compared, or why it is refused; that is
what docs/models.md shows, and it is held here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dplq
from dplq.clip.known_files import find_known
from dplq.models import catalogue as module
from dplq.models.catalogue import catalogue
from dplq.models.weights import models_folder
from tests.models.originals import ORIGINALS, small

TEXTS = ("a photo of a river", "a photo of a beach", "an X-ray of a chest")
CLIPS = [name for name, model in catalogue().items() if model.kind == "clip"]


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def put(name, original, monkeypatch):
    """Write a model's file where `dplq models get` does; reduce its entry."""
    model = catalogue()[name]
    original.write(models_folder(name) / Path(model.file or "epoch_20.pt").name)
    entries = {**catalogue(), name: small(model, original)}
    monkeypatch.setattr(module, "catalogue", lambda: entries)


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_has_the_features_of_its_own_library(name, caches, monkeypatch):
    model = catalogue()[name]
    original = ORIGINALS[model.layout](model)
    put(name, original, monkeypatch)
    backbone = dplq.load_backbone(name)
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    tokens = backbone.tokenize(TEXTS)
    with torch.no_grad():
        expected = original.image(images), original.text(tokens)
        found = backbone.encode_image(images), backbone.encode_text(tokens)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    if model.mean:
        assert tuple(backbone.image_mean) == model.mean
        assert tuple(backbone.image_std) == model.std


@pytest.mark.parametrize("name", CLIPS)
def test_the_activation_is_that_of_the_known_files(name):
    model = catalogue()[name]
    places = [model.hub, model.file, Path(model.url or "").stem]
    known = find_known(Path("/", *filter(None, places)))
    if known is not None:
        assert known.act == model.activation
