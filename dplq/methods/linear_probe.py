"""Linear probe: logistic regression on the image features of the frozen CLIP.

Radford et al., ICML 2021, section 3.2; few-shot as in CoOp (lpclip/linear_probe.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.methods.base import CLIPModel
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class LinearProbeSettings(MethodSettings):
    """Settings of a linear probe."""

    C: float | None = option(None, "inverse regularisation strength, set by the fit", is_key=False)


@register_method
class LinearProbeModel(CLIPModel):
    """Linear classifier on CLIP's image features; class names are not used.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: not used: the layer is fitted, not trained from initial values.
        **settings: fields of `LinearProbeSettings`.
    """

    method, settings_class = "LinearProbe", LinearProbeSettings
    structure = ()
    any_classes = False

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = LinearProbeSettings(**settings)
        head = nn.Linear(clip.embed_dim, len(classnames)).requires_grad_(False)
        known = {key: value for key, value in asdict(given).items() if value is not None}
        super().__init__(clip, head, classnames, settings=known)

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, d) of images, as they come from CLIP, float32."""
        return self.clip.encode_image(images).to(self.learner_dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W)."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # it would round the logits
            return self.prompt_learner(features)
