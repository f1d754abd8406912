"""The adapter: pooling, preprocessing, dtypes, frozen parameters."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dplq.domain.load import load_domain_encoder
from dplq.domain.recipes import FEATURES
from dplq.errors import UserError
from tests.domain.helpers import (
    MAE,
    SIDE,
    WIDTH,
    clip_images,
    fixed,
    random_pixels,
)


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


@pytest.mark.parametrize(
    ("features", "images", "text"),
    [
        (torch.zeros(1, 4, 6), torch.zeros(3, 8, 8), "expected images of shape (B, 3, H, W), got"),
        (torch.zeros(1, 4, 7), torch.zeros(1, 3, 8, 8), "width 7 where timm declares 6"),
        (torch.zeros(6), torch.zeros(1, 3, 8, 8), "returns (6,), which cannot be pooled"),
        ([1], torch.zeros(1, 3, 8, 8), "returns list, which cannot be pooled"),
    ],
)
def test_invalid_images_and_outputs(features, images, text):
    with pytest.raises(UserError, match=re.escape(text)):
        fixed(features, 6)(images)
