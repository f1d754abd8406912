"""DCPL: domain-controlled prompt learning (Cao et al., AAAI 2024).

MaPLe's prompts, with the language context shifted by the domain feature of the image, and the
image feature shifted by it too. Follows the authors' code (trainers/DCPL.py of DCPL); its oddities
are off by default and on with PRESET "reference" (`dplq.methods.prompt_learner.PromptOptions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.domain.load import DomainEncoder
from dplq.errors import UserError
from dplq.host.dassl import register_trainer
from dplq.methods.base import Prompts
from dplq.methods.init import bottleneck
from dplq.methods.learned import Design
from dplq.methods.prompt_learner import PromptOptions, draw_noise, resolve_options

from ._engine.domain import DomainTrainer, load_domain
from .maple import MaPLeLearner, MaPLeModel, MaPLeSettings

REDUCTION = 16  # of the adapters' hidden layers
SWITCHES = ("noise", "noise_scale", "noise_at_test", "clone_init")


@dataclass(frozen=True)
class DCPLSettings(MaPLeSettings):
    """What a DCPL model is made of, beside MaPLe's.

    Attributes:
        preset: "default", or "reference" for the behaviour of the authors' release.
        noise, noise_scale, noise_at_test, clone_init: None is the preset's value; as in
            `PromptOptions`, but the noise is added to the image feature.
        domain_dim: d_f, the width of the domain feature.
    """

    preset: str = "default"
    noise: bool | None = None
    noise_scale: str | None = None
    noise_at_test: bool | None = None
    clone_init: bool | None = None
    domain_dim: int = 0


class DCPLLearner(MaPLeLearner):
    """MaPLe's learner and two adapters of the domain feature; arguments as there."""

    def __init__(
        self, context: Tensor, clip: Backbone, given: DCPLSettings, generator: torch.Generator
    ) -> None:
        super().__init__(context, clip, given, generator)
        self.meta_net, self.visual_net = (
            bottleneck(given.domain_dim, max(width // REDUCTION, 1), width, generator)
            for width in (clip.text_width, clip.embed_dim)
        )

    def forward(self, domain_features: Tensor) -> Prompts:
        """Prompts for images of domain features (B, d_f)."""
        prompts, shift = super().forward(), self.meta_net(domain_features)
        return replace(prompts, language=prompts.language + shift[:, None, None])


class DCPLModel(MaPLeModel):
    """CLIP whose language prompts and image features are shifted by the domain feature.

    Args:
        clip, classnames, **settings: as for `LearnedCLIP`.
        domain: the domain encoder, images (B, 3, H, W) -> (B, d_f).
    """

    method = "DCPL"
    settings_class, learner_class = DCPLSettings, DCPLLearner

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, domain: DomainEncoder, **settings: Any
    ) -> None:
        super().__init__(clip, classnames, domain_dim=domain.feature_dim, **settings)
        self.domain = domain

    def design(self, clip: Backbone, classes: int, given: DCPLSettings, generator: Any) -> Design:
        """MaPLe's, with the preset's switches."""
        options = resolve_options(given.preset, **{key: getattr(given, key) for key in SWITCHES})
        given = replace(given, **{key: getattr(options, key) for key in SWITCHES})
        return super().design(clip, classes, given, generator)

    def forward(self, images: Tensor, *, domain_features: Tensor | None = None) -> Tensor:
        """Logits (B, K) of CLIP-normalised images (B, 3, H, W); features given are not computed."""
        learner, dtype = self.prompt_learner, self.learner_dtype
        domain = (self.domain(images) if domain_features is None else domain_features).to(dtype)
        prompts = learner(domain)
        image = self.clip.encode_prompted_image(images, prompts.vision, prompts.deep_vision).to(
            dtype
        )
        options = PromptOptions(**{key: self.settings[key] for key in SWITCHES})
        noise = draw_noise(image, image.shape[1], options, learner.training, self.noise_generator)
        shifted = image + learner.visual_net(domain) + (0 if noise is None else noise)
        return self.logits(F.normalize(shifted, dim=-1), self.text_features(prompts))


@register_trainer
class DCPL(DomainTrainer):
    """A frozen domain encoder shifts MaPLe's language prompts, and the image features."""

    node = "DCPL"

    def build_prompt_model(self, clip: Backbone, classnames: list[str], seed: int) -> nn.Module:
        """Return the model, with the config's domain encoder and switches."""
        domain = load_domain(self.cfg, clip, self.keys.PRESET)
        if domain is None:
            raise UserError("DCPL needs a domain encoder: set DOMAIN.ENCODER, or --trainer MaPLe.")
        self.model_class = partial(DCPLModel, domain=domain)
        return super().build_prompt_model(clip, classnames, seed)
