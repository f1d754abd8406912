"""Zero-shot CLIP: class names in fixed texts (Radford et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.clip.templates import DEFAULT_TEMPLATE, ensemble_features, fill_templates
from dplq.methods.base import CLIPModel
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class ZeroshotSettings(MethodSettings):
    """Settings of zero-shot classification."""

    template: str = option(
        "", "text with {} for the class name, in place of the dataset's; empty: the dataset's"
    )
    templates: Sequence[str] = option(
        (DEFAULT_TEMPLATE,), "texts with {} for the class name", is_key=False
    )


@register_method
class ZeroshotModel(CLIPModel):
    """CLIP whose classes are the averaged features of fixed texts; nothing is learned.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: not used.
        **settings: fields of `ZeroshotSettings`; `template` is in place of `templates`.
    """

    method, settings_class = "ZeroshotCLIP", ZeroshotSettings
    needs_images = False

    classes: Tensor

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = ZeroshotSettings(**settings)
        settings = {"templates": [given.template] if given.template else list(given.templates)}
        super().__init__(clip, nn.Identity(), classnames, settings=settings)
        ZeroshotModel._embed_classes(self, self.classnames)

    def _embed_classes(self, classnames: list[str]) -> None:
        """Encode the classes' texts."""
        features = ensemble_features(
            self.clip, classnames, self.settings["templates"], normalize_each=True
        )
        self.register_buffer("classes", features.unsqueeze(0), persistent=False)  # (1, K, d)

    def prompt_texts(self) -> list[list[str]]:
        """Return the texts of every class, whose features are averaged."""
        return [fill_templates(self.settings["templates"], name) for name in self.classnames]

    def prompt_kind(self) -> str:
        """Return that nothing is learned."""
        return "fixed text"

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W)."""
        return self.logits(self.image_features(images), self.classes)
