"""Frozen domain encoder: images in, pooled domain features out.

A network of timm, or CLIP's own image encoder, between two fixed steps: CLIP-normalised images are
renormalised and resized to the network's input, its patch tokens or feature map are pooled
(docs/method.md, "Domain feature").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.domain.pooling import pool_features
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
        pool: how tokens become one feature, of `dplq.domain.pooling.POOLS`.
        in_chans: channels of the network's input. Images of another number than three carry no
            normalisation: `mean` and `std` are in their own units.
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
        pool: str = "avg",
        in_chans: int = 3,
    ) -> None:
        super().__init__()
        if (mean is None) != (std is None):
            raise UserError("mean and std of a domain encoder go together: give both, or neither.")
        self.encoder = encoder
        self.projection = nn.Identity() if projection is None else projection
        self.spec = spec
        self.name = spec.name
        self.image_size = image_size
        self.pool, self.in_chans = pool, in_chans
        self.feature_dim = 2 * feature_dim if pool == "both" else feature_dim
        self.renormalises = mean is not None
        self.min_max = min_max
        # No buffer: the statistics stay fp32 when the encoder is cast to half precision.
        if in_chans != 3:
            image_mean, image_std = (0.0,) * in_chans, (1.0,) * in_chans
        self._native, self._of_images = (mean, std), (tuple(image_mean), tuple(image_std))
        self._affine = _renormalisation(image_mean, image_std, mean, std)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> DomainEncoder:
        """Stay in eval mode whatever `mode` says: the encoder is frozen."""
        return super().train(False)

    def for_images(self, mean: Sequence[float], std: Sequence[float]) -> DomainEncoder:
        """Return the encoder for images that carry another normalisation; tensors are shared.

        Args:
            mean: of the incoming images, as `image_mean`.
            std: the standard deviations that go with it.

        Returns:
            This encoder where that changes nothing.
        """
        given = (tuple(mean), tuple(std))
        if not self.renormalises or self.in_chans != 3 or given == self._of_images:
            return self
        made = copy.deepcopy(self, {id(one): one for one in (*self.parameters(), *self.buffers())})
        made._of_images = given
        made._affine = _renormalisation(*given, *self._native)
        return made

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
            (B, in_chans, image_size, image_size) in the network's dtype.

        Raises:
            UserError: the images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise UserError(
                f"domain encoder '{self.name}': expected images of shape (B, {self.in_chans}, H, W)"
                f", got {tuple(images.shape)}{self._advice_on_bands}"
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

    @property
    def _advice_on_bands(self) -> str:
        """What to do where the network takes other channels than the reader's three."""
        if self.in_chans == 3:
            return ""
        return (
            f". It takes {self.in_chans} bands, and the image reader gives three (INPUT.BANDS): "
            "compute its features in Python from all bands, encoder(bands), and pass them as "
            "domain_features; or choose an encoder of RGB images"
        )

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
        pooled = pool_features(tokens, self.encoder, self.name, self.pool)
        declared = self.encoder.num_features * (2 if self.pool == "both" else 1)
        if pooled.shape[-1] != declared:
            raise UserError(
                f"domain encoder '{self.name}' returns features of width {pooled.shape[-1]} where "
                f"timm declares {declared}: choose another encoder"
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
    """Return (scale, shift), (2, C, 1, 1): x * scale + shift has the encoder's normalisation."""
    if mean is None or std is None:
        mean, std = image_mean, image_std
    old_mean, old_std, new_mean, new_std = (
        torch.tensor(tuple(v), dtype=torch.float64).view(-1, 1, 1)
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
