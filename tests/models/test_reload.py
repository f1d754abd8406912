"""Checkpoints of models that were trained with published names."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

import dplq
from dplq.errors import UserError
from dplq.models import catalogue as module
from dplq.models.catalogue import catalogue
from dplq.models.weights import models_folder
from tests.models.original_encoders import LAYOUTS
from tests.models.originals import make_original, write
from tests.models.test_table import put

CLIP, ENCODER = "remoteclip-vit-b-32", "retfound-green"
CLASSES = ["river", "beach"]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The weights of a small CLIP and a small encoder where `dplq models get` puts them."""
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    put(CLIP, make_original(CLIP, catalogue()[CLIP], tmp_path), monkeypatch)
    encoder = LAYOUTS[catalogue()[ENCODER].layout](catalogue()[ENCODER], tmp_path)
    write(encoder.content, models_folder(ENCODER) / Path(catalogue()[ENCODER].file).name)
    return encoder


def trained(parts):
    clip = dplq.load_backbone(CLIP)
    domain = dplq.load_domain_encoder(
        ENCODER, args=parts.args, image_size=parts.image_size, backbone=clip
    )
    return dplq.QuaternionPromptCLIP(clip, domain, CLASSES, n_ctx=2, prompt_depth=2).eval()


def test_a_checkpoint_is_opened_again_by_the_names(parts, tmp_path):
    model = trained(parts)
    images = torch.randn(2, 3, 32, 32)
    model.save(tmp_path / "prompts.safetensors")
    again = dplq.load(tmp_path / "prompts.safetensors")
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    for part in (again.clip, again.domain):
        assert part.spec.weights == ""
        assert len(part.spec.sha256) == 64
    assert again.clip.spec.name == CLIP
    assert again.domain.spec.name == ENCODER
    assert again.domain.spec.options["mean"] == [0.5, 0.5, 0.5]
    assert again.domain.spec.options["pool"] == "avg"


def test_another_file_under_the_same_name_is_refused(parts, tmp_path):
    trained(parts).save(tmp_path / "prompts.safetensors")
    file = models_folder(ENCODER) / "retfoundgreen_statedict.pth"
    content = torch.load(file)
    content["cls_token"] = content["cls_token"] + 1
    torch.save(content, file)
    with pytest.raises(UserError, match="weights_sha256"):
        dplq.load(tmp_path / "prompts.safetensors")


def test_the_users_own_file_goes_before_the_one_of_get(parts, tmp_path):
    content = torch.load(models_folder(ENCODER) / "retfoundgreen_statedict.pth")
    content["cls_token"] = content["cls_token"] + 1
    torch.save(content, tmp_path / "mine.pth")
    arguments = {"args": parts.args, "image_size": parts.image_size}
    mine = dplq.load_domain_encoder(ENCODER, weights=str(tmp_path / "mine.pth"), **arguments)
    assert mine.spec.weights == "mine.pth"
    assert mine.spec.options["mean"] == [0.5, 0.5, 0.5]
    theirs = dplq.load_domain_encoder(ENCODER, **arguments)
    assert mine.spec.sha256 != theirs.spec.sha256
    assert torch.equal(mine.encoder.cls_token, theirs.encoder.cls_token + 1)


def test_unknown_statistics_have_to_be_given(parts):
    with pytest.raises(UserError, match=r"mean and std of 'phikon-v2' are not known: give mean"):
        dplq.load_domain_encoder("phikon-v2", pretrained=False)
    encoder = dplq.load_domain_encoder(
        "phikon-v2",
        pretrained=False,
        normalize="clip",
        args={"embed_dim": 32, "depth": 1, "num_heads": 2},
        image_size=32,
    )
    assert not encoder.renormalises


def test_several_encoders_by_their_names(parts, monkeypatch):
    monkeypatch.setattr("dplq.domain.load.resolve_published", resolved_small(parts))
    joint = dplq.load_domain_encoder([ENCODER, ENCODER])
    assert joint.feature_dim == 64


def resolved_small(parts):
    """Return `resolve_published` with the arguments of the small encoder."""
    from dplq.domain.arguments import Changes
    from dplq.domain.published import resolve_published

    def resolve(name, model, weights, changes, **options):
        small = Changes.checked((), (), parts.image_size, "", parts.args)
        return resolve_published(name, model, weights, small, **options)

    return resolve


def test_the_file_that_is_named_is_opened_in_place_of_the_one_of_get(parts, tmp_path):
    """Also where the cache has none; another file is refused."""
    trained(parts).save(tmp_path / "prompts.safetensors")
    cached = models_folder(ENCODER) / "retfoundgreen_statedict.pth"
    mine = cached.rename(tmp_path / "mine.pth")
    assert dplq.load(tmp_path / "prompts.safetensors", domain_weights=mine).domain is not None
    with pytest.raises(UserError, match="a folder: name the weights file of retfound-green"):
        dplq.load(tmp_path / "prompts.safetensors", domain_weights=tmp_path)
    content = torch.load(mine)
    torch.save(content, cached)
    content["cls_token"] = content["cls_token"] + 1
    torch.save(content, mine)
    with pytest.raises(UserError, match=r"domain\.weights_sha256"):
        dplq.load(tmp_path / "prompts.safetensors", domain_weights=mine)


def test_paths_are_paths(parts, tmp_path):
    file = models_folder(ENCODER) / "retfoundgreen_statedict.pth"
    arguments = {"args": parts.args, "image_size": parts.image_size}
    one = dplq.load_domain_encoder(ENCODER, weights=file, **arguments)
    assert one.spec.weights == file.name


def test_statistics_that_have_no_effect_are_refused_of_published_names(parts):
    with pytest.raises(UserError, match=r"mean and std .* have no effect with normalize"):
        dplq.load_domain_encoder(ENCODER, normalize="clip", mean=(0.5,) * 3, std=(0.5,) * 3)


def test_gigapath_of_random_weights_needs_its_config_alone(parts):
    with pytest.raises(UserError, match=r"in its config\.json alone, which random weights need"):
        dplq.load_domain_encoder("gigapath", pretrained=False)


def test_how_a_checkpoint_pooled_does_not_follow_the_catalogue(parts, tmp_path, monkeypatch):
    """It was made when the catalogue did not say, and the mean was taken."""
    entry = msgspec.structs.replace(catalogue()[ENCODER], pool=None)
    entries = {**module.catalogue(), ENCODER: entry}
    monkeypatch.setattr(module, "catalogue", lambda: entries)
    trained(parts).save(tmp_path / "prompts.safetensors")
    entries[ENCODER] = msgspec.structs.replace(entry, pool="cls")
    assert dplq.load(tmp_path / "prompts.safetensors").domain.pool == "avg"
