"""Published encoders against their authors' own code; skipped without the checkouts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dplq
from dplq.domain.encoder import CLIP_MEAN, CLIP_STD
from dplq.models.catalogue import catalogue
from dplq.models.weights import models_folder
from tests.domain.helpers import public_module
from tests.models.originals import shaken, write
from tests.peers import peer

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = {**SMALL, "img_size": 32, "patch_size": 16, "mlp_ratio": 4, "qkv_bias": True}


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_CACHE", str(tmp_path / "dplq"))


def check(name, content, forward, side, **changes):
    """Load a model by its name from a file; compare its features of random images."""
    write(content, models_folder(name) / Path(catalogue()[name].file).name)
    encoder = dplq.load_domain_encoder(name, image_size=side, **changes)
    clip = [torch.tensor(numbers).view(3, 1, 1) for numbers in (CLIP_MEAN, CLIP_STD)]
    images = (torch.rand(2, 3, side, side) - clip[0]) / clip[1]
    with torch.no_grad():
        expected = forward(encoder.prepare(images))
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "repository", "averaged"),
    [
        ("mae-vit-b", "mae", False),
        ("rvsa-mae-vit-b", "mae", False),
        ("mae-vit-l", "mae", False),
        ("retfound-cfp", "RETFound_MAE", False),
        ("retfound-oct", "RETFound_MAE", False),
        ("satmae-vit-l", "SatMAE", False),
        ("satmae-vit-l-finetuned", "SatMAE", True),
    ],
)
def test_a_vit_equals_models_vit(name, repository, averaged, caches, monkeypatch):
    """Its `forward_features` is the class token, or fc_norm of the average if fine-tuned."""
    monkeypatch.setattr(np, "float", float, raising=False)  # SatMAE is older than numpy 1.24
    module = public_module("models_vit", peer(repository), monkeypatch)
    norm = partial(nn.LayerNorm, eps=1e-6)
    vit = shaken(
        module.VisionTransformer(global_pool=averaged, num_classes=9, norm_layer=norm, **VIT)
    )
    pool = "avg" if averaged else "cls"
    content = {"model": vit.state_dict()}
    check(name, content, vit.forward_features, 32, args=SMALL, pool=pool)


@pytest.mark.parametrize(
    ("name", "registers"),
    [
        *((f"dinov2-vit-{size}-14", 0) for size in "sbl"),
        ("dinov2-vit-b-14-reg", 4),
    ],
)
def test_dinov2_equals_its_own_code(name, registers, caches, monkeypatch):
    monkeypatch.setenv("XFORMERS_DISABLED", "1")
    module = public_module("dinov2.models.vision_transformer", peer("dinov2"), monkeypatch)
    vit = shaken(
        module.DinoVisionTransformer(
            **{**SMALL, "img_size": 28, "patch_size": 14, "init_values": 1.0, "block_chunks": 0},
            **{"num_register_tokens": registers, "mlp_ratio": 4},
            block_fn=partial(module.Block, attn_class=module.MemEffAttention),
        )
    )
    check(name, vit.state_dict(), vit, 28, args=SMALL)


@pytest.mark.parametrize("name", ["sam-vit-b", "medsam-vit-b"])
def test_sam_equals_its_own_code(name, caches, monkeypatch):
    modeling = public_module("segment_anything.modeling", peer("MedSAM"), monkeypatch)
    sizes = {"img_size": 64, "patch_size": 16, "window_size": 3, "global_attn_indexes": (1,)}
    vit = shaken(
        modeling.ImageEncoderViT(
            **{**SMALL, **sizes, "mlp_ratio": 4, "qkv_bias": True, "out_chans": 256},
            **{"use_rel_pos": True, "norm_layer": partial(nn.LayerNorm, eps=1e-6)},
        )
    )
    content = {f"image_encoder.{key}": value for key, value in vit.state_dict().items()}
    changes = {**SMALL, "window_size": 3, "global_attn_indexes": [1]}
    check(name, content, lambda images: vit(images).mean((2, 3)), 64, args=changes)
