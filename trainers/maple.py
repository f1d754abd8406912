"""MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.host.dassl import register_trainer
from dplq.methods.base import Prompts
from dplq.methods.init import check_depth, initial_context, linear, small
from dplq.methods.learned import Design, LearnedCLIP
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, PublicLayout

from ._engine.base import PromptTrainer


@dataclass(frozen=True)
class MaPLeSettings:
    """What a MaPLe model is made of.

    Attributes:
        n_ctx: prompt tokens per layer.
        ctx_init: words that initialise the context if n_ctx <= 4; "": random.
        prompt_depth: J, the layers of both towers with prompts.
        clone_init: the image prompts' linear layers start equal, as the authors' do.
    """

    n_ctx: int = 2
    ctx_init: str = "a photo of a"
    prompt_depth: int = 9
    clone_init: bool = True


class MaPLeLearner(nn.Module):
    """Text prompts for the layers 0..J-1; the image prompts are linear functions of them.

    Args:
        context: (n, d_t), the initial context.
        clip: the backbone, for its widths.
        given: the settings.
        generator: source of the other initial weights.
    """

    def __init__(
        self, context: Tensor, clip: Backbone, given: MaPLeSettings, generator: Generator
    ) -> None:
        super().__init__()
        widths, deep = (clip.text_width, clip.vision_width), range(given.prompt_depth - 1)
        self.ctx = nn.Parameter(context)
        self.deep_text = nn.ParameterList([small(*context.shape, generator) for _ in deep])
        self.vision_proj = linear(*widths, generator)
        self.vision = nn.ModuleList([linear(*widths, generator) for _ in deep])
        if given.clone_init:
            for layer in self.vision:
                layer.load_state_dict(self.vision[0].state_dict())

    def forward(self) -> Prompts:
        """The prompts of both towers, the same for all images and classes."""
        coupled = [layer(p) for layer, p in zip(self.vision, self.deep_text, strict=True)]
        vision = self.vision_proj(self.ctx)
        return Prompts(self.ctx[None, None], list(self.deep_text), vision, coupled)


class MaPLeModel(LearnedCLIP):
    """CLIP with coupled prompts in the layers of both towers."""

    method = "MaPLe"
    structure = ("n_ctx", "ctx_init", "prompt_depth")
    settings_class, learner_class = MaPLeSettings, MaPLeLearner

    def design(self, clip: Backbone, classes: int, given: MaPLeSettings, rng: Generator) -> Design:
        """A context, and prompts in the first layers of both towers."""
        check_depth(clip, given.prompt_depth, min(clip.text_layers, clip.vision_layers))
        prefix, context = initial_context(clip, given.n_ctx, given.ctx_init, rng)
        learner = self.learner_class(context, clip, given, rng)
        return Design(given, learner, prefix, given.n_ctx)


@register_trainer
class MaPLe(PromptTrainer):
    """Text prompts in the first layers, and image prompts that are coupled to them."""

    node = "MAPLE"
    model_class = MaPLeModel
    public = PublicLayout(
        "MultiModalPromptLearner",
        {
            **CONTEXT,
            r"prompt_learner\.proj\.(weight|bias)": r"vision_proj.\1",
            r"prompt_learner\.compound_prompts_text\.(\d+)": r"deep_text.\1",
            r"prompt_learner\.compound_prompt_projections\.(\d+\.(weight|bias))": r"vision.\1",
            **FROZEN_CLIP,
        },
    )
