"""PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023).

IVLP's prompts, kept close to the frozen CLIP and averaged over the epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.templates import ensemble_features, imagenet_templates
from dplq.methods.base import Loss
from dplq.methods.deep_prompts import MAX_VISION_PROMPTS
from dplq.methods.ivlp import IVLPModel, IVLPSettings, settings_of
from dplq.methods.prompts.reference_text import ReferenceTextModel
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, TOWER_PROMPTS, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import option
from dplq.training.frozen.batch import CLIP

TEMPLATES = 60  # the authors average over the first 60 of OpenAI's 80


@dataclass(frozen=True)
class PromptSRCSettings(IVLPSettings):
    """Settings of PromptSRC's model and of its training."""

    n_ctx_text: int = option(4, "context length, and text prompts per layer", minimum=1)
    n_ctx_vision: int = option(
        4, "vision prompts per layer; 0: none", minimum=0, maximum=MAX_VISION_PROMPTS
    )
    # Whole numbers, as in PromptSRC's own tree: a host's yacs takes no 25 for 25.0.
    text_loss_weight: float = option(
        25, "weight of the text consistency loss", minimum=0, maximum=10**6
    )
    image_loss_weight: float = option(
        10, "weight of the image consistency loss", minimum=0, maximum=10**6
    )
    gpa_mean: float = option(
        15, "epoch at which Gaussian prompt aggregation peaks", minimum=-(10**6), maximum=10**6
    )
    gpa_std: float = option(1, "its width in epochs", above=1e-6, maximum=10**6)


@register_method
class PromptSRCModel(IVLPModel, ReferenceTextModel):
    """IVLP's prompts, with the features of the un-prompted CLIP beside them.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `PromptSRCSettings`.
    """

    method, settings_class = "PromptSRC", PromptSRCSettings
    structure = tuple(field.name for field in fields(IVLPSettings))
    public = PublicFormat(
        "VLPromptLearner",
        {
            **CONTEXT,
            **TOWER_PROMPTS,
            **FROZEN_CLIP,
            r"prompt_learner\.ZS_image_encoder\..*": None,
        },
        settings_of,
        required_key=r"prompt_learner\.ZS_image_encoder\..*",
    )

    def encode_reference(self) -> Tensor:
        """Return the features (K, d) of many templates."""
        templates = imagenet_templates()[:TEMPLATES]
        return ensemble_features(self.clip, self.classnames, templates, normalize_each=False)

    @property
    def frozen_inputs(self) -> tuple[str, ...]:
        """Return CLIP, whose un-prompted features are in the loss."""
        return (CLIP,)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return un-prompted L2-normalised features: (B, d), and (1, K, d) of many templates."""
        return self.image_features(images, adapted=False), self.reference_text()

    def losses(
        self, images: Tensor, labels: Tensor, cross_entropy: Loss = F.cross_entropy
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add three terms to "ce".

        "text" and "image" are mean absolute differences of prompted and frozen features; "logits"
        is the KL divergence of their predictions per logit.
        """
        prompts = self.prompts(images)
        image, text = self.image_features(images, prompts), self.text_features(prompts)
        frozen_image, frozen_text = self.frozen_features(images)
        logits = self.logits(image, text)
        frozen = F.log_softmax(self.logits(frozen_image, frozen_text), dim=1)
        return {
            "ce": cross_entropy(logits, labels),
            "text": self.settings["text_loss_weight"] * F.l1_loss(text, frozen_text),
            "image": self.settings["image_loss_weight"] * F.l1_loss(image, frozen_image),
            "logits": F.kl_div(
                logits.log_softmax(1), frozen, reduction="none", log_target=True
            ).mean(),
        }, logits
