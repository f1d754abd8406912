"""QuaternionPrompt: domain prompt learning with quaternion networks (Cao et al., CVPR 2024).

Backbone + domain encoder + prompt learner -> logits (docs/method.md, "Forward pass").
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.domain.encoder import DomainEncoder
from dplq.errors import UserError
from dplq.methods.base import PromptedCLIP, Prompts
from dplq.methods.init import check_depth, initial_context, seeded_generator
from dplq.methods.presets import PRESET_NORMALIZE
from dplq.methods.prompt_learner import PromptLearner, QuaternionPromptSettings
from dplq.methods.registry import register_method

logger = logging.getLogger(__name__)


@register_method
class QuaternionPromptCLIP(PromptedCLIP):
    """CLIP with quaternion domain prompts.

    Only `prompt_learner` is trainable; backbone and domain encoder are frozen.

    Args:
        clip: the CLIP backbone.
        domain: the domain-specific foundation model; None if every call passes domain features
            (then `domain_dim` is needed), or if there are to be none.
        classnames: K class names; underscores become spaces.
        domain_dim: d_f, if `domain` is None; 0: no domain feature at all (an ablation).
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `QuaternionPromptSettings`: `n_ctx`, `ctx_init`, `prompt_depth`,
            `preset`, and single switches that override the preset.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
        TypeError: unknown setting.
    """

    method, settings_class, uses_domain = "QuaternionPrompt", QuaternionPromptSettings, True
    # The other settings (noise, initialisation) only matter in training.
    structure = ("n_ctx", "ctx_init", "prompt_depth", "domain_dim", "fusion", "residual", "layer")

    prompt_learner: PromptLearner

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
        given = QuaternionPromptSettings(**settings)
        check_depth(clip, given.prompt_depth, min(clip.text_layers, clip.vision_layers))
        if domain is None and domain_dim is None:
            raise UserError("Without a domain encoder give domain_dim, the width of its features.")
        generator = seeded_generator(seed)
        _warn_of_normalisation(given.preset, domain)
        width = domain.feature_dim if domain is not None else domain_dim
        resolved = QuaternionPromptSettings(**{**settings, "domain_dim": width}).resolved()
        prefix, context = initial_context(clip, given, generator)
        given.report_unused_switches(depth=given.prompt_depth, has_domain=bool(width))
        learner = PromptLearner(
            context, resolved, vision_width=clip.vision_width, generator=generator
        )
        # What the preset stands for is recorded, not its name.
        recorded = {key: value for key, value in asdict(resolved).items() if key != "preset"}
        super().__init__(
            clip,
            learner,
            classnames,
            settings=recorded,
            prefix=prefix,
            n_ctx=given.n_ctx,
            domain=domain,
        )

    def prompts(
        self, images: Tensor, domain_features: Tensor | None = None, noise: Tensor | None = None
    ) -> Prompts:
        """Return the prompts for a batch of images; arguments as for `forward`."""
        if not self.settings["domain_dim"]:
            return self.prompt_learner(None)
        if domain_features is None:
            if self.domain is None:
                raise UserError("This model has no domain encoder: pass domain_features.")
            domain_features = self.domain(images)
        domain_features = domain_features.to(self.learner_dtype)
        expected = (len(images), self.settings["domain_dim"])
        if domain_features.shape != expected:
            raise UserError(
                f"domain_features has shape {tuple(domain_features.shape)}, expected {expected}."
            )
        if noise is None:
            noise = self.prompt_learner.draw_noise(domain_features, self.noise_generator)
        return self.prompt_learner(domain_features, noise)

    def forward(
        self,
        images: Tensor,
        *,
        domain_features: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Classify images.

        Args:
            images: (B, 3, H, W), CLIP-normalised.
            domain_features: (B, d_f); given, the domain encoder is skipped.
            noise: (B, d_t), the noise e_b, already scaled; drawn here if not given and wanted.

        Returns:
            Logits (B, K) in the dtype of the learnable state, float32.
        """
        prompts = self.prompts(images, domain_features, noise)
        return self.logits(self.image_features(images, prompts), self.text_features(prompts))


def _warn_of_normalisation(preset: str, domain: DomainEncoder | None) -> None:
    """Warn where the loaded encoder's normalisation is not the preset's: it cannot be changed."""
    given = domain.spec.options.get("normalize") if domain is not None else None
    if preset == "reference" and given not in (None, PRESET_NORMALIZE[preset]):
        logger.warning(
            "preset 'reference' passes CLIP-normalised images to the domain encoder, but this one "
            "was loaded with normalize='%s': load it with normalize='clip' to follow the release.",
            given,
        )
