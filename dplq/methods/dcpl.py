"""DCPL: domain-controlled prompt learning (Cao et al., AAAI 2024).

MaPLe's prompts, with the language context shifted by the domain feature of the image, and the
image feature shifted by it too. Follows the authors' code (trainers/DCPL.py of DCPL); its oddities
are off by default and on with PRESET "reference" (`dplq.methods.presets`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError
from dplq.methods.base import PromptedCLIP, Prompts
from dplq.methods.init import bottleneck, seeded_generator
from dplq.methods.maple import CoupledPrompts, MaPLeSettings, multimodal_prompts
from dplq.methods.presets import PresetSettings, draw_noise
from dplq.methods.registry import register_method
from dplq.methods.settings import option
from dplq.training.frozen.batch import DOMAIN


@dataclass(frozen=True)
class DCPLSettings(PresetSettings, MaPLeSettings):
    """Settings of DCPL: MaPLe's and the preset's switches; the noise is on the image feature."""

    domain_dim: int = option(0, "width of the domain feature, d_f", is_key=False)


class DCPLLearner(CoupledPrompts):
    """MaPLe's prompts and two adapters of the domain feature; arguments as for `CoupledPrompts`."""

    def __init__(
        self, context: Tensor, clip: Backbone, given: DCPLSettings, generator: torch.Generator
    ) -> None:
        super().__init__(context, clip, given, generator)
        self.meta_net, self.visual_net = (
            bottleneck(given.domain_dim, width, generator, base_width=width)
            for width in (clip.text_width, clip.embed_dim)
        )

    def forward(self, domain_features: Tensor) -> Prompts:
        """Return the prompts for images of domain features (B, d_f)."""
        prompts, shift = self.coupled_prompts(), self.meta_net(domain_features)
        return prompts.with_text(prompts.language + shift[:, None, None], prompts.deep_text)


@register_method
class DCPLModel(PromptedCLIP):
    """CLIP whose language prompts and image features are shifted by the domain feature.

    Args:
        clip: the CLIP backbone.
        domain: the domain encoder, images (B, 3, H, W) -> (B, d_f).
        classnames: K class names; underscores become spaces.
        domain_dim: d_f; default: the encoder's.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `DCPLSettings`.

    Raises:
        UserError: no domain encoder, or as for `MaPLeModel`.
    """

    method, settings_class, uses_domain = "DCPL", DCPLSettings, True
    needs = ("text prompts", "image prompts")
    structure = ("n_ctx", "ctx_init", "prompt_depth")

    prompt_learner: DCPLLearner

    def __init__(
        self,
        clip: Backbone,
        domain: DomainEncoder | None,
        classnames: Sequence[str],
        *,
        domain_dim: int | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> None:
        if domain is None:
            raise UserError("DCPL needs a domain encoder: set DOMAIN.ENCODER, or --trainer MaPLe.")
        width = domain.feature_dim if domain_dim is None else domain_dim
        given = DCPLSettings(domain_dim=width, **settings).resolved()
        self.check_support(clip, asdict(given))
        generator = seeded_generator(seed)
        prefix, context = multimodal_prompts(clip, given, generator)
        given.report_unused_switches(depth=given.prompt_depth)
        super().__init__(
            clip,
            DCPLLearner(context, clip, given, generator),
            classnames,
            settings=asdict(given),
            prefix=prefix,
            n_ctx=given.n_ctx,
            domain=domain,
        )
        self.options = given

    def prompts(self, images: Tensor, domain_features: Tensor | None = None) -> Prompts:
        """Return the prompts for a batch of images; arguments as for `forward`."""
        return self.prompt_learner(self._domain_features(images, domain_features))

    def _domain_features(self, images: Tensor, given: Tensor | None) -> Tensor:
        if given is None:
            given = self.encode_frozen(images, DOMAIN)
        return given.to(self.learner_dtype)

    def forward(self, images: Tensor, *, domain_features: Tensor | None = None) -> Tensor:
        """Return logits (B, K) of CLIP-normalised images (B, 3, H, W).

        Args:
            images: (B, 3, H, W).
            domain_features: (B, d_f); where given, the domain encoder is skipped.
        """
        domain = self._domain_features(images, domain_features)
        prompts = self.prompt_learner(domain)
        return self.logits(self._shifted(images, prompts, domain), self.text_features(prompts))

    def image_features(
        self,
        images: Tensor,
        prompts: Prompts | None = None,
        *,
        adapted: bool = True,
        domain_features: Tensor | None = None,
    ) -> Tensor:
        """Return L2-normalised image features (B, d).

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            prompts: for the image tower; None: the model's own for these images.
            adapted: False: those of CLIP without all that was learned, the shift included.
            domain_features: (B, d_f); where given, the domain encoder is skipped.
        """
        if not adapted:
            return super().image_features(images, adapted=False)
        domain = self._domain_features(images, domain_features)
        return self._shifted(images, prompts or self.prompt_learner(domain), domain)

    def _shifted(self, images: Tensor, prompts: Prompts, domain: Tensor) -> Tensor:
        """Return L2-normalised image features (B, d), shifted by the domain features (B, d_f)."""
        learner = self.prompt_learner
        assert prompts.vision is not None  # this learner's always are
        image = self.clip.encode_prompted_image(images, prompts.vision, prompts.deep_vision)
        image = image.to(self.learner_dtype)
        width, training = image.shape[1], learner.training
        noise = draw_noise(image, width, self.options, training, self.noise_generator)
        shifted = image + learner.visual_net(domain) + (0 if noise is None else noise)
        return F.normalize(shifted, dim=-1)
