"""Published domain encoders as data: architecture, checkpoint format, input statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dplq.domain.encoder import IMAGENET_MEAN, IMAGENET_STD
from dplq.io.packaged import PACKAGED_MODELS, packaged_model

CLIP = "clip"  # CLIP's own image feature, which needs no recipe
FEATURES = ("encoder", "decoder_embed")


@dataclass(frozen=True)
class CheckpointFormat:
    """Key names of a public checkpoint.

    Attributes:
        expected: what the file should be, for error messages.
        unused: prefixes of the keys that are ignored where the model lacks them.
        prefix: prefix of the encoder's keys in the file.
        rename: (old, new) parts of key names.
    """

    expected: str
    unused: tuple[str, ...] = ()
    prefix: str = ""
    rename: tuple[tuple[str, str], ...] = ()

    def model_key(self, key: str) -> str:
        """Return the timm model's name of the file's `key`."""
        if self.prefix and key.startswith(self.prefix):
            key = key[len(self.prefix) :]
        for old, new in self.rename:
            key = key.replace(old, new)
        return key


@dataclass(frozen=True)
class Recipe:
    """What is needed to build, load and feed an encoder.

    Attributes:
        timm_name: architecture, by timm's name.
        checkpoint: format of its weights file.
        image_size: side in pixels of its square input.
        features: values of `feature` that it offers, of `FEATURES`.
        mean: channel means of its training images, on a 0-1 scale.
        std: the standard deviations that go with `mean`.
        min_max: as in `DomainEncoder`.
        model_args: what differs from timm's architecture.
        weights: the file of a model that is part of this package; None for others.
    """

    timm_name: str
    checkpoint: CheckpointFormat
    image_size: int
    features: tuple[str, ...] = ("encoder",)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    min_max: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None


MAE = CheckpointFormat(
    expected="an MAE checkpoint ({'model': state_dict} or a state dict, with or without decoder)",
    unused=("decoder_", "mask_token"),
)
SAM = CheckpointFormat(
    expected="a SAM or MedSAM checkpoint (state dict with keys image_encoder.*)",
    unused=("prompt_encoder.", "mask_decoder."),
    prefix="image_encoder.",
    rename=((".mlp.lin", ".mlp.fc"),),
)
# SAM's epsilon; timm's samvit builds with PyTorch's 1e-5.
SAM_ARGS = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
RECIPES = {
    "mae_vit_base_patch16": Recipe("vit_base_patch16_224", MAE, 224, FEATURES),
    "mae_vit_large_patch16": Recipe("vit_large_patch16_224", MAE, 224, FEATURES),
    "mae_vit_huge_patch14": Recipe("vit_huge_patch14_224", MAE, 224, FEATURES),
    # SAM's pixel_mean (123.675, ...) and pixel_std (58.395, ...) are 255 times ImageNet's.
    "sam_vit_base": Recipe("samvit_base_patch16", SAM, 1024, model_args=SAM_ARGS),
    # MedSAM was fine-tuned, and is run by its authors, on images scaled to 0-1 one by one.
    "medsam_vit_base": Recipe(
        "samvit_base_patch16",
        SAM,
        1024,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        min_max=True,
        model_args=SAM_ARGS,
    ),
}
NAMES = (*RECIPES, *PACKAGED_MODELS, CLIP)


def find_recipe(name: str) -> Recipe | None:
    """Return the recipe of a published or packaged encoder; None for other names."""
    module = packaged_model(name)
    if module is None:
        return RECIPES.get(name)
    return Recipe(
        module.DOMAIN_ARCHITECTURE,
        CheckpointFormat(expected=f"the packaged domain encoder '{name}'"),
        module.SIZE,
        model_args=module.DOMAIN_CONFIG,
        weights=module.ASSETS / module.DOMAIN_FILE,
    )
