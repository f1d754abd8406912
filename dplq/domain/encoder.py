"""Frozen domain encoder: images in, pooled domain features out.

A network of timm, or CLIP's own image encoder, between two fixed steps: CLIP-normalised images are
renormalised and resized to the network's input, its patch tokens or feature map are averaged over
space (docs/method.md, "Domain feature").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.errors import UserError
from dplq.io.spec import Spec

if TYPE_CHECKING:
    from dplq.clip.backbone import Backbone

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Below a quarter of one 8-bit step an image counts as constant. MedSAM's own 1e-8 is for integers:
# undoing CLIP's normalisation leaves differences of 1e-7, which must not be amplified to 0..1.
_MIN_RANGE = 1e-3


class DomainEncoder(nn.Module):
    """Frozen network with its preprocessing and pooling.

    It stays in eval mode and has no trainable parameter.

    Args:
        encoder: network with `num_features` and with `forward_features`, which returns (B, C),
            (B, N, C), (B, C, h, w) or, where its `output_fmt` is "NHWC", (B, h, w, C). Its
            `num_prefix_tokens` (class, registers) are not pooled.
        spec: the arguments of `load_domain_encoder`, for checkpoints and messages.
        image_size: side in pixels of the network's square input.
        feature_dim: d_f, width of the result.
        mean: the three channel means that the network was trained with, on a 0-1 scale; None
            leaves the images unchanged.
        std: the standard deviations that go with `mean`.
        min_max: scale each resized image to 0..1 over all its channels and pixels.
        projection: applied to the pooled feature (a Linear commutes with the mean over tokens).
        image_mean: mean of the normalisation that the incoming images carry; default CLIP's.
        image_std: the standard deviation that goes with `image_mean`.
    """

    encoder: Any  # a timm model or a ClipImageEncoder: nn.Module does not declare their methods
    projection: nn.Linear | nn.Identity

    def __init__(
        self,
        encoder: nn.Module,
        *,
        spec: Spec,
        image_size: int,
        feature_dim: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_max: bool = False,
        projection: nn.Linear | None = None,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Identity() if projection is None else projection
        self.spec = spec
        self.name = spec.name
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
        """Return all numbers that determine the feature of an image, by name."""
        numbers = {"renormalisation": torch.as_tensor(self._affine), **self.state_dict()}
        if isinstance(self.encoder, ClipImageEncoder):
            numbers |= self.encoder.backbone.state_dict()
        return numbers

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        if isinstance(self.encoder, ClipImageEncoder):
            return self.encoder.backbone.dtype
        return next((p.dtype for p in self.encoder.parameters()), torch.float32)

    def prepare(self, images: Tensor) -> Tensor:
        """Renormalise and resize CLIP-normalised images to the network's input.

        Resizing is bicubic with antialiasing: what MedSAM's own preparation (order-3 splines,
        anti_aliasing) and timm's evaluation of these ViTs use. It runs on the images' device, in
        fp32. Images of the right size are not resampled. Min-max scaling comes last, as in
        MedSAM's own inference; its rounding to 8 bits in between is not imitated.

        Args:
            images: (B, 3, H, W), CLIP-normalised.

        Returns:
            (B, 3, image_size, image_size) in the network's dtype.

        Raises:
            UserError: the images have another shape.
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
        range_before = _value_range(images) if self.min_max else None
        size = (self.image_size, self.image_size)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
        if range_before:
            # MedSAM's resizing (scikit-image's) keeps to the image's range: no overshoot at edges.
            images = _scale_to_unit_range(images.clamp(*range_before))
        return images.to(self.dtype)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled domain features.

        Args:
            images: (B, 3, H, W), CLIP-normalised, any size.

        Returns:
            (B, feature_dim), float32, without gradient.

        Raises:
            UserError: the images have another shape, or the network's output cannot be pooled.
        """
        tokens = self.encoder.forward_features(self.prepare(images))
        pooled = _pool(tokens, self.encoder, self.name)
        if pooled.shape[-1] != self.encoder.num_features:
            raise UserError(
                f"domain encoder '{self.name}' returns features of width {pooled.shape[-1]} where "
                f"timm declares {self.encoder.num_features}: choose another encoder"
            )
        if isinstance(self.projection, nn.Linear):
            pooled = self.projection(pooled.to(self.projection.weight.dtype))
        return pooled.float()


class ClipImageEncoder(nn.Module):
    """CLIP's own image encoder behind the interface of a timm model.

    The backbone is held in a tuple, so that none of its weights is registered a second time.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._held = (backbone,)
        self.num_features = backbone.embed_dim

    @property
    def backbone(self) -> Backbone:
        """The CLIP backbone, which belongs to the prompted model."""
        return self._held[0]

    def forward_features(self, images: Tensor) -> Tensor:
        """Return (B, embed_dim) for images (B, 3, H, W)."""
        return self.backbone.encode_image(images)


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


def _value_range(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of each image, both (B, 1, 1, 1)."""
    dims = (1, 2, 3)
    return images.amin(dims, keepdim=True), images.amax(dims, keepdim=True)


def _scale_to_unit_range(images: Tensor) -> Tensor:
    """Scale each image (3, H, W) of a batch to 0..1, as MedSAM does; a constant one becomes 0."""
    low, high = _value_range(images)
    return (images - low) / (high - low).clamp_min(_MIN_RANGE)


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
        f"domain encoder '{name}' returns {kind}, which cannot be pooled: expected tokens "
        "(B, N, C) or a feature map (B, C, h, w). Choose another encoder"
    )
