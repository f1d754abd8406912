"""Features against a plain forward pass and the public code: MAE, SAM, MedSAM, timm, CLIP."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.domain.load import load_domain_encoder
from tests.domain.helpers import (
    DECODER,
    MAE,
    SMALL_SAM,
    SMALL_VIT,
    WIDTH,
    FakeBackbone,
    assert_close,
    clip_images,
    mae_state,
    normalise,
    plain_mae_tokens,
    public_module,
    random_pixels,
    randomise,
    sam_state,
    save,
    small,
    training_checkpoint,
)
from tests.peers import peer


@pytest.mark.parametrize("normalize", ["native", "clip"])
def test_mae_features_equal_a_plain_forward(small_mae, tmp_path, normalize):
    state = mae_state()
    weights = save(tmp_path / "mae.pth", {"model": state})
    pixels = random_pixels()
    seen = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    tokens = plain_mae_tokens(state, seen if normalize == "native" else clip_images(pixels))
    encoder = load_domain_encoder(MAE, weights=weights, normalize=normalize)
    assert_close(encoder(clip_images(pixels)), tokens.mean(1))
    assert encoder.feature_dim == WIDTH

    decoder = load_domain_encoder(
        MAE, weights=weights, normalize=normalize, feature="decoder_embed"
    )
    embedded = tokens @ state["decoder_embed.weight"].T + state["decoder_embed.bias"]
    assert_close(decoder(clip_images(pixels)), embedded.mean(1))
    assert decoder.feature_dim == DECODER
    assert len(decoder.state_dict()) == len(encoder.state_dict()) + 2


def test_mae_features_equal_the_public_code(small_mae, tmp_path, monkeypatch):
    folder = peer("mae")
    monkeypatch.setattr(np, "float", float, raising=False)  # gone since NumPy 1.24
    vit = timm.models.vision_transformer
    block = vit.Block
    # MAE passes an argument that timm's Block has dropped.
    monkeypatch.setattr(vit, "Block", lambda *a, qk_scale=None, **k: block(*a, **k))
    public = public_module("models_mae", folder, monkeypatch).MaskedAutoencoderViT(
        **SMALL_VIT,
        decoder_embed_dim=DECODER,
        decoder_depth=1,
        decoder_num_heads=2,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    randomise(public)
    weights = save(tmp_path / "mae.pth", training_checkpoint(public.state_dict()))
    pixels = random_pixels()
    with torch.no_grad():
        seen = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
        latent = public.forward_encoder(seen, mask_ratio=0.0)[0]
        embedded = public.decoder_embed(latent)
    images = clip_images(pixels)
    assert_close(load_domain_encoder(MAE, weights=weights)(images), latent[:, 1:].mean(1))
    decoder = load_domain_encoder(MAE, weights=weights, feature="decoder_embed")
    assert_close(decoder(images), embedded[:, 1:].mean(1))


def as_medsam(pixels: Tensor) -> Tensor:
    """MedSAM's scaling of pixels (B, 3, H, W), image by image."""
    return torch.stack([(p - p.min()) / max(p.max() - p.min(), 1e-8) for p in pixels])


def as_sam(pixels: Tensor) -> Tensor:
    """SAM's own normalisation of pixels in 0-1; its statistics are on 0-255."""
    return normalise(pixels * 255, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


SAM_SCALINGS = {"sam_vit_base": as_sam, "medsam_vit_base": as_medsam}


@pytest.mark.parametrize("name", SAM_SCALINGS)
def test_sam_and_medsam_checkpoints_load_and_the_map_is_averaged(name, tmp_path, monkeypatch):
    small(name, monkeypatch, **SMALL_SAM)
    weights = save(tmp_path / "medsam.pth", sam_state())
    encoder = load_domain_encoder(name, weights=weights)
    pixels = random_pixels(32)
    large = F.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
    if name == "medsam_vit_base":  # the resized image keeps to its range
        large = torch.stack([a.clamp(b.min(), b.max()) for a, b in zip(large, pixels, strict=True)])
    with torch.no_grad():
        feature_map = encoder.encoder.forward_features(SAM_SCALINGS[name](large))
    assert feature_map.shape == (2, 256, 8, 8)
    assert_close(encoder(clip_images(pixels)), feature_map.mean((2, 3)))
    assert encoder.feature_dim == 256
    epsilons = {m.eps for m in encoder.modules() if isinstance(m, nn.LayerNorm)}
    assert epsilons == {1e-6}


@pytest.mark.parametrize("name", SAM_SCALINGS)
def test_sam_and_medsam_features_equal_the_public_code(name, tmp_path, monkeypatch):
    modeling = public_module("segment_anything.modeling", peer("MedSAM"), monkeypatch)
    public = modeling.ImageEncoderViT(
        **SMALL_SAM, use_rel_pos=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)
    )
    randomise(public)
    state = {f"image_encoder.{k}": v for k, v in public.state_dict().items()}
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    small(name, monkeypatch, **SMALL_SAM)
    encoder = load_domain_encoder(name, weights=save(tmp_path / "medsam.pth", state))
    # 8-bit images of the encoder's size, none of which uses the whole range.
    pixels = (30 + 170 * random_pixels(64)).to(torch.uint8) / 255
    with torch.no_grad():
        feature_map = public(SAM_SCALINGS[name](pixels))
    assert_close(encoder(clip_images(pixels)), feature_map.mean((2, 3)))


@pytest.mark.parametrize("side", [64, 40])
def test_sam_and_medsam_preparation(side, monkeypatch):
    for name in SAM_SCALINGS:
        small(name, monkeypatch, **SMALL_SAM)
    sam, medsam = (load_domain_encoder(name, pretrained=False) for name in SAM_SCALINGS)
    pixels = random_pixels(side) * torch.tensor([0.5, 0.25]).view(2, 1, 1, 1) + 0.25
    images = clip_images(pixels)
    scaled = medsam.prepare(images)
    assert scaled.shape == (2, 3, 64, 64)
    assert torch.equal(scaled.amin((1, 2, 3)), torch.zeros(2))
    torch.testing.assert_close(scaled.amax((1, 2, 3)), torch.ones(2))
    if side == 64:
        torch.testing.assert_close(scaled, as_medsam(pixels), rtol=0, atol=1e-5)
        torch.testing.assert_close(sam.prepare(images), as_sam(pixels), rtol=0, atol=1e-5)
    unchanged = load_domain_encoder("medsam_vit_base", pretrained=False, normalize="clip")
    torch.testing.assert_close(
        unchanged.prepare(images), F.interpolate(images, (64, 64), mode="bicubic", antialias=True)
    )
    # Of a constant image nothing is left but rounding, which must not be blown up.
    for grey in (0.0, 0.3, 1.0):
        flat = medsam.prepare(clip_images(torch.full((1, 3, side, side), grey)))
        assert flat.min() >= 0
        assert flat.max() < 1e-3


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_any_timm_model(name, tmp_path):
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=10).eval()  # with a classifier, which is left
    path = tmp_path / "weights.safetensors"
    save_file(model.state_dict(), path)
    encoder = load_domain_encoder(name, weights=str(path))
    config = model.pretrained_cfg
    side = config["input_size"][1]
    pixels = random_pixels(side)
    with torch.no_grad():
        features = model.forward_features(normalise(pixels, config["mean"], config["std"]))
    expected = features[:, 1:].mean(1) if name == "test_vit" else features.mean((2, 3))
    assert_close(encoder(clip_images(pixels)), expected)
    assert (encoder.image_size, encoder.feature_dim) == (side, model.num_features)


@pytest.mark.parametrize("name", ["test_efficientnet", "levit_128s"])
def test_timm_models_with_stages_of_blocks_and_heads_with_a_norm(name, tmp_path):
    """Their `blocks.<stage>.<block>.` are not DINOv2's chunks; all of `head.` is the classifier."""
    torch.manual_seed(1)
    model = timm.create_model(name, num_classes=10).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    encoder = load_domain_encoder(name, weights=str(tmp_path / "weights.safetensors"))
    config = model.pretrained_cfg
    pixels = random_pixels(config["input_size"][1])
    with torch.no_grad():
        features = model.forward_features(normalise(pixels, config["mean"], config["std"]))
        expected = model.forward_head(features, pre_logits=True)
    assert_close(encoder(clip_images(pixels)), expected)


@pytest.mark.parametrize(
    ("name", "is_warned"),
    [("vit_base_patch32_clip_224", True), ("vit_base_patch32_clip_quickgelu_224", False)],
)
def test_a_clip_file_in_a_tower_of_the_other_activation_is_warned_of(
    name, is_warned, tmp_path, caplog, monkeypatch
):
    create = timm.create_model
    small = {"depth": 1, "embed_dim": 48, "num_heads": 4}
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **small}))
    path = tmp_path / "RemoteCLIP-ViT-B-32.pt"
    torch.save(timm.create_model(name, num_classes=0).state_dict(), path)
    load_domain_encoder(name, weights=str(path))
    said = "RemoteCLIP-ViT-B-32.pt was trained with quickgelu ("
    assert (said in caplog.text) == is_warned


@pytest.mark.parametrize("normalize", ["native", "clip"])
def test_clip_is_the_backbones_own_feature_and_owns_nothing(normalize):
    backbone = FakeBackbone()
    encoder = load_domain_encoder("clip", backbone=backbone, normalize=normalize)
    images = clip_images(random_pixels(8))
    assert torch.equal(encoder(images), backbone.encode_image(images))
    assert encoder(clip_images(random_pixels(12))).shape == (2, 5)
    assert encoder.feature_dim == 5
    assert encoder.image_size == 8
    assert not list(encoder.parameters())
    assert not encoder.state_dict()
    assert backbone.layer.weight.requires_grad  # not ours to freeze


def test_the_backbones_normalisation_is_what_native_undoes(small_mae, tmp_path):
    state = mae_state()
    weights = save(tmp_path / "mae.pth", state)
    backbone = FakeBackbone()
    encoder = load_domain_encoder(MAE, weights=weights, backbone=backbone)
    pixels = random_pixels()
    expected = plain_mae_tokens(state, normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)).mean(1)
    assert_close(encoder(normalise(pixels, backbone.image_mean, backbone.image_std)), expected)
