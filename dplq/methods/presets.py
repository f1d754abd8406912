"""Presets of the methods with a domain encoder, and the noise that they switch.

The switches are those of docs/method.md, "Oddities of the release"; the values of every preset
stand here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError, suggest
from dplq.methods.settings import MethodSettings, option
from dplq.training.distributed import batch_mean, current_part

PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "fusion": "sum",
        "residual": False,
        "layer": "quaternion",
        "noise": True,
        "noise_scale": "image",
        "noise_at_test": False,
        "clone_init": False,
        "text_init": "random",
        "standardize": False,
        "head_weight": 0.0,
        "zeroshot_weight": 0.0,
        "map_weight": 0.0,
    },
}
PRESETS["reference"] = PRESETS["default"] | {
    "noise_scale": "batch",
    "noise_at_test": True,
    "clone_init": True,
}
# Starts at CLIP's own texts; a linear head takes part among trained classes, a linear map to the
# texts among others.
PRESETS["residual_head"] = PRESETS["default"] | {
    "residual": True,
    "text_init": "words",
    "standardize": True,
    "head_weight": 0.7,
    "map_weight": 0.6,
}
# The normalisation of the domain encoder's images, where DOMAIN.NORMALIZE does not say.
PRESET_NORMALIZE = {"default": "native", "reference": "clip", "residual_head": "native"}
NOISE_SCALES = ("image", "batch")


@dataclass(frozen=True)
class PresetSettings(MethodSettings):
    """Settings whose switches follow a preset where they are None."""

    preset: str = option(
        "default", "default, or reference (the authors' release)", choices=("default", "reference")
    )
    noise: bool | None = option(
        None, "Gaussian noise in training, on the language prompt; DCPL: on the image feature"
    )
    noise_scale: str | None = option(
        None, "image, or batch (mean of the whole batch)", choices=NOISE_SCALES
    )
    noise_at_test: bool | None = option(None, "noise at test time too")
    clone_init: bool | None = option(None, "the layers that make the image prompts start equal")

    def resolved(self) -> Any:
        """Return the settings with the preset's value for every switch that is None."""
        values = PRESETS[self.preset]
        missing = [f.name for f in fields(self) if getattr(self, f.name) is None]
        return replace(self, **{name: values[name] for name in missing if name in values})

    def report_unused_switches(self, *, depth: int, has_domain: bool = True) -> None:
        """Log the switches that were set, but that another setting disables.

        Args:
            depth: layers with prompts; in the first one nothing is cloned.
            has_domain: whether there is a domain feature, from which the noise follows.
        """
        for name, reason in self.unused_switches(depth, has_domain).items():
            if getattr(self, name) != PRESETS[self.preset][name]:
                self.report_unused(name, reason)

    def unused_switches(self, depth: int, has_domain: bool) -> dict[str, str]:
        """Return the switches that another setting disables, each with the reason."""
        reasons = {}
        if depth == 1:
            reasons["clone_init"] = "PROMPT_DEPTH 1 leaves no deeper layers"
        if not self.resolved().noise:
            reasons |= dict.fromkeys(("noise_scale", "noise_at_test"), "NOISE is False")
        if not has_domain:
            noise = ("noise", "noise_scale", "noise_at_test")
            reasons |= dict.fromkeys(noise, "there is no domain feature")
        return reasons


def check_preset(preset: str) -> str:
    """Return `preset` if it exists, else raise a UserError that lists the choices."""
    if preset not in PRESETS:
        raise UserError(f"PRESET '{preset}' is unknown.{suggest(preset, PRESETS)}")
    return preset


def draw_noise(
    features: Tensor,
    width: int,
    settings: PresetSettings,
    training: bool,
    generator: torch.Generator | None = None,
) -> Tensor | None:
    """Draw noise whose scale is a mean of features; None where the settings switch it off.

    Args:
        features: (B, d); their mean, of each row or of the batch, is the standard deviation.
        width: of the noise.
        settings: resolved ones.
        training: False at test time.
        generator: source of the random numbers; None takes torch's global one.

    Returns:
        (B, width).
    """
    if not settings.noise or not (training or settings.noise_at_test):
        return None
    if settings.noise_scale == "batch":
        scale = batch_mean(features)
    else:
        scale = features.mean(dim=1, keepdim=True)
    part = current_part(len(features))  # noise belongs to an image, whichever process has it
    noise = torch.randn(
        (part.total, width), generator=generator, dtype=features.dtype, device=features.device
    )
    return scale * noise[part.rows]
