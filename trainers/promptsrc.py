"""PromptSRC: self-regulating prompts (Khattak et al., ICCV 2023).

IVLP's prompts, kept close to the frozen CLIP and averaged over the epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.templates import ensemble_features, imagenet_templates
from dplq.host.dassl import register_trainer
from dplq.methods.aggregation import GaussianAverage

from ._engine.base import PromptTrainer
from .ivlp import IVLP, IVLPModel, IVLPSettings

TEMPLATES = 60  # the authors average over the first 60 of OpenAI's 80


@dataclass(frozen=True)
class PromptSRCSettings(IVLPSettings):
    """What a PromptSRC model is made of, and how it is trained.

    Attributes:
        text_loss_weight, image_loss_weight: of these terms of `PromptSRCModel.losses`.
        gpa_mean, gpa_std: of `dplq.methods.aggregation.GaussianAverage`.
    """

    n_ctx_text: int = 4
    n_ctx_vision: int = 4
    text_loss_weight: float = 25
    image_loss_weight: float = 10
    gpa_mean: float = 15
    gpa_std: float = 1


class PromptSRCModel(IVLPModel):
    """IVLP's prompts, with the features of the un-prompted CLIP beside them."""

    method = "PromptSRC"
    structure = tuple(field.name for field in fields(IVLPSettings))
    settings_class = PromptSRCSettings

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes from now on; their frozen features are forgotten."""
        super().set_classnames(classnames)
        # Made in the first step; a test needs none.
        self.register_buffer("_frozen_text", None, persistent=False)

    @torch.no_grad()
    def frozen_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised features (B, d) and, from many templates, (1, K, d), without prompts."""
        if self._frozen_text is None:
            templates = imagenet_templates()[:TEMPLATES]
            text = ensemble_features(self.clip, self.classnames, templates, normalize_each=False)
            self._frozen_text = text.unsqueeze(0)
        return self.image_features(images), self._frozen_text

    def losses(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted terms of the loss, and the logits (B, K).

        "ce" is the cross-entropy; "text" and "image" are mean absolute differences of prompted
        and frozen features; "logits" is the KL divergence of their predictions per logit.
        """
        prompts = self.prompts(images)
        image, text = self.image_features(images, prompts), self.text_features(prompts)
        frozen_image, frozen_text = self.frozen_features(images)
        logits = self.logits(image, text)
        frozen = F.log_softmax(self.logits(frozen_image, frozen_text), dim=1)
        return {
            "ce": F.cross_entropy(logits, labels),
            "text": self.settings["text_loss_weight"] * F.l1_loss(text, frozen_text),
            "image": self.settings["image_loss_weight"] * F.l1_loss(image, frozen_image),
            "logits": F.kl_div(
                logits.log_softmax(1), frozen, reduction="none", log_target=True
            ).mean(),
        }, logits


@register_trainer
class PromptSRC(PromptTrainer):
    """Prompts of both towers that agree with the frozen CLIP; the epochs' weights are averaged."""

    node = "PROMPTSRC"
    model_class = PromptSRCModel
    public = IVLP.public

    def build_model(self) -> None:
        """Build as the base does, with an average of no epochs yet."""
        keys = self.keys
        self.average = GaussianAverage(self.cfg.OPTIM.MAX_EPOCH, keys.GPA_MEAN, keys.GPA_STD)
        super().build_model()

    def compute_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of all terms, and the logits."""
        terms, logits = self.model.losses(images, labels)
        return sum(terms.values()), logits

    def after_epoch(self) -> None:
        """Average before the epoch is validated and saved; the last one ends with the average."""
        learner = self.model.prompt_learner
        self.average.add(self.epoch, learner.state_dict())
        if self.epoch + 1 == self.max_epoch:
            learner.load_state_dict(self.average.state)
            print("The weights are now the Gaussian average of all epochs' weights")
        super().after_epoch()

    def extra_state(self) -> dict[str, Tensor]:
        """The average so far."""
        return self.average.state

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on with the average of an interrupted run."""
        self.average.state = tensors
