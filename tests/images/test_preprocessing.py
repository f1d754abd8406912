"""Transforms on bytes against those of torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from dplq.images.preprocessing import Normalizer, as_byte_crop

STEPS = [T.ToTensor(), T.Normalize([0.48, 0.46, 0.41], [0.27, 0.26, 0.28])]
PIXELS = torch.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).to(torch.uint8)


@pytest.mark.parametrize("mode", [InterpolationMode.BICUBIC, InterpolationMode.BILINEAR])
def test_byte_crops_equal_pillows(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    pillow = T.RandomResizedCrop((96, 128), interpolation=mode)
    ours = as_byte_crop(pillow)
    for seed in range(10):
        results = []
        for crop in (pillow, ours):
            torch.manual_seed(seed)
            results.append(np.asarray(crop(image)).astype(int))
        difference = np.abs(results[0] - results[1])
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.02


def test_nearest_crops_are_kept():
    nearest = T.RandomResizedCrop(32, interpolation=InterpolationMode.NEAREST)
    assert as_byte_crop(nearest) is nearest


def test_normalised_as_torchvision_does():
    expected = torch.stack([T.Compose(STEPS)(Image.fromarray(p.numpy())) for p in PIXELS])
    normalizer = Normalizer(STEPS)
    assert torch.equal(normalizer(PIXELS), expected)
    assert torch.equal(normalizer.gather(PIXELS), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_normalised_on_a_gpu():
    on_gpu = Normalizer(STEPS, torch.device("cuda"))(PIXELS.pin_memory())
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), Normalizer(STEPS)(PIXELS))
