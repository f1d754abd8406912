"""MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.methods.base import PromptedCLIP, Prompts
from dplq.methods.init import (
    check_depth,
    clone_first,
    initial_context,
    linear,
    random_tokens,
    seeded_generator,
)
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import JointPromptSettings, option


@dataclass(frozen=True)
class MaPLeSettings(JointPromptSettings):
    """Settings of MaPLe."""

    clone_init: bool | None = option(
        True, "the layers that make the image prompts start equal, as the authors' do"
    )


def multimodal_prompts(
    clip: Backbone, given: MaPLeSettings, generator: Generator
) -> tuple[str, Tensor]:
    """Return prefix and initial context (n, d_t), after a check of the depth."""
    check_depth(clip, given.prompt_depth, min(clip.text_layers, clip.vision_layers))
    return initial_context(clip, given, generator)


class CoupledPrompts(nn.Module):
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
        n_ctx, width = context.shape
        self.deep_text = nn.ParameterList([random_tokens(n_ctx, width, generator) for _ in deep])
        self.vision_proj = linear(*widths, generator)
        self.vision = nn.ModuleList([linear(*widths, generator) for _ in deep])
        if given.clone_init:
            clone_first(self.vision)

    def coupled_prompts(self) -> Prompts:
        """Return the prompts of both towers, the same for all images and classes."""
        coupled = [layer(p) for layer, p in zip(self.vision, self.deep_text, strict=True)]
        vision = self.vision_proj(self.ctx)
        return Prompts(self.ctx[None, None], list(self.deep_text), vision, coupled)


class MaPLeLearner(CoupledPrompts):
    """MaPLe's learnable state: `CoupledPrompts` and nothing else."""

    def forward(self) -> Prompts:
        """Return the prompts of both towers."""
        return self.coupled_prompts()


def _settings_of(state: dict[str, Tensor]) -> dict[str, Any]:
    depth = 1 + sum(name.startswith("deep_text.") for name in state)
    return {"n_ctx": len(state["ctx"]), "prompt_depth": depth}


@register_method
class MaPLeModel(PromptedCLIP):
    """CLIP with coupled prompts in the layers of both towers.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `MaPLeSettings`.
    """

    method, settings_class = "MaPLe", MaPLeSettings
    needs = ("text prompts", "image prompts")
    structure = ("n_ctx", "ctx_init", "prompt_depth")
    public = PublicFormat(
        "MultiModalPromptLearner",
        {
            **CONTEXT,
            r"prompt_learner\.proj\.(weight|bias)": r"vision_proj.\1",
            r"prompt_learner\.compound_prompts_text\.(\d+)": r"deep_text.\1",
            r"prompt_learner\.compound_prompt_projections\.(\d+\.(weight|bias))": r"vision.\1",
            **FROZEN_CLIP,
        },
        _settings_of,
        required_key=r"prompt_learner\.proj\..*",
    )

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = MaPLeSettings(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        prefix, context = multimodal_prompts(clip, given, generator)
        if given.prompt_depth == 1 and not given.clone_init:
            given.report_unused("clone_init", "PROMPT_DEPTH 1 leaves no deeper layers")
        learner = MaPLeLearner(context, clip, given, generator)
        super().__init__(
            clip, learner, classnames, settings=asdict(given), prefix=prefix, n_ctx=given.n_ctx
        )
