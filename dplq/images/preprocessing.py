"""Image transforms on bytes: crops, and normalisation of whole batches.

`split_transform` divides a torchvision transform in two: the image-wise steps, which end in uint8
pixels, and `ToTensor` with `Normalize`, which `Normalizer` applies to batches. Pixels need a
quarter of the memory of normalised values. Except for `ByteCrop`, results are the same bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms as T

CPU = torch.device("cpu")


def to_pixels(image: Image.Image) -> Tensor:
    """Return the pixels of an RGB image, (H, W, 3) uint8."""
    return torch.from_numpy(np.array(image))


class ByteCrop(T.RandomResizedCrop):
    """Random resized crop that interpolates uint8 pixels in torch: twice as fast as Pillow.

    It draws the same crops. Of their bytes fewer than one in a hundred differs, by 1 or 2 of 255
    (measured on photographs; by up to 5 where noise is scaled down a lot).
    """

    def forward(self, img: Image.Image) -> Image.Image:
        """Return a random crop of an RGB image, resized."""
        top, left, height, width = self.get_params(img, self.scale, self.ratio)
        crop = np.array(img.crop((left, top, left + width, top + height)))
        pixels = torch.from_numpy(crop)[None].permute(0, 3, 1, 2)  # channels last: no copy
        mode = self.interpolation.value
        resized = F.interpolate(pixels, self.size, mode=mode, antialias=True)
        return Image.fromarray(resized[0].permute(1, 2, 0).contiguous().numpy())


def as_byte_crop(step: Any) -> Any:
    """Return the `ByteCrop` equivalent to a transform; `step` itself where there is none."""
    if type(step) is not T.RandomResizedCrop or step.interpolation.value == "nearest":
        return step
    return ByteCrop(step.size, step.scale, step.ratio, step.interpolation)


class Normalizer:
    """`ToTensor` and `Normalize` for batches of uint8 pixels, by table lookup.

    Args:
        steps: transforms that map every value of a channel independently.
        device: of the result.

    Attributes:
        table: results for the bytes 0 to 255, (3, 256) float32.
    """

    def __init__(self, steps: list[Any], device: torch.device = CPU) -> None:
        ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
        self.table: Tensor = T.Compose(steps)(Image.fromarray(ramp)).reshape(3, 256).to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return (B, 3, H, W) float32 on the device for pixels (B, H, W, 3) uint8."""
        if self.table.device.type != "cpu":
            return self.gather(pixels.to(self.table.device, non_blocking=True))
        out = np.empty((pixels.shape[0], 3, *pixels.shape[1:3]), np.float32)
        for image, planes in zip(pixels.numpy(), out, strict=True):
            for c, values in enumerate(self.table.numpy()):
                np.take(values, image[:, :, c], out=planes[c], mode="clip")
        return torch.from_numpy(out)

    def gather(self, pixels: Tensor) -> Tensor:
        """Return the same for pixels on the device; on a CPU it is four times slower."""
        planes = [values[pixels[..., c].long()] for c, values in enumerate(self.table)]
        return torch.stack(planes, dim=1)


def split_transform(transform: Any, crop_bytes: bool = False) -> tuple[Any, list[Any]]:
    """Split a transform into image-wise steps and a final `ToTensor` and `Normalize`.

    Args:
        transform: of torchvision.
        crop_bytes: replace a random resized crop by a `ByteCrop`.

    Returns:
        The image-wise steps, up to uint8 pixels, and the two last steps. Where `transform` does
        not end in these two: `transform` itself, and no steps.
    """
    steps = list(transform.transforms) if isinstance(transform, T.Compose) else []
    if [type(step) for step in steps[-2:]] != [T.ToTensor, T.Normalize]:
        return transform, []
    first = [as_byte_crop(step) if crop_bytes else step for step in steps[:-2]]
    return T.Compose([*first, to_pixels]), steps[-2:]
