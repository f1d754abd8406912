"""Normalisation of images: the domain encoder undoes that of the model it is in."""

from __future__ import annotations

import pytest
import torch

import dplq
from dplq.images.model_input import ModelInput
from tests.tiny import tiny_backbone, tiny_clip_config, write_clip_dir

SETTINGS = {"n_ctx": 2, "ctx_init": "a photo", "prompt_depth": 2, "seed": 0}
MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)


@pytest.fixture
def backbone(tmp_path):
    """A CLIP whose images are not normalised as OpenAI's."""
    name = write_clip_dir(tmp_path / "clip", tiny_clip_config(), mean=MEAN, std=STD)
    return dplq.load_backbone(name, pretrained=False)


def encoder(name="test_vit", **given):
    return dplq.load_domain_encoder(name, pretrained=False, **given)


def normalised(pixels, mean, std):
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize("name", ["test_vit", ["test_vit", "test_resnet"]])
def test_an_encoder_has_what_its_model_takes(backbone, name):
    """Whether or not it was loaded with that backbone, and others that have it are not changed."""
    domain = encoder(name)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = domain(normalised(pixels, tiny_backbone().image_mean, tiny_backbone().image_std))
    model = dplq.QuaternionPromptCLIP(backbone, domain, ["cat", "dog"], **SETTINGS)
    given = normalised(pixels, MEAN, STD)
    torch.testing.assert_close(model.domain(given), wanted, rtol=1e-4, atol=1e-5)
    told = encoder(name, backbone=backbone)
    assert torch.equal(model.domain(given), told(given))
    other = dplq.QuaternionPromptCLIP(tiny_backbone(), domain, ["cat", "dog"], **SETTINGS)
    assert other.domain is domain
    assert (model.domain(given) - domain(given)).norm() > 0.1 * wanted.norm()
    sizes = {tensor.data_ptr() for tensor in domain.state_dict().values()}
    assert {tensor.data_ptr() for tensor in model.domain.state_dict().values()} == sizes


def test_a_model_has_the_same_logits_when_it_is_loaded(backbone, tmp_path):
    model = dplq.QuaternionPromptCLIP(backbone, encoder(), ["cat", "dog"], **SETTINGS).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model.save(tmp_path / "model.safetensors")
    loaded = dplq.load(tmp_path / "model.safetensors", clip=backbone, domain=encoder())
    assert torch.equal(loaded(images), model(images))


def test_the_normalisation_of_a_run_is_undone(backbone):
    """INPUT.PIXEL_MEAN may be another than CLIP's, or there is no "normalize" in TRANSFORMS."""
    model = dplq.QuaternionPromptCLIP(backbone, encoder(), ["cat", "dog"], **SETTINGS)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = model.domain.prepare(normalised(pixels, MEAN, STD))
    for mean, std in (((0.0,) * 3, (1.0,) * 3), ((0.9, 0.1, 0.2), (0.3, 0.6, 0.9))):
        model.input = ModelInput(32, "bicubic", mean, std)
        found = model.domain.prepare(normalised(pixels, mean, std))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_images_that_are_used_unchanged_stay_so(backbone):
    """The reference's behaviour."""
    domain = encoder(normalize="clip")
    model = dplq.QuaternionPromptCLIP(backbone, domain, ["cat", "dog"], **SETTINGS)
    assert model.domain is domain
    clip = encoder("clip", backbone=backbone)
    model = dplq.QuaternionPromptCLIP(backbone, clip, ["cat", "dog"], **SETTINGS)
    model.input = ModelInput(32, "bicubic", (0.0,) * 3, (1.0,) * 3)
    assert model.domain is clip
