"""Domain encoders: features against hand-written and public forwards, strict loading, errors."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import re
import sys
import types
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import dplq
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, DomainEncoder
from dplq.domain.load import load_domain_encoder
from dplq.domain.recipes import FEATURES, RECIPES
from dplq.errors import UserError
from dplq.io.spec import Spec
from tests.peers import peer

MAE = "mae_vit_base_patch16"
WIDTH, DEPTH, HEADS, SIDE, PATCH, DECODER = 32, 2, 2, 32, 8, 20
SMALL_VIT = {
    "img_size": SIDE,
    "patch_size": PATCH,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
}
SMALL_SAM = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "window_size": 3,
    "global_attn_indexes": (1,),
}


def safe_globals() -> set[object]:
    """Return what weights_only loading may build in this process."""
    return set(torch.serialization.get_safe_globals())


def public_module(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Import a module of a peer and forget it again: peers share names such as `util`."""
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    module = importlib.import_module(name)
    for new in set(sys.modules) - before:
        if str(getattr(sys.modules[new], "__file__", "")).startswith(str(folder)):
            del sys.modules[new]
    return module


def small(recipe: str, monkeypatch: pytest.MonkeyPatch, **model_args) -> None:
    """Shrink one of the published architectures; its layout and statistics stay."""
    old = RECIPES[recipe]
    new = dataclasses.replace(
        old, image_size=model_args["img_size"], model_args={**old.model_args, **model_args}
    )
    monkeypatch.setitem(RECIPES, recipe, new)


@pytest.fixture
def small_mae(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mae_vit_base_patch16` is small."""
    small(MAE, monkeypatch, **SMALL_VIT)


def linear_keys(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a Linear (or, with one number, of its like)."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def block_keys(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a ViT block."""
    keys = {f"{prefix}.{n}.{p}": (width,) for n in ("norm1", "norm2") for p in ("weight", "bias")}
    keys |= linear_keys(f"{prefix}.attn.qkv", 3 * width, width)
    keys |= linear_keys(f"{prefix}.attn.proj", width, width)
    keys |= linear_keys(f"{prefix}.mlp.fc1", 4 * width, width)
    return keys | linear_keys(f"{prefix}.mlp.fc2", width, 4 * width)


def mae_state(*, width: int = WIDTH, depth: int = DEPTH, decoder: bool = True) -> dict[str, Tensor]:
    """A random checkpoint with the key names of the public MAE, written out."""
    positions = (SIDE // PATCH) ** 2 + 1
    keys: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for layer in range(depth):
        keys |= block_keys(f"blocks.{layer}", width)
    if decoder:
        keys |= {"mask_token": (1, 1, DECODER), "decoder_pos_embed": (1, positions, DECODER)}
        keys |= linear_keys("decoder_embed", DECODER, width)
        keys |= block_keys("decoder_blocks.0", DECODER)
        keys |= {"decoder_norm.weight": (DECODER,), "decoder_norm.bias": (DECODER,)}
        keys |= linear_keys("decoder_pred", 3 * PATCH**2, DECODER)
    generator = torch.Generator().manual_seed(7)
    return {k: 0.3 * torch.randn(shape, generator=generator) for k, shape in keys.items()}


def plain_mae_tokens(state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """MAE's encoder on unmasked images, in plain torch operations: patch tokens (B, N, C)."""

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    batch = len(images)
    patches = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 3, h, w, p, p)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(batch, -1, 3 * PATCH**2)
    kernel = state["patch_embed.proj.weight"].flatten(1)
    x = patches @ kernel.T + state["patch_embed.proj.bias"] + state["pos_embed"][:, 1:]
    first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(batch, -1, -1)
    x = torch.cat([first, x], 1)
    for layer in range(DEPTH):
        name = f"blocks.{layer}"
        qkv = dense(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        q, k, v = (
            part.reshape(batch, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in qkv.split(WIDTH, -1)
        )
        mix = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v
        x = x + dense(mix.transpose(1, 2).reshape(batch, -1, WIDTH), f"{name}.attn.proj")
        hidden = dense(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + dense(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")[:, 1:]


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return (pixels - mean) / std for pixels (B, 3, H, W) in 0-1."""
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def clip_images(pixels: Tensor) -> Tensor:
    """Return what the trainer gives: CLIP-normalised images."""
    return normalise(pixels, CLIP_MEAN, CLIP_STD)


def random_pixels(side: int = SIDE, batch: int = 2) -> Tensor:
    """Return (batch, 3, side, side) numbers in 0-1."""
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(3))


def assert_close(got: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of the largest expected number."""
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def randomise(model: nn.Module) -> nn.Module:
    """Draw all parameters, zero-initialised ones too, and return the model in eval mode."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def save(path: Path, data: object) -> str:
    """`torch.save`, and return the path as a string."""
    torch.save(data, path)
    return str(path)


def training_checkpoint(state: Mapping[str, Tensor]) -> dict[str, object]:
    """What MAE's pre-training writes beside the weights."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        "model": dict(state),
        "optimizer": optimizer.state_dict(),
        "epoch": 1599,
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "args": argparse.Namespace(model=MAE, lr=1e-3, betas=(0.9, 0.95), resume="", dist=False),
    }


# -- features


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


def sam_state() -> dict[str, Tensor]:
    """A random small SAM: timm's encoder under SAM's key names, and the parts that are left."""
    norm = partial(nn.LayerNorm, eps=1e-6)
    model = timm.create_model(
        "samvit_base_patch16", num_classes=0, use_rel_pos=True, norm_layer=norm, **SMALL_SAM
    )
    state = {
        "image_encoder." + k.replace(".mlp.fc", ".mlp.lin"): v
        for k, v in randomise(model).state_dict().items()
    }
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 256)
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    return state


def as_medsam(pixels: Tensor) -> Tensor:
    """MedSAM's scaling of pixels (B, 3, H, W), image by image."""
    return torch.stack([(p - p.min()) / max(p.max() - p.min(), 1e-8) for p in pixels])


def as_sam(pixels: Tensor) -> Tensor:
    """SAM's own normalisation of pixels in 0-1; its statistics are on 0-255."""
    return normalise(pixels * 255, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


SAM_SCALINGS = {"sam_vit_base": as_sam, "medsam_vit_base": as_medsam}


@pytest.mark.parametrize("name", SAM_SCALINGS)
def test_sam_and_medsam_read_their_layout_and_average_the_map(name, tmp_path, monkeypatch):
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


class Fixed(nn.Module):
    """A stand-in for a timm model that gives a prepared output."""

    def __init__(self, features: object, width: int, **attributes: object) -> None:
        super().__init__()
        self.features, self.num_features = features, width
        self.__dict__.update(attributes)

    def forward_features(self, images: Tensor) -> object:
        return self.features


def fixed(features: object, width: int, **attributes: object) -> DomainEncoder:
    """Return an adapter around `Fixed`."""
    model = Fixed(features, width, **attributes)
    return DomainEncoder(model, spec=Spec("fixed"), image_size=8, feature_dim=width)


@pytest.mark.parametrize(
    ("attributes", "axes", "start"),
    [
        ({"output_fmt": "NHWC"}, (1, 2), 0),
        ({}, (2, 3), 0),
        ({"num_prefix_tokens": 2}, 1, 2),
        ({"cls_token": 0}, 1, 1),  # timm's volo has a class token and no count
        ({"num_prefix_tokens": 0, "cls_token": 0}, 1, 0),
    ],
)
def test_pooling(attributes, axes, start):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((2, 6, 6) if axes == 1 else (2, 6, 6, 6), generator=generator)
    kept = features[:, start:] if axes == 1 else features
    got = fixed(features, 6, **attributes)(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(got, kept.mean(axes))


class FakeBackbone(nn.Module):
    """The part of `Backbone` that a domain encoder sees."""

    image_size, embed_dim, dtype = 8, 5, torch.float32
    image_mean, image_std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.embed_dim)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))


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


# -- the adapter


def test_images_of_the_right_size_are_untouched_and_others_are_resized(small_mae):
    encoder = load_domain_encoder(MAE, pretrained=False, normalize="clip")
    images = clip_images(random_pixels())
    assert torch.equal(encoder.prepare(images), images)
    other = clip_images(random_pixels(48))[..., :40]
    expected = F.interpolate(other, (SIDE, SIDE), mode="bicubic", antialias=True)
    assert torch.equal(encoder.prepare(other), expected)


def test_frozen_in_eval_mode_and_usable_in_anothers_graph(small_mae):
    encoder = load_domain_encoder(MAE, pretrained=False).train()
    assert not any(m.training for m in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    images = clip_images(random_pixels()).requires_grad_()
    features = encoder(images)
    assert not features.requires_grad
    layer = nn.Linear(WIDTH, 1)
    layer(features).sum().backward()
    assert torch.equal(layer.weight.grad[0], features.sum(0))
    assert images.grad is None


@pytest.mark.parametrize("feature", FEATURES)
def test_features_are_float32_whatever_the_encoder_computes_in(small_mae, feature):
    encoder = load_domain_encoder(MAE, pretrained=False, feature=feature)
    images = clip_images(random_pixels())
    expected = encoder(images)
    prepared = encoder.prepare(images)
    got = encoder.to(torch.bfloat16)(images.half())
    assert torch.equal(encoder.prepare(images), prepared.bfloat16())
    assert got.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0.1, atol=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert encoder.float()(images).dtype == torch.float32


def test_random_weights_come_from_a_private_seed_with_a_framed_warning(small_mae, caplog):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING, "dplq"):
        first, again, other = (
            load_domain_encoder(MAE, pretrained=False, seed=seed) for seed in (1, 1, 2)
        )
    assert torch.equal(torch.get_rng_state(), before)
    images = clip_images(random_pixels())
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))
    text = caplog.records[0].getMessage()
    assert f"Domain encoder '{MAE}' has RANDOM WEIGHTS (pretrained=False, seed 1)." in text
    frame = text.strip().splitlines()
    assert len({len(line) for line in frame}) == 1
    assert set(frame[0]) == {"*"}


def test_full_size_mae_base():
    with torch.device("meta"):  # 86 million parameters, none of them drawn
        encoder = load_domain_encoder(MAE, pretrained=False, feature="decoder_embed")
    assert encoder.feature_dim == 512
    assert encoder.image_size == 224
    assert sum(p.numel() for p in encoder.encoder.parameters()) == 85_798_656
    assert encoder.encoder.num_features == 768


def test_weights_below_the_home_folder(small_mae, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "mae.pth", mae_state())
    assert load_domain_encoder(MAE, weights="~/mae.pth").spec.weights == "mae.pth"


def test_spec_rebuilds_the_encoder(small_mae, tmp_path):
    weights = save(tmp_path / "mae.pth", mae_state())
    encoder = load_domain_encoder(MAE, weights=weights, feature="decoder_embed", normalize="clip")
    spec = json.loads(json.dumps(encoder.spec.header()))
    assert spec["weights"] == "mae.pth"
    assert re.fullmatch("[0-9a-f]{64}", spec.pop("weights_sha256"))
    again = load_domain_encoder(**{**spec, "weights": weights})
    images = clip_images(random_pixels())
    assert torch.equal(again(images), encoder(images))
    assert again.spec == encoder.spec
    assert again.name == MAE


def test_importing_does_not_import_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # from here on importing it is an error
    domain = ("encoder", "recipes", "load")
    for package, name in ((dplq.io, "weights"), *((dplq.domain, name) for name in domain)):
        monkeypatch.setattr(package, name, getattr(package, name))
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}")
    assert (
        importlib.import_module("dplq.domain.load").load_domain_encoder is not load_domain_encoder
    )


# -- checkpoints that load


@pytest.mark.parametrize(
    "wrap",
    [
        "full",
        "plain",
        "encoder only",
        "parallel",
        "half",
        "legacy",
    ],
)
def test_mae_checkpoint_layouts(small_mae, tmp_path, wrap):
    state = mae_state(decoder=wrap != "encoder only")
    data: object = state
    if wrap == "full":
        data = training_checkpoint(state)
    if wrap == "parallel":
        data = {"model": {f"module.{k}": v for k, v in state.items()}}
    if wrap == "half":
        data = state = {k: v.half() for k, v in state.items()}
    path = tmp_path / "mae.pth"
    torch.save(data, path, _use_new_zipfile_serialization=wrap != "legacy")
    before = safe_globals()
    encoder = load_domain_encoder(MAE, weights=str(path))
    assert safe_globals() == before
    assert torch.equal(encoder.encoder.norm.weight, state["norm.weight"].float())
    assert encoder.encoder.norm.weight.dtype == torch.float32


def test_namespace_on_torch_2_4_without_the_context(small_mae, tmp_path, monkeypatch):
    weights = save(tmp_path / "mae.pth", training_checkpoint(mae_state()))
    monkeypatch.delattr(torch.serialization, "safe_globals", raising=False)
    before = safe_globals()
    load_domain_encoder(MAE, weights=weights)
    assert safe_globals() == before


# -- errors


def error_of(*args, **kwargs) -> str:
    """Return the text of the UserError that `load_domain_encoder` raises."""
    with pytest.raises(UserError) as caught:
        load_domain_encoder(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        (MAE, {"feature": "encodr"}, ["domain feature 'encodr'", "Did you mean 'encoder'?"]),
        (MAE, {"normalize": "imagenet"}, ["domain normalize 'imagenet'", "clip, native"]),
        ("clip", {"feature": "decoder_embed"}, ["'clip' has no feature 'decoder_embed'", MAE]),
        ("test_vit", {"feature": "decoder_embed"}, ["'test_vit' has no feature", "MAE's alone"]),
        (MAE, {"weights": "a.pth", "pretrained": False}, ["'a.pth' and pretrained=False contra"]),
        (MAE, {}, ["no weights to download", "an MAE checkpoint", "pretrained=False"]),
        ("sam_vit_base", {}, ["no weights to download", "a SAM or MedSAM checkpoint"]),
        ("medsam_vit_base", {}, ["no weights to download", "a SAM or MedSAM checkpoint"]),
        ("clip", {}, ["'clip' needs backbone="]),
        ("mae_vit_bas_patch16", {}, [f"Did you mean '{MAE}'", "'hf-hub:org/name'"]),
        ("vit_base_patch16_225", {}, ["Did you mean 'vit_base_patch16_224'"]),
        ("vit_base_patch16_18x2_224", {}, ["timm has no pretrained weights", "local file"]),
        ("test_vit.nonsense", {"pretrained": False}, ["timm cannot build it", "nonsense"]),
        (MAE, {"weights": "none/such.pth"}, ["such.pth': no such file", "local checkpoint"]),
    ],
)
def test_wrong_arguments(name, arguments, parts):
    text = error_of(name, **arguments)
    assert all(part in text for part in parts), text


def test_clip_takes_no_weights():
    text = error_of("clip", weights="a.pth", backbone=FakeBackbone())
    assert "has no weights of its own, got 'a.pth'" in text


@pytest.mark.parametrize("name", ["hf-hub:org/name", "test_resnet"])
def test_weights_that_cannot_be_had(name, monkeypatch):
    def fail(*args, **kwargs):
        assert kwargs["pretrained"]
        raise ConnectionError("no route\nmany more lines")

    monkeypatch.setattr(timm, "create_model", fail)
    text = error_of(name)
    assert f"'{name}': its weights cannot be downloaded (ConnectionError: no route)" in text
    assert "set weights (DOMAIN.WEIGHTS) to the local file" in text
    assert "many" not in text


def test_models_of_oblong_images_are_refused(monkeypatch):
    data = {"input_size": (3, 32, 64), "mean": CLIP_MEAN, "std": CLIP_STD}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: data)
    assert "requires 32x64 images; only square" in error_of("test_resnet", pretrained=False)


@pytest.mark.parametrize(
    ("features", "images", "text"),
    [
        (torch.zeros(1, 4, 6), torch.zeros(3, 8, 8), "expected images of shape (B, 3, H, W), got"),
        (torch.zeros(1, 4, 7), torch.zeros(1, 3, 8, 8), "width 7 where timm declares 6"),
        (torch.zeros(6), torch.zeros(1, 3, 8, 8), "returns (6,), which cannot be pooled"),
        ([1], torch.zeros(1, 3, 8, 8), "returns list, which cannot be pooled"),
    ],
)
def test_what_an_encoder_cannot_take_or_give(features, images, text):
    with pytest.raises(UserError, match=re.escape(text)):
        fixed(features, 6)(images)


def test_other_classes_than_namespace_are_refused(tmp_path):
    state = mae_state()
    weights = save(tmp_path / "x.pth", {"model": state, "args": types.SimpleNamespace(a=1)})
    text = error_of(MAE, weights=weights)
    assert "hold more than weights" in text
    assert "types.SimpleNamespace" in text
    assert "save {'model': state_dict} alone" in text
    assert "\n" not in text


def test_files_that_are_no_checkpoints(tmp_path):
    text_file = tmp_path / "page.pth"
    text_file.write_text("<html>quota exceeded</html>")
    assert "page.pth'" in error_of(MAE, weights=str(text_file))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"abc")
    assert "cannot be read as a checkpoint (SafetensorError" in error_of(MAE, weights=str(broken))
    assert "holds a list, expected a state dict" in error_of(
        MAE, weights=save(tmp_path / "list.pth", [1])
    )
    script = tmp_path / "ViT-B-16.pt"
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("ViT-B-16/constants.pkl", b"")
    assert "are a TorchScript archive; OpenAI CLIP's" in error_of(MAE, weights=str(script))


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["image_encoder.pos_embed", "mask_decoder.x"], "a checkpoint of SAM / MedSAM"),
        (["visual.conv1.weight", "input_resolution"], "a checkpoint of OpenAI CLIP"),
        (["visual.trunk.norm.weight", "logit_scale"], "a checkpoint of open_clip"),
        (["vision_model.embeddings.class_embedding"], "a checkpoint of Hugging Face CLIP"),
        (["student.head.last_layer.weight_v"], "a checkpoint of DINO"),
        (["mask_token", "blocks.0.ls1.gamma"], "a checkpoint of DINOv2"),
        (["blocks.0.attn.qkv.weight", "head.weight"], "a checkpoint of timm ViT or MAE encoder"),
        (["layer1.0.conv1.weight"], "a checkpoint of ResNet"),
        (["a", "b", "c", "d"], "nothing known (keys: a, b, c and 1 more)"),
        ([], "a file without weights"),
    ],
)
def test_a_checkpoint_of_the_wrong_kind_is_named(small_mae, tmp_path, keys, kind):
    weights = save(tmp_path / "x.pth", {k: torch.zeros(1) for k in keys})
    text = error_of(MAE, weights=weights)
    assert f"x.pth' does not fit domain encoder '{MAE}'. It looks like {kind}; expected an" in text


def test_a_mae_checkpoint_is_no_medsam_and_dinos_groups_are_seen(tmp_path, monkeypatch):
    small("medsam_vit_base", monkeypatch, **SMALL_SAM)
    weights = save(tmp_path / "mae.pth", mae_state())
    text = error_of("medsam_vit_base", weights=weights)
    assert "It looks like a checkpoint of MAE; expected a SAM or MedSAM checkpoint" in text
    groups = {"student": {"module.x": torch.zeros(1)}, "teacher": {"x": torch.zeros(1)}, "epoch": 1}
    text = error_of("medsam_vit_base", weights=save(tmp_path / "dino.pth", groups))
    assert "It looks like a checkpoint of DINO;" in text


def test_a_larger_vit_is_told_by_both_sizes(small_mae, tmp_path):
    weights = save(tmp_path / "large.pth", mae_state(width=48, depth=3))
    text = error_of(MAE, weights=weights)
    assert "The file is a ViT of width 48, 3 blocks, patch 8" in text
    assert f"{MAE} is a ViT of width 32, 2 blocks, patch 8" in text


def test_missing_unknown_and_misshapen_keys_are_named(small_mae, tmp_path):
    state = mae_state()
    del state["norm.bias"]
    state["fc_norm.weight"] = torch.zeros(WIDTH)
    state["pos_embed"] = torch.zeros(1, 5, WIDTH)
    text = error_of(MAE, weights=save(tmp_path / "x.pth", state))
    assert "pos_embed is (1, 5, 32) in the file and (1, 17, 32) in the model" in text
    assert "Missing: norm.bias" in text
    assert "Unknown: fc_norm.weight" in text


def test_decoder_embed_needs_the_decoder(small_mae, tmp_path):
    weights = save(tmp_path / "x.pth", mae_state(decoder=False))
    text = error_of(MAE, weights=weights, feature="decoder_embed")
    assert "Missing: decoder_embed.weight" in text
    assert "only feature 'encoder' is available" in text
