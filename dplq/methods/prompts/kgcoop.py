"""KgCoOp: knowledge-guided context optimisation (Yao et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor
from torch.nn import functional as F

from dplq.methods.base import Loss
from dplq.methods.coop import CoOpModel, CoOpSettings, public_context
from dplq.methods.prompts.reference_text import ReferenceTextModel, ReferenceTextSettings
from dplq.methods.registry import register_method
from dplq.methods.settings import option


@dataclass(frozen=True)
class AnchoredTextSettings(ReferenceTextSettings):
    """Settings of a loss that keeps learned texts close to hand-written ones."""

    w: float = option(
        8.0, "weight of the distance to the hand-written text", minimum=0, maximum=10**6
    )


class AnchoredTextModel(ReferenceTextModel):
    """A prompted CLIP with KgCoOp's loss."""

    def losses(
        self, images: Tensor, labels: Tensor, cross_entropy: Loss = F.cross_entropy
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Add "text", 1 - cosine of learned and hand-written text features (section 3.3)."""
        prompts = self.prompts(images)
        text = self.text_features(prompts)
        logits = self.logits(self.image_features(images, prompts), text)
        distance = 1 - F.cosine_similarity(text, self.reference_text(), dim=-1).mean()
        return {
            "ce": cross_entropy(logits, labels),
            "text": self.settings["w"] * distance,
        }, logits


@dataclass(frozen=True)
class KgCoOpSettings(CoOpSettings, AnchoredTextSettings):
    """Settings of KgCoOp's model and of its training."""

    n_ctx: int = option(4, "context length, where no words set it", minimum=1)
    ctx_init: str = option(
        "a photo of a", "words that initialise the context, one token each; empty: random"
    )


@register_method
class KgCoOpModel(CoOpModel, AnchoredTextModel):
    """CoOp's context, whose texts stay close to hand-written ones.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `KgCoOpSettings`.
    """

    method, settings_class = "KgCoOp", KgCoOpSettings
    structure = tuple(field.name for field in fields(CoOpSettings))
    # The release makes and saves two parts that it never uses.
    public = public_context("bias_vectors", **{r"bias_vectors|meta_net\..*": None})
