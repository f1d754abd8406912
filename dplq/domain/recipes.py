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
        pool: how its authors pool, of `dplq.domain.pooling.POOLS`.
        statistics: where `mean` and `std` are from, where that must be said.
        resolution: of Scale-MAE: metres per pixel that the positions are computed for.
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
    pool: str = "avg"
    statistics: str = ""
    resolution: float = 0.0
    weights: Path | None = None


MAE = CheckpointFormat(
    expected="an MAE checkpoint ({'model': state_dict} or a state dict, with or without decoder)",
    unused=("decoder_", "mask_token", "head."),
)
SCALE_MAE = CheckpointFormat(
    expected="a Scale-MAE checkpoint ({'model': state_dict} or torchgeo's state dict)",
    unused=(*MAE.unused, "fpn.", "fcn.", "fcn_high.", "fcn_low.", "pos_emb_projection."),
)
DINOV2 = CheckpointFormat(
    expected=(
        "a DINOv2 checkpoint (its backbone, a training file with a teacher, or transformers' "
        "Dinov2Model)"
    ),
    unused=("head.",),
)
DINOV3 = CheckpointFormat(
    expected="a DINOv3 checkpoint (facebookresearch/dinov3's, or transformers' DINOv3ViTModel)",
    unused=("local_cls_norm.",),
)
TIMM_VIT = CheckpointFormat(expected="a state dict of a timm ViT", unused=("head.",))
TORCHVISION_SWIN = CheckpointFormat(
    expected="torchgeo's state dict of torchvision's Swin V2", unused=("head.",)
)
TIMM_RESNET = CheckpointFormat(expected="a state dict of a timm ResNet", unused=("fc.",))
SAM = CheckpointFormat(
    expected="a SAM or MedSAM checkpoint (state dict with keys image_encoder.*)",
    unused=("prompt_encoder.", "mask_decoder."),
    prefix="image_encoder.",
    rename=((".mlp.lin", ".mlp.fc"),),
)
# SAM's epsilon; timm's samvit builds with PyTorch's 1e-5.
SAM_ARGS = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
UNI2_ARGS = {
    "depth": 24,
    "num_heads": 24,
    "embed_dim": 1536,
    "init_values": 1e-5,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "mlp_layer": "SwiGLUPacked",
    "act_layer": "silu",
    "reg_tokens": 8,
}
ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # mean and std of images that are not normalised
REFLECTANCE = (
    'torchgeo, whose images are reflectances / 10000: INPUT.WINDOW "[0, 10000]" gives them'
)
UNITS = "torchgeo, whose images are scaled to 0-1 and not normalised"
# torchgeo/models/resnet.py, 0.8. SeCo's scale bands by their own minimum and maximum: left out.
TORCHGEO = {
    "torchgeo_resnet50_fmow_rgb_gassl": Recipe("resnet50", TIMM_RESNET, 224),
    **{
        f"torchgeo_resnet{depth}_sentinel2_rgb_moco": Recipe(
            f"resnet{depth}", TIMM_RESNET, 224, mean=ZERO, std=ONE, statistics=REFLECTANCE
        )
        for depth in (18, 50)
    },
    **{
        f"torchgeo_resnet{depth}_sentinel2_{kind}_rgb_satlas": Recipe(
            f"resnet{depth}", TIMM_RESNET, 256, mean=ZERO, std=ONE, statistics=UNITS
        )
        for depth in (50, 152)
        for kind in ("si", "mi")
    },
}
SWIN_SIZES = {"t": "tiny", "b": "base"}
# torchgeo/models/swin.py, 0.8: pictures from aircraft (NAIP) and Sentinel-2's true colours.
TORCHGEO |= {
    f"torchgeo_swin_v2_{size}_{source}_{kind}_satlas": Recipe(
        f"swinv2_{SWIN_SIZES[size]}_window8_256",
        TORCHVISION_SWIN,
        256,
        mean=ZERO,
        std=ONE,
        statistics=UNITS,
    )
    for size, source in (("b", "aerial"), ("b", "sentinel2_rgb"), ("t", "sentinel2_rgb"))
    for kind in ("si", "mi")
}
# Beginnings of published file names, and the recipe that has the statistics of their weights.
PUBLISHED_FILES = {
    "resnet50_fmow_rgb_gassl": "torchgeo_resnet50_fmow_rgb_gassl",
    "resnet18_sentinel2_rgb_moco": "torchgeo_resnet18_sentinel2_rgb_moco",
    "resnet50_sentinel2_rgb_moco": "torchgeo_resnet50_sentinel2_rgb_moco",
    "sentinel2_resnet50_si_rgb": "torchgeo_resnet50_sentinel2_si_rgb_satlas",
    "sentinel2_resnet50_mi_rgb": "torchgeo_resnet50_sentinel2_mi_rgb_satlas",
    "sentinel2_resnet152_si_rgb": "torchgeo_resnet152_sentinel2_si_rgb_satlas",
    "sentinel2_resnet152_mi_rgb": "torchgeo_resnet152_sentinel2_mi_rgb_satlas",
}
# Published weights whose statistics cannot be those of 8-bit images: mean and std must be given.
WITHOUT_STATISTICS = ("resnet18_sentinel2_rgb_seco", "resnet50_sentinel2_rgb_seco")
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
    # github.com/sustainlab-group/SatMAE, util/datasets.py: of fMoW's RGB images.
    "satmae_vit_large_patch16": Recipe(
        "vit_large_patch16_224",
        MAE,
        224,
        FEATURES,
        mean=(0.4182007312774658, 0.4214799106121063, 0.3991275727748871),
        std=(0.28774282336235046, 0.27541765570640564, 0.2764017581939697),
    ),
    "retfound_vit_large_patch16": Recipe("vit_large_patch16_224", MAE, 224, FEATURES),
    "retfound_dinov2_vit_large_patch14": Recipe(
        "vit_large_patch14_dinov2", DINOV2, 224, model_args={"img_size": 224}, pool="cls"
    ),
    # Its positions are computed, not learned; torchgeo's and the authors' default is 1 m.
    "scalemae_vit_large_patch16": Recipe(
        "vit_large_patch16_224", SCALE_MAE, 224, pool="cls", resolution=1.0
    ),
    **{
        f"dinov2_vit{letter}14{suffix}": Recipe(
            f"vit_{size}_patch14{registers}_dinov2", DINOV2, 518, pool="cls"
        )
        for letter, size in (("s", "small"), ("b", "base"), ("l", "large"), ("g", "giant"))
        for suffix, registers in (("", ""), ("_reg", "_reg4"))
    },
    # timm's variant with the published biases; timm's statistics are those of the authors.
    "dinov3_vitl16_sat493m": Recipe(
        "vit_large_patch16_dinov3_qkvb",
        DINOV3,
        256,
        mean=(0.430, 0.411, 0.296),
        std=(0.213, 0.156, 0.143),
        pool="cls",
    ),
    # huggingface.co/microsoft/rad-dino, preprocessor_config.json.
    "rad_dino": Recipe(
        "vit_base_patch14_dinov2", DINOV2, 518, mean=(0.5307,) * 3, std=(0.2583,) * 3, pool="cls"
    ),
    # huggingface.co/MahmoodLab/UNI and UNI2-h, config.json.
    "uni_vit_large_patch16": Recipe(
        "vit_large_patch16_224", TIMM_VIT, 224, model_args={"init_values": 1e-5}, pool="cls"
    ),
    "uni2_vit_huge_patch14": Recipe(
        "vit_giant_patch14_224", TIMM_VIT, 224, model_args=UNI2_ARGS, pool="cls"
    ),
    **TORCHGEO,
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
