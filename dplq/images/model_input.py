"""How image files become a model's input: the transform of a run's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from .reader import convert_image
from .settings import DEFAULTS, ReadSettings, changed_of, read_settings

RECORDED = ("interpolation", "mean", "std", "instance_norm")  # fields of a header's "input"
SHORTEST, SQUASH = "shortest", "squash"  # open_clip's names of ways to resize


@dataclass(frozen=True)
class ModelInput:
    """Preprocessing of a model's images.

    Args:
        size: pixels per side.
        interpolation: Pillow's "bicubic", "bilinear" or "nearest".
        mean: per channel, of values in 0..1.
        std: per channel.
        instance_norm: each image's channels get mean 0 and standard deviation 1 at last.
        resize_mode: `SHORTEST`, the shorter edge is resized to `size` and the middle is cropped;
            `SQUASH`, both edges are.
        reading: settings of the image reader.
    """

    size: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    instance_norm: bool = False
    resize_mode: str = SHORTEST
    reading: ReadSettings = field(default=DEFAULTS)

    def transform(self) -> T.Compose:
        """Return the transform of a PIL image to a tensor (3, size, size), float32."""
        return T.Compose([ToRGB(self.reading), *self.of_rgb().transforms])

    def of_rgb(self) -> T.Compose:
        """Return the same transform of images that are upright RGB, as the reader's are."""
        interpolation = InterpolationMode(self.interpolation)
        if self.resize_mode == SQUASH:
            resizing = [T.Resize((self.size, self.size), interpolation)]
        else:
            resizing = [T.Resize(self.size, interpolation), T.CenterCrop(self.size)]
        steps = [
            *resizing,
            T.ToTensor(),
            T.Normalize(self.mean, self.std),
        ]
        return T.Compose([*steps, InstanceNorm()] if self.instance_norm else steps)

    def header_entries(self) -> dict[str, Any]:
        """Return the entries of a checkpoint's header, JSON-able.

        Returns:
            "input", also where it is the backbone's own, as the config in the backbone's folder may
            change; "reading", where it is not the default.
        """
        values = {name: getattr(self, name) for name in (*RECORDED, "resize_mode")}
        entry = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        reading = changed_of(self.reading)
        return {"input": entry} | ({"reading": reading} if reading else {})


def recorded_input(header: Mapping[str, Any], own: ModelInput) -> ModelInput:
    """Return the preprocessing that a checkpoint's header, which was checked, records.

    Args:
        header: of the checkpoint; what earlier versions did not write is `own`, but for
            `resize_mode`, which is `SHORTEST`.
        own: the backbone's.

    Raises:
        UserError: a setting of the reader is not possible.
    """
    recorded = header.get("input") or {}
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in recorded.items()
        if value is not None
    }
    reading = read_settings(SimpleNamespace(**(header.get("reading") or {})))
    fields = {name: values.get(name, getattr(own, name)) for name in RECORDED}
    mode = recorded.get("resize_mode") or SHORTEST
    return ModelInput(own.size, **fields, resize_mode=mode, reading=reading)


class ToRGB:
    """Conversion of a PIL image to 8-bit RGB, upright, as the reader converts files.

    Args:
        settings: of the reader.
    """

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image as 8-bit RGB."""
        return convert_image(image, self.settings)

    def __repr__(self) -> str:
        changed = ", ".join(f"{key}={value}" for key, value in changed_of(self.settings).items())
        return f"ToRGB({changed})"


class InstanceNorm:
    """Each channel of a (C, H, W) tensor to mean 0 and standard deviation 1, as Dassl does."""

    def __call__(self, image: Tensor) -> Tensor:
        """Return the normalised image."""
        channels = image.flatten(1)
        mean, std = channels.mean(1)[:, None, None], channels.std(1)[:, None, None]
        return (image - mean) / (std + 1e-8)

    def __repr__(self) -> str:
        return "InstanceNorm()"
