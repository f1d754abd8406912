"""IVLP: independent vision-language prompting (a baseline of MaPLe, Khattak et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.methods.base import PromptedCLIP
from dplq.methods.deep_prompts import MAX_VISION_PROMPTS, VLPrompts
from dplq.methods.init import check_depth, initial_context, seeded_generator
from dplq.methods.public_checkpoints import CONTEXT, FROZEN_CLIP, TOWER_PROMPTS, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class IVLPSettings(MethodSettings):
    """Settings of independent prompts; without vision prompts only the text has prompts."""

    n_ctx_text: int = option(2, "context length, and text prompts per layer", minimum=1)
    n_ctx_vision: int = option(
        2, "vision prompts per layer; 0: none", minimum=0, maximum=MAX_VISION_PROMPTS
    )
    ctx_init: str = option(
        "a photo of a", "words that initialise the context if N_CTX_TEXT <= 4; empty: random"
    )
    prompt_depth_text: int = option(9, "text layers with prompts", minimum=1)
    prompt_depth_vision: int = option(9, "vision layers with prompts; 0: none", minimum=0)


def settings_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Infer settings from the shapes of a learner's state dict."""
    n_vision = len(state["vision"]) if "vision" in state else 0
    deep = {
        tower: sum(name.startswith(f"deep_{tower}.") for name in state)
        for tower in ("text", "vision")
    }
    return {
        "n_ctx_text": len(state["ctx"]),
        "n_ctx_vision": n_vision,
        "prompt_depth_text": 1 + deep["text"],
        "prompt_depth_vision": 1 + deep["vision"] if n_vision else 0,
    }


@register_method
class IVLPModel(PromptedCLIP):
    """CLIP with free prompts in the layers of both towers.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `settings_class`.
    """

    method = "IVLP"
    settings_class: ClassVar[type[IVLPSettings]] = IVLPSettings
    public = PublicFormat(
        "VLPromptLearner",
        {**CONTEXT, **TOWER_PROMPTS, **FROZEN_CLIP},
        settings_of,
        required_key=r"prompt_learner\.ctx",
    )

    @classmethod
    def needs_of(cls, settings: Mapping[str, Any]) -> Sequence[str]:
        """Return that vision prompts are needed only where there are some."""
        has_vision = settings["n_ctx_vision"] and settings["prompt_depth_vision"]
        return ("text prompts", *(["image prompts"] if has_vision else []))

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = self.settings_class(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        check_depth(
            *(clip, given.prompt_depth_text, clip.text_layers, "PROMPT_DEPTH_TEXT"),
            towers="its text tower supports",
        )
        if given.n_ctx_vision and given.prompt_depth_vision:
            depth = given.prompt_depth_vision
            check_depth(
                *(clip, depth, clip.vision_layers, "PROMPT_DEPTH_VISION"),
                towers="its image tower supports",
            )
        elif given.prompt_depth_vision:
            given.report_unused("prompt_depth_vision", "N_CTX_VISION is 0")
        elif given.n_ctx_vision:
            given.report_unused("n_ctx_vision", "PROMPT_DEPTH_VISION is 0")
        prefix, context = initial_context(clip, given, generator, key="n_ctx_text")
        learner = VLPrompts(
            clip,
            context,
            text_depth=given.prompt_depth_text,
            n_vision=given.n_ctx_vision,
            vision_depth=given.prompt_depth_vision,
            generator=generator,
        )
        super().__init__(
            clip, learner, classnames, settings=asdict(given), prefix=prefix, n_ctx=len(context)
        )
