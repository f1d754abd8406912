"""ProGrad: prompt-aligned gradients (Zhu et al., ICCV 2023)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from torch import Generator, Tensor
from torch.nn import functional as F

from dplq.clip.backbone import Backbone
from dplq.methods.base import Loss
from dplq.methods.coop import CoOpModel, CoOpSettings, public_context
from dplq.methods.init import placeholders
from dplq.methods.prompts.reference_text import ReferenceTextModel, ReferenceTextSettings
from dplq.methods.registry import register_method
from dplq.methods.settings import option


@dataclass(frozen=True)
class ProGradSettings(CoOpSettings, ReferenceTextSettings):
    """Settings of ProGrad's model and of its training."""

    n_ctx: int = option(16, "context length", minimum=1)
    ctx_init: str = option(
        "a photo of a", "words that initialise the last tokens of the context; empty: random"
    )
    temperature: float = option(
        1.0, "of the predictions that are compared", above=1e-6, maximum=10**6
    )
    projection: float = option(
        1.0,
        "share of the conflicting part of the gradient that is removed",
        minimum=0,
        maximum=10**6,
    )


def without_conflict(gradient: Tensor, general: Tensor, share: float) -> Tensor:
    """Return a gradient without its part against the general direction (paper, equation 4).

    Args:
        gradient: of the cross-entropy.
        general: of the divergence from the zero-shot predictions, of the same shape.
        share: of that part which is removed, 1 in the paper.
    """
    direction = F.normalize(general.flatten(), dim=0).view_as(general)
    conflict = (gradient * direction).sum().clamp(max=0)
    return gradient - share * conflict * direction


@register_method
class ProGradModel(CoOpModel, ReferenceTextModel):
    """CoOp's context, whose steps do not lead away from the zero-shot predictions.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `ProGradSettings`.
    """

    method, settings_class = "ProGrad", ProGradSettings
    structure = tuple(field.name for field in fields(CoOpSettings))
    public = public_context()

    def initial_context(
        self, clip: Backbone, given: CoOpSettings, generator: Generator
    ) -> tuple[str, Tensor]:
        """Return CoOp's, with zeros before the words where these are fewer than N_CTX.

        Raises:
            UserError: as for CoOp; the tokenizer has no one token for the place of a zero.
        """
        count = len(given.ctx_init.replace("_", " ").split())
        missing = given.n_ctx - count
        if not given.ctx_init or missing <= 0:
            return super().initial_context(clip, given, generator)
        cure = f"zeros before CTX_INIT: set N_CTX {count}, the number of its words"
        zeros = placeholders(clip, missing, cure)
        prefix, context = super().initial_context(clip, replace(given, n_ctx=count), generator)
        return f"{zeros} {prefix}", F.pad(context, (0, 0, missing, 0))

    def losses(
        self, images: Tensor, labels: Tensor, cross_entropy: Loss = F.cross_entropy
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add "general", the cross-entropy to the zero-shot predictions (paper, equation 3).

        It is no summand: its gradient is the general direction of `without_conflict`.
        """
        prompts, t = self.prompts(images), self.settings["temperature"]
        image = self.image_features(images, prompts)
        logits = self.logits(image, self.text_features(prompts))
        teacher = self.logits(image, self.reference_text())
        general = t**2 * F.cross_entropy(logits / t, (teacher / t).softmax(dim=1))
        return {"ce": cross_entropy(logits, labels), "general": general}, logits
