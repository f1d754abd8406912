"""VPT: visual prompt tuning (Jia et al., ECCV 2022) of CLIP, as MaPLe's authors compare with it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.host.dassl import register_trainer
from dplq.methods.deep_prompts import VisionPrompts
from dplq.methods.init import check_depth
from dplq.methods.learned import Design, LearnedCLIP
from dplq.methods.public_checkpoints import FROZEN_CLIP, TOWER_PROMPTS, PublicLayout

from ._engine.base import PromptTrainer


@dataclass(frozen=True)
class VPTSettings:
    """What a VPT model is made of.

    Attributes:
        n_ctx_vision: prompt tokens per layer.
        ctx_init: the words before the class name.
        prompt_depth_vision: layers with prompts; 1 is shallow VPT.
    """

    n_ctx_vision: int = 2
    ctx_init: str = "a photo of a"
    prompt_depth_vision: int = 1

    def __post_init__(self) -> None:
        if self.n_ctx_vision < 1:
            raise UserError(f"N_CTX_VISION must be at least 1, not {self.n_ctx_vision}.")


class VPTModel(LearnedCLIP):
    """CLIP with prompts for the image tower; the text is fixed, and encoded once."""

    method, settings_class = "VPT", VPTSettings

    def design(self, clip: Backbone, classes: int, given: VPTSettings, rng: Generator) -> Design:
        """Prompts in the first layers of the image tower."""
        sizes = {"n_vision": given.n_ctx_vision, "vision_depth": given.prompt_depth_vision}
        check_depth(clip, sizes["vision_depth"], clip.vision_layers, "PROMPT_DEPTH_VISION")
        learner = VisionPrompts(clip, generator=rng, **sizes)
        return Design(given, learner, given.ctx_init.replace("_", " "), 0)


@register_trainer
class VPT(PromptTrainer):
    """Free prompts in the layers of the image tower."""

    node = "VPT"
    model_class = VPTModel
    public = PublicLayout("prompt_learner", {**TOWER_PROMPTS, **FROZEN_CLIP})
