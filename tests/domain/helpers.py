"""Small random encoders and checkpoints, and a forward pass in plain torch operations."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import types
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from dplq.domain.encoder import CLIP_MEAN, CLIP_STD, DomainEncoder
from dplq.domain.recipes import RECIPES
from dplq.io.spec import Spec

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


def public_module(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Import a module of a peer and unload it again: peers share names such as `util`."""
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    module = importlib.import_module(name)
    for new in set(sys.modules) - before:
        if str(getattr(sys.modules[new], "__file__", "")).startswith(str(folder)):
            del sys.modules[new]
    return module


def small(recipe: str, monkeypatch: pytest.MonkeyPatch, **model_args) -> None:
    """Shrink one of the published architectures; its format and statistics stay."""
    old = RECIPES[recipe]
    new = dataclasses.replace(
        old, image_size=model_args["img_size"], model_args={**old.model_args, **model_args}
    )
    monkeypatch.setitem(RECIPES, recipe, new)


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
    """Return (pixels - mean) / std for pixels (B, C, H, W)."""
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def clip_images(pixels: Tensor) -> Tensor:
    """Return CLIP-normalised images, a trainer's input."""
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


class Fixed(nn.Module):
    """A fake timm model that returns a fixed output."""

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


class FakeBackbone(nn.Module):
    """The part of `Backbone` that a domain encoder uses."""

    image_size, embed_dim, dtype = 8, 5, torch.float32
    image_mean, image_std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, self.embed_dim)

    def encode_image(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))
