"""IVLP: independent vision-language prompting (a baseline of MaPLe, Khattak et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.host.dassl import register_trainer
from dplq.methods.deep_prompts import VLPrompts
from dplq.methods.init import check_depth, initial_context
from dplq.methods.learned import Design, LearnedCLIP
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, TOWER_PROMPTS, PublicLayout

from ._engine.base import PromptTrainer


@dataclass(frozen=True)
class IVLPSettings:
    """What a model with independent prompts is made of.

    Attributes:
        n_ctx_text: context length, and text prompts per layer.
        n_ctx_vision: image prompts per layer; 0, or a depth of 0: only the text has prompts.
        ctx_init: words that initialise the context if n_ctx_text <= 4; "": random.
        prompt_depth_text: text layers with prompts.
        prompt_depth_vision: image layers with prompts.
    """

    n_ctx_text: int = 2
    n_ctx_vision: int = 2
    ctx_init: str = "a photo of a"
    prompt_depth_text: int = 9
    prompt_depth_vision: int = 9

    def __post_init__(self) -> None:
        if min(self.n_ctx_vision, self.prompt_depth_vision) < 0:
            raise UserError("N_CTX_VISION and PROMPT_DEPTH_VISION must not be below 0.")


class IVLPModel(LearnedCLIP):
    """CLIP with free prompts in the layers of both towers."""

    method, settings_class = "IVLP", IVLPSettings

    def design(self, clip: Backbone, classes: int, given: IVLPSettings, rng: Generator) -> Design:
        """A context, and prompts in the first layers of both towers."""
        check_depth(clip, given.prompt_depth_text, clip.text_layers, "PROMPT_DEPTH_TEXT")
        vision = {"n_vision": given.n_ctx_vision, "vision_depth": given.prompt_depth_vision}
        if all(vision.values()):
            check_depth(clip, vision["vision_depth"], clip.vision_layers, "PROMPT_DEPTH_VISION")
        prefix, context = initial_context(clip, given.n_ctx_text, given.ctx_init, rng)
        sizes = {"text_depth": given.prompt_depth_text, **vision}
        learner = VLPrompts(clip, context, generator=rng, **sizes)
        return Design(given, learner, prefix, given.n_ctx_text)


@register_trainer
class IVLP(PromptTrainer):
    """Free prompts in the layers of both towers."""

    node = "IVLP"
    model_class = IVLPModel
    public = PublicLayout("VLPromptLearner", {**CONTEXT, **TOWER_PROMPTS, **FROZEN_CLIP})
