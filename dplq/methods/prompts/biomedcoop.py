"""BiomedCoOp: context optimisation with texts of a language model (Koleilat et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.clip.templates import encode_texts
from dplq.methods.base import Loss
from dplq.methods.coop import CoOpLearner
from dplq.methods.init import initial_context, seeded_generator
from dplq.methods.prompts.class_texts import class_texts
from dplq.methods.prompts.reference_text import ReferenceTextModel
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option
from dplq.training.distributed import batch_mean


@dataclass(frozen=True)
class BiomedCoOpSettings(MethodSettings):
    """Settings of BiomedCoOp's model and of its training."""

    n_ctx: int = option(4, "context length", minimum=1)
    ctx_init: str = option(
        "a photo of a", "words that initialise the context if N_CTX <= 4; empty: random"
    )
    texts: str = option(
        "", "a checkout of BiomedCoOp, a JSON file {class name: [texts]}, or templates (OpenAI's)"
    )
    n_prompts: int = option(50, "texts of each class, the first ones", minimum=2)
    tau: float = option(
        1.5,
        "standard deviations within which a text is no outlier",
        minimum=1,
        maximum=10**6,
    )
    sccm_lambda: float = option(
        1.0, "weight of the distance to the mean of all texts", minimum=0, maximum=10**6
    )
    kdsp_lambda: float = option(
        1.0,
        "weight of the divergence from the selected texts' predictions",
        minimum=0,
        maximum=10**6,
    )


def without_outliers(scores: Tensor, tau: float) -> Tensor:
    """Return which scores (N,) are at most `tau` standard deviations from their mean.

    The paper scores texts by median and median deviation first (section 3.3); the release then
    standardises these scores, which undoes it: both are linear.
    """
    return (scores - scores.mean()).abs() <= tau * scores.std()


@register_method
class BiomedCoOpModel(ReferenceTextModel):
    """CoOp's context, regularised by an ensemble of texts, which it needs in training only.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `BiomedCoOpSettings`.
    """

    method, settings_class = "BiomedCoOp", BiomedCoOpSettings
    needs_images = False
    needs = ("text prompts",)
    structure = ("n_ctx", "ctx_init")
    public = PublicFormat(
        "prompt_learner",
        {**CONTEXT, **FROZEN_CLIP, r"prompt_learner\.ZS_image_encoder\..*": None},
        lambda state: {"n_ctx": len(state["ctx"])},
        required_key=r"prompt_learner\.ZS_image_encoder\..*",
    )

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = BiomedCoOpSettings(**settings)
        self.check_support(clip, asdict(given))
        prefix, context = initial_context(clip, given, seeded_generator(seed))
        self.texts_from = given.texts
        super().__init__(
            clip,
            CoOpLearner(context),
            classnames,
            settings=asdict(replace(given, texts="")),  # a place on this machine
            prefix=prefix,
            n_ctx=given.n_ctx,
        )

    def encode_reference(self) -> Tensor:
        """Return the features (K, N, d) of N texts of every class.

        Raises:
            UserError: the texts cannot be read, or lack some.
        """
        count = self.settings["n_prompts"]
        texts = class_texts(self.texts_from, self.classnames, count)
        return F.normalize(torch.stack([encode_texts(self.clip, own) for own in texts]), dim=-1)

    def losses(
        self, images: Tensor, labels: Tensor, cross_entropy: Loss = F.cross_entropy
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add "text" and "logits" (paper, sections 3.2 and 3.3).

        "text" is the mean squared difference of the learned features and of the mean of all texts;
        "logits" is the KL divergence per logit from the predictions of those texts that are no
        outliers by their mean confidence on the batch.
        """
        prompts = self.prompts(images)
        image, text = self.image_features(images, prompts), self.text_features(prompts)
        logits, teachers = self.logits(image, text), self.reference_text()[0].unbind(1)
        every = torch.stack([self.logits(image, one[None]) for one in teachers])  # (N, B, K)
        kept = without_outliers(batch_mean(every.amax(dim=2), dim=1), self.settings["tau"])
        mean, selected = (
            F.normalize((weights[:, None, None] * torch.stack(teachers)).sum(dim=0), dim=-1)
            for weights in (torch.ones_like(kept), kept)
        )
        teacher = self.logits(image, selected[None]).log_softmax(dim=1)
        divergence = F.kl_div(logits.log_softmax(dim=1), teacher, reduction="none", log_target=True)
        return {
            "ce": cross_entropy(logits, labels),
            "text": self.settings["sccm_lambda"] * F.mse_loss(text[0], mean),
            "logits": self.settings["kdsp_lambda"] * divergence.mean(),
        }, logits
