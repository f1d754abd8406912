"""Transform pipelines of ``INPUT.TRANSFORMS``, from PIL image to tensor.

The order of the steps is fixed and is not the order of the names in the config.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torchvision import transforms as T
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from yacs.config import CfgNode

from dassl.utils import check_availability

from .image_ops import Cutout, GaussianNoise, InstanceNormalization, Random2DTranslation

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # always part of the test pipeline; ignored in training
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

Step = tuple[str, str, Callable]  # name in INPUT.TRANSFORMS, log line, transform


def interpolation_mode(cfg: CfgNode) -> InterpolationMode:
    """Return the mode named by ``INPUT.INTERPOLATION``."""
    check_availability(cfg.INPUT.INTERPOLATION, INTERPOLATION_MODES, "INPUT.INTERPOLATION")
    return INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]


def normalization(cfg: CfgNode) -> T.Normalize:
    """Return the normalisation with the config's pixel mean and std."""
    return T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)


def build_transform(
    cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None
) -> T.Compose | None:
    """Build the training or the test pipeline, and print its steps.

    Args:
        cfg: the whole config.
        is_train: which of the two.
        choices: instead of ``INPUT.TRANSFORMS``.

    Returns:
        The pipeline; None with ``INPUT.NO_TRANSFORM``.

    Raises:
        ChoiceError: unknown name.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, "INPUT.TRANSFORMS entry")

    print(f"Building transform_{'train' if is_train else 'test'}")
    geometry = _train_geometry(cfg, choices) if is_train else _test_geometry(cfg)
    augment = _augment_steps(cfg) if is_train else []
    steps = [
        *geometry,
        *(step for step in augment if step[0] in choices),
        ("", "to torch tensor of range [0, 1]", T.ToTensor()),
        *(step for step in _tensor_steps(cfg, is_train) if step[0] in choices),
    ]
    for _, line, _ in steps:
        print(f"+ {line}")
    return T.Compose([transform for _, _, transform in steps])


def _train_geometry(cfg: CfgNode, choices: Sequence[str]) -> list[Step]:
    """Return the steps that resize or crop an image to INPUT.SIZE."""
    size, mode = cfg.INPUT.SIZE, interpolation_mode(cfg)
    padding, scale = cfg.INPUT.CROP_PADDING, cfg.INPUT.RRCROP_SCALE
    steps: list[Step] = [
        ("random_translation", "random translation", Random2DTranslation(size[0], size[1])),
        (
            "random_crop",
            f"random crop (padding = {padding})",
            T.RandomCrop(size, padding=padding),
        ),
        (
            "random_resized_crop",
            f"random resized crop (size={size}, scale={scale})",
            T.RandomResizedCrop(size, scale=scale, interpolation=mode),
        ),
    ]
    chosen = [step for step in steps if step[0] in choices]
    if "random_crop" in choices or "random_resized_crop" in choices:
        return chosen
    return [("", f"resize to {size[0]}x{size[1]}", T.Resize(size, interpolation=mode)), *chosen]


def _test_geometry(cfg: CfgNode) -> list[Step]:
    size = cfg.INPUT.SIZE
    resize = T.Resize(max(size), interpolation=interpolation_mode(cfg))
    return [
        ("", f"resize the smaller edge to {max(size)}", resize),
        ("", f"{size[0]}x{size[1]} center crop", T.CenterCrop(size)),
    ]


def _augment_steps(cfg: CfgNode) -> list[Step]:
    """Return the augmentations of PIL images.

    The three policies and the three RandAugments are torchvision's: their operations and strengths
    are near those of the real Dassl, not equal. FixMatch's draws a strength per operation, as
    TrivialAugment does; the second applies each with probability 0.6.
    """
    c = cfg.INPUT
    jitter = (c.COLORJITTER_B, c.COLORJITTER_C, c.COLORJITTER_S, c.COLORJITTER_H)
    wide = T.TrivialAugmentWide
    policies: list[Step] = [
        (f"{name}_policy", f"{name} policy", T.AutoAugment(AutoAugmentPolicy(name)))
        for name in ("imagenet", "cifar10", "svhn")
    ]
    return [
        ("random_flip", "random flip", T.RandomHorizontalFlip()),
        *policies,
        (
            "randaugment",
            f"randaugment (n={c.RANDAUGMENT_N}, m={c.RANDAUGMENT_M})",
            T.RandAugment(c.RANDAUGMENT_N, c.RANDAUGMENT_M),
        ),
        (
            "randaugment_fixmatch",
            f"randaugment_fixmatch (n={c.RANDAUGMENT_N})",
            T.Compose([wide() for _ in range(c.RANDAUGMENT_N)]),
        ),
        (
            "randaugment2",
            f"randaugment2 (n={c.RANDAUGMENT_N})",
            T.Compose([T.RandomApply([wide()], p=0.6) for _ in range(c.RANDAUGMENT_N)]),
        ),
        (
            "colorjitter",
            "color jitter (brightness={}, contrast={}, saturation={}, hue={})".format(*jitter),
            T.ColorJitter(*jitter),
        ),
        ("randomgrayscale", "random gray scale", T.RandomGrayscale(p=c.RGS_P)),
        (
            "gaussian_blur",
            f"gaussian blur (kernel={c.GB_K})",
            T.RandomApply([T.GaussianBlur(c.GB_K)], p=c.GB_P),
        ),
    ]


def _tensor_steps(cfg: CfgNode, is_train: bool) -> list[Step]:
    c = cfg.INPUT
    normalize: Step = (
        "normalize",
        f"normalization (mean={c.PIXEL_MEAN}, std={c.PIXEL_STD})",
        normalization(cfg),
    )
    instance: Step = ("instance_norm", "instance normalization", InstanceNormalization())
    if not is_train:
        return [normalize, instance]
    cutout = Cutout(c.CUTOUT_N, c.CUTOUT_LEN)
    noise = GaussianNoise(c.GN_MEAN, c.GN_STD)
    return [
        ("cutout", f"cutout (n_holes={c.CUTOUT_N}, length={c.CUTOUT_LEN})", cutout),
        normalize,
        ("gaussian_noise", f"gaussian noise (mean={c.GN_MEAN}, std={c.GN_STD})", noise),
        instance,
    ]
