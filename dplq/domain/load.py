"""Domain encoders: an image goes in, one pooled domain feature comes out (METHOD.md, "The domain
feature"). timm builds the networks; this file reads the public checkpoints strictly and pools.

    encoder = load_domain_encoder("mae_vit_base_patch16", weights="vit-b-checkpoint-1599.pth")
    features = encoder(images)  # (B, 3, H, W), CLIP-normalised -> (B, encoder.feature_dim)

Names: the MAE, SAM and MedSAM architectures of `_RECIPES`, `clip` (CLIP's own image feature), any
timm name, or `hf-hub:org/name`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.demo import models as demo_models
from dplq.errors import UserError, few, one_line, suggest
from dplq.io.files import file_digest
from dplq.io.weights import (
    describe_checkpoint,
    is_torchscript,
    private_rng,
    read_state_dict,
    skip_weight_init,
    warn_framed,
)

if TYPE_CHECKING:
    from dplq.clip.backbone import Backbone

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURES = ("encoder", "decoder_embed")
NORMALIZATIONS = ("native", "clip")

_HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")
_MAE_DECODER_WIDTH = 512  # of all three public MAE models
# Below a quarter of one 8-bit step an image counts as constant. MedSAM's own 1e-8 is for integers:
# undoing CLIP's normalisation leaves differences of 1e-7, which must not be blown up to 0..1.
_FLAT = 1e-3


@dataclass(frozen=True)
class _Layout:
    """How a public checkpoint is laid out.

    Attributes:
        expected: what the file should be, for error messages.
        leave: prefixes of the keys that are left unused when the model lacks them.
        strip: prefix of the encoder's keys in the file.
        rename: (old, new) parts of key names.
    """

    expected: str
    leave: tuple[str, ...] = ()
    strip: str = ""
    rename: tuple[tuple[str, str], ...] = ()

    def own_key(self, key: str) -> str:
        """Return the timm model's name of the file's `key`."""
        if self.strip and key.startswith(self.strip):
            key = key[len(self.strip) :]
        for old, new in self.rename:
            key = key.replace(old, new)
        return key


@dataclass(frozen=True)
class _Recipe:
    """A published encoder: its timm architecture, checkpoint layout and what it reads.

    `mean` and `std` are on a 0-1 scale; `min_max` as in `DomainEncoder`.
    """

    timm_name: str
    layout: _Layout
    image_size: int
    features: tuple[str, ...] = ("encoder",)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    min_max: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    packaged: Path | None = None


_MAE_LAYOUT = _Layout(
    expected="an MAE checkpoint ({'model': state_dict} or a state dict, with or without decoder)",
    leave=("decoder_", "mask_token"),
)
_SAM_LAYOUT = _Layout(
    expected="a SAM or MedSAM checkpoint (state dict with keys image_encoder.*)",
    leave=("prompt_encoder.", "mask_decoder."),
    strip="image_encoder.",
    rename=((".mlp.lin", ".mlp.fc"),),
)
# SAM's epsilon; timm's samvit builds with PyTorch's 1e-5.
_SAM_ARGS = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
_RECIPES = {
    "mae_vit_base_patch16": _Recipe("vit_base_patch16_224", _MAE_LAYOUT, 224, FEATURES),
    "mae_vit_large_patch16": _Recipe("vit_large_patch16_224", _MAE_LAYOUT, 224, FEATURES),
    "mae_vit_huge_patch14": _Recipe("vit_huge_patch14_224", _MAE_LAYOUT, 224, FEATURES),
    # SAM's pixel_mean (123.675, ...) and pixel_std (58.395, ...) are 255 times ImageNet's.
    "sam_vit_base": _Recipe("samvit_base_patch16", _SAM_LAYOUT, 1024, model_args=_SAM_ARGS),
    # MedSAM was fine-tuned, and is run by its authors, on images scaled to 0-1 one by one.
    "medsam_vit_base": _Recipe(
        "samvit_base_patch16",
        _SAM_LAYOUT,
        1024,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        min_max=True,
        model_args=_SAM_ARGS,
    ),
    # The demo's, whose weights come with this project.
    "demo": _Recipe(
        "vit_tiny_patch16_224",
        _Layout(expected="the demo's domain encoder"),
        demo_models.SIZE,
        model_args=demo_models.DOMAIN_CONFIG,
        packaged=demo_models.ASSETS / demo_models.DOMAIN_FILE,
    ),
}
NAMES = (*_RECIPES, "clip")


class DomainEncoder(nn.Module):
    """A frozen network and what turns CLIP's input into its input and its output into a vector.

    It stays in eval mode and has no trainable parameter.

    Args:
        encoder: network with `forward_features` -> (B, C), (B, N, C), (B, C, h, w) or, where its
            `output_fmt` is "NHWC", (B, h, w, C). Its `num_prefix_tokens` (class, registers) are
            not pooled.
        spec: JSON-able arguments of `load_domain_encoder`; "name" is read here.
        image_size: side in pixels of the square images that the encoder takes.
        feature_dim: d_f, width of the result.
        mean: three channel means the encoder was trained with, on a 0-1 scale; None leaves the
            image as it comes.
        std: the standard deviations that go with `mean`.
        min_max: each resized image is scaled to 0..1 over all its channels and pixels.
        projection: applied to the pooled feature (a Linear commutes with the mean over tokens).
        image_mean: mean of the normalisation that the incoming images carry; CLIP's.
        image_std: the standard deviation that goes with `image_mean`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        spec: Mapping[str, Any],
        image_size: int,
        feature_dim: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_max: bool = False,
        projection: nn.Module | None = None,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Identity() if projection is None else projection
        self.spec = dict(spec)
        self.name = self.spec["name"]
        self.image_size = image_size
        self.feature_dim = feature_dim
        self.renormalises = mean is not None
        self.min_max = min_max
        # No buffer: the statistics stay fp32 when the encoder is cast to half precision.
        self._affine = _renormalisation(image_mean, image_std, mean, std)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> DomainEncoder:
        """Stay in eval mode whatever `mode` says: the encoder is frozen."""
        return super().train(False)

    def identity(self) -> dict[str, Tensor]:
        """All numbers that decide the feature of an image, by name."""
        numbers = {"renormalisation": torch.as_tensor(self._affine), **self.state_dict()}
        if isinstance(self.encoder, _ClipImageFeature):
            numbers |= self.encoder.backbone.state_dict()
        return numbers

    @property
    def dtype(self) -> torch.dtype:
        """The number type that the encoder computes in."""
        if isinstance(self.encoder, _ClipImageFeature):
            return self.encoder.backbone.dtype
        return next((p.dtype for p in self.encoder.parameters()), torch.float32)

    def prepare(self, images: Tensor) -> Tensor:
        """Renormalise and resize CLIP-normalised images to what the encoder takes.

        Resizing is bicubic with antialiasing: what MedSAM's own preparation (order-3 splines,
        anti_aliasing) and timm's evaluation of these ViTs use. It runs on the images' device, in
        fp32. Images of the right size are not resampled. Min-max scaling comes last, as in
        MedSAM's own inference; its rounding to 8 bits in between is not imitated.

        Args:
            images: (B, 3, H, W), CLIP-normalised.

        Returns:
            (B, 3, image_size, image_size) in the encoder's dtype.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(
                f"domain encoder '{self.name}': expected images of shape (B, 3, H, W), "
                f"got {tuple(images.shape)}"
            )
        images = images.float()
        if self.renormalises:
            self._affine = self._affine.to(images.device)
            images = images * self._affine[0] + self._affine[1]
        range_before = _extremes(images) if self.min_max else None
        if tuple(images.shape[-2:]) != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
        if range_before:
            # MedSAM's resizing (scikit-image's) keeps to the image's range: no overshoot at edges.
            images = _min_max(images.clamp(*range_before))
        return images.to(self.dtype)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled domain features.

        Args:
            images: (B, 3, H, W), CLIP-normalised, any size.

        Returns:
            (B, feature_dim), float32, without gradient.
        """
        tokens = self.encoder.forward_features(self.prepare(images))
        pooled = _pool(tokens, self.encoder, self.name)
        if pooled.shape[-1] != self.encoder.num_features:
            raise UserError(
                f"domain encoder '{self.name}' gives features of width {pooled.shape[-1]} where "
                f"timm declares {self.encoder.num_features}: choose another encoder"
            )
        if not isinstance(self.projection, nn.Identity):
            pooled = self.projection(pooled.to(self.projection.weight.dtype))
        return pooled.float()


class _ClipImageFeature(nn.Module):
    """CLIP's own image feature behind the interface of a timm model.

    The backbone is held in a tuple, so that none of its weights is registered a second time.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._held = (backbone,)
        self.num_features = backbone.embed_dim

    @property
    def backbone(self) -> Backbone:
        """The CLIP backbone, owned by somebody else."""
        return self._held[0]

    def forward_features(self, images: Tensor) -> Tensor:
        """Return (B, embed_dim) for images (B, 3, H, W)."""
        return self.backbone.encode_image(images)


def load_domain_encoder(
    name: str,
    *,
    weights: str = "",
    feature: str = "encoder",
    normalize: str = "native",
    pretrained: bool = True,
    backbone: Backbone | None = None,
    seed: int = 0,
) -> DomainEncoder:
    """Build a frozen domain encoder.

    Args:
        name: one of `NAMES`, a timm name, or `hf-hub:org/name`.
        weights: a local checkpoint (.pth or .safetensors); `~` is the home folder. Empty: timm's
            own pretrained weights, which the names in `NAMES` do not have.
        feature: "encoder", the mean of the encoder's (normalised) patch tokens or of its feature
            map; "decoder_embed" (MAE only), the same through MAE's decoder embedding.
        normalize: "native", what the encoder was trained with (`medsam_vit_base`: every image
            scaled to 0..1, as MedSAM_Inference.py does; `sam_vit_base`: SAM's pixel mean and std);
            "clip", the image unchanged (the reference's behaviour). `clip` always takes the image
            unchanged.
        pretrained: False gives random weights (for tests), with a warning.
        backbone: CLIP; needed by `clip`. Its mean and std are what "native" undoes; without it
            OpenAI CLIP's are.
        seed: of the random weights.

    Raises:
        UserError: unknown name or value, weights that cannot be had or that do not fit.
    """
    _check_choice("feature", feature, FEATURES)
    _check_choice("normalize", normalize, NORMALIZATIONS)
    recipe = _RECIPES.get(name)
    if feature not in (recipe.features if recipe else ("encoder",)):
        raise UserError(
            f"domain encoder '{name}' has no feature '{feature}': it is MAE's alone "
            f"({', '.join(n for n, r in _RECIPES.items() if feature in r.features)}). "
            "Use feature 'encoder'"
        )
    if weights and not pretrained:
        raise UserError(
            f"domain encoder '{name}': weights '{weights}' and pretrained=False contradict each "
            "other; give one of them"
        )
    spec: dict[str, Any] = {
        "name": name,
        "weights": Path(weights).name,
        "feature": feature,
        "normalize": normalize,
        "pretrained": pretrained,
        "seed": seed,
    }
    if name == "clip":
        return _load_clip(backbone, weights, spec)
    state = None
    if weights:
        file = Path(weights).expanduser()
        state = _read_checkpoint(file)
        spec["weights_sha256"] = file_digest(file)
    elif recipe and recipe.packaged and pretrained:
        state = _read_checkpoint(recipe.packaged)
    elif recipe and pretrained:
        raise UserError(
            f"domain encoder '{name}' has no weights to download: set weights (DOMAIN.WEIGHTS) "
            f"to a local file, {recipe.layout.expected}; or pretrained=False for random weights"
        )
    with private_rng(seed):
        if recipe:
            with nullcontext() if state is None else skip_weight_init():
                model = _create(name, recipe.timm_name, **recipe.model_args)
        else:
            model, recipe = _build_timm(name, download=pretrained and not weights)
        encoder = _assemble(model, recipe, spec, state, path=weights, backbone=backbone)
    if not pretrained:
        warn_framed(
            "*",
            f"Domain encoder '{name}' has RANDOM WEIGHTS (pretrained=False, seed {seed}).",
            "Its features carry no domain knowledge; results are good for tests only.",
        )
    return encoder


def _assemble(
    model: nn.Module,
    recipe: _Recipe,
    spec: Mapping[str, Any],
    state: Mapping[str, Tensor] | None,
    *,
    path: str = "",
    backbone: Backbone | None = None,
) -> DomainEncoder:
    """Load `state` strictly into a timm model and put it behind the adapter.

    Args:
        model: built, without classifier.
        recipe: its layout, size and pixel statistics.
        spec: of `load_domain_encoder`.
        state: the checkpoint's tensors; None keeps the model's weights.
        path: the checkpoint's file, for messages.
        backbone: whose normalisation the images carry; None: OpenAI CLIP's.
    """
    projection = None
    if spec["feature"] == "decoder_embed":
        kernel = (state or {}).get("decoder_embed.weight")
        width = _MAE_DECODER_WIDTH if kernel is None else kernel.shape[0]
        # Attached while loading, so that the strict check covers it.
        projection = model.decoder_embed = nn.Linear(model.num_features, width)
    if state is not None:
        _load_strict(model, state, recipe.layout, name=spec["name"], path=path)
    if projection is not None:
        del model.decoder_embed
    native = spec["normalize"] == "native"
    return DomainEncoder(
        model,
        spec=spec,
        image_size=recipe.image_size,
        feature_dim=projection.out_features if projection else model.num_features,
        mean=recipe.mean if native else None,
        std=recipe.std if native else None,
        min_max=recipe.min_max and native,
        projection=projection,
        image_mean=backbone.image_mean if backbone is not None else CLIP_MEAN,
        image_std=backbone.image_std if backbone is not None else CLIP_STD,
    )


def _load_clip(backbone: Backbone | None, weights: str, spec: Mapping[str, Any]) -> DomainEncoder:
    """Return CLIP's own image feature as a domain encoder."""
    if backbone is None:
        raise UserError("domain encoder 'clip' needs backbone=, the loaded CLIP backbone")
    if weights:
        raise UserError(
            f"domain encoder 'clip' takes no weights of its own, got '{weights}': the backbone's "
            "are used. Leave weights empty"
        )
    model = _ClipImageFeature(backbone)
    return DomainEncoder(
        model, spec=spec, image_size=backbone.image_size, feature_dim=backbone.embed_dim
    )


def _create(name: str, timm_name: str, *, pretrained: bool = False, **model_args: Any) -> nn.Module:
    """`timm.create_model` without classifier; its failures become a UserError."""
    import timm

    try:
        return timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **model_args)
    except Exception as error:  # the hub raises its HTTP client's own exceptions
        if pretrained:
            what, cure = "its weights cannot be had", _POINT_TO_FILE
        else:
            what = "timm cannot build it"
            cure = "Check the name; beside a local file give the architecture's timm name"
        raise UserError(f"domain encoder '{name}': {what} ({one_line(error)}). {cure}") from error


def _build_timm(name: str, *, download: bool) -> tuple[nn.Module, _Recipe]:
    """Build any timm or Hugging Face hub model; timm fetches the weights if `download`."""
    import timm

    hub = name.startswith(_HUB_PREFIXES)
    if not hub and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.6)
        raise UserError(
            f"unknown domain encoder '{name}': not one of ours, not a timm name and not "
            f"'hf-hub:org/name'.{suggest(name, [*NAMES, *near])}"
        )
    # timm only warns when there is nothing to download, and the weights stay random.
    if download and not hub and not timm.models.is_model_pretrained(name):
        raise UserError(f"timm has no pretrained weights for '{name}'. {_POINT_TO_FILE}")
    model = _create(name, name, pretrained=download)
    data = timm.data.resolve_model_data_config(model)
    _, height, width = data["input_size"]
    if height != width:
        raise UserError(
            f"domain encoder '{name}' takes {height}x{width} images; only square ones are supported"
        )
    layout = _timm_layout(name, model)
    return model, _Recipe(name, layout, height, mean=tuple(data["mean"]), std=tuple(data["std"]))


_POINT_TO_FILE = (
    "Download the weights by other means and set weights (DOMAIN.WEIGHTS) to the local file"
)


def _timm_layout(name: str, model: nn.Module) -> _Layout:
    """timm's own layout: the model's keys, and a classifier that is left."""
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return _Layout(
        expected=f"timm's own state dict of {name}", leave=tuple(f"{head}." for head in heads)
    )


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    """Raise UserError if `value` is not one of `choices`."""
    if value not in choices:
        raise UserError(f"unknown domain {key} '{value}'.{suggest(value, choices)}")


def _renormalisation(
    image_mean: Sequence[float],
    image_std: Sequence[float],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Tensor:
    """Return (scale, shift), (2, 3, 1, 1): x * scale + shift has the encoder's normalisation."""
    if mean is None or std is None:
        mean, std = image_mean, image_std
    old_mean, old_std, new_mean, new_std = (
        torch.tensor(tuple(v), dtype=torch.float64).view(3, 1, 1)
        for v in (image_mean, image_std, mean, std)
    )
    return torch.stack([old_std / new_std, (old_mean - new_mean) / new_std]).float()


def _extremes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest number of each image, both (B, 1, 1, 1)."""
    over = (1, 2, 3)
    return images.amin(over, keepdim=True), images.amax(over, keepdim=True)


def _min_max(images: Tensor) -> Tensor:
    """Scale each image (3, H, W) of a batch to 0..1, as MedSAM does; a constant one becomes 0."""
    low, high = _extremes(images)
    return (images - low) / (high - low).clamp_min(_FLAT)


def _pool(tokens: Any, model: nn.Module, name: str) -> Tensor:
    """Average tokens or a feature map over space, in fp32: (B, C)."""
    if isinstance(tokens, Tensor) and tokens.ndim in (2, 3, 4):
        tokens = tokens.float()
        if tokens.ndim == 2:
            return tokens
        if tokens.ndim == 4:
            channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
            return tokens.mean((1, 2) if channels_last else (2, 3))
        has_class_token = getattr(model, "cls_token", None) is not None
        return tokens[:, getattr(model, "num_prefix_tokens", int(has_class_token)) :].mean(1)
    kind = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
    raise UserError(
        f"domain encoder '{name}' gives {kind}, which cannot be pooled: expected tokens (B, N, C) "
        "or a feature map (B, C, h, w). Choose another encoder"
    )


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a domain encoder's file, by key.

    Raises:
        UserError: no such file, OpenAI CLIP's, or as `read_state_dict`.
    """
    if not path.is_file():
        raise UserError(
            f"domain encoder weights '{path}': no such file. Set weights (DOMAIN.WEIGHTS) to a "
            "local checkpoint"
        )
    if is_torchscript(path):
        raise UserError(
            f"domain encoder weights '{path}' are a TorchScript archive; OpenAI CLIP's files are. "
            "Expected a state dict. CLIP's own feature is the domain encoder 'clip'"
        )
    return read_state_dict(path)


def _load_strict(
    model: nn.Module, state: Mapping[str, Tensor], layout: _Layout, *, name: str, path: str
) -> None:
    """Load `state` into `model`: every key is used or on the layout's list, none is missing.

    Args:
        model: the timm model.
        state: tensors by the file's own keys.
        layout: how the file is laid out.
        name: the encoder's name, for messages.
        path: the file, for messages.

    Raises:
        UserError: the file does not fit; says what it looks like.
    """
    own = model.state_dict()
    given = {layout.own_key(k): v for k, v in state.items()}
    unknown = [k for k in given if k not in own and not k.startswith(layout.leave)]
    missing = [k for k in own if k not in given]
    shapes = [
        f"{k} is {tuple(given[k].shape)} in the file and {tuple(own[k].shape)} in the model"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    if not (unknown or missing or shapes):
        model.load_state_dict({k: given[k] for k in own})
        return
    parts = [
        f"'{path}' does not fit domain encoder '{name}'. It looks like {describe_checkpoint(state)}"
    ]
    parts[0] += f"; expected {layout.expected}"
    sizes = _vit_size(given), _vit_size(own)
    if all(sizes) and sizes[0] != sizes[1]:
        parts.append(f"The file is {sizes[0]}; {name} is {sizes[1]}")
    else:
        parts += shapes[:1]
        parts += [f"Missing: {few(missing, limit=3)}"] if missing else []
        parts += [f"Unknown: {few(unknown, limit=3)}"] if unknown else []
    if any(k.startswith("decoder_embed.") for k in missing):
        parts.append("Without MAE's decoder in the file only feature 'encoder' can be had")
    raise UserError(". ".join(parts))


def _vit_size(state: Mapping[str, Tensor]) -> str:
    """Describe a ViT by width, depth and patch; empty for something else."""
    kernel = state.get("patch_embed.proj.weight")
    blocks = {k.split(".")[1] for k in state if k.startswith("blocks.")}
    if kernel is None or kernel.ndim != 4 or not blocks:
        return ""
    return f"a ViT of width {kernel.shape[0]}, {len(blocks)} blocks, patch {kernel.shape[-1]}"
