"""VPT: visual prompt tuning of CLIP (Jia et al., ECCV 2022), as in MaPLe's comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.methods.base import PromptedCLIP
from dplq.methods.deep_prompts import MAX_VISION_PROMPTS, VisionPrompts
from dplq.methods.init import check_depth, seeded_generator
from dplq.methods.public_checkpoints import FROZEN_CLIP, TOWER_PROMPTS, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option


@dataclass(frozen=True)
class VPTSettings(MethodSettings):
    """Settings of VPT."""

    n_ctx_vision: int = option(2, "vision prompts per layer", minimum=1, maximum=MAX_VISION_PROMPTS)
    ctx_init: str = option("a photo of a", "words before the class name")
    prompt_depth_vision: int = option(1, "vision layers with prompts; 1 is shallow VPT", minimum=1)


def _settings_of(state: dict[str, Tensor]) -> dict[str, Any]:
    depth = 1 + sum(name.startswith("deep_vision.") for name in state)
    return {"n_ctx_vision": len(state["vision"]), "prompt_depth_vision": depth}


@register_method
class VPTModel(PromptedCLIP):
    """CLIP with prompts for the image tower; the text is fixed, and encoded once.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `VPTSettings`.
    """

    method, settings_class = "VPT", VPTSettings
    needs = ("image prompts",)
    public = PublicFormat(
        "prompt_learner",
        {**TOWER_PROMPTS, **FROZEN_CLIP},
        _settings_of,
        required_key=r"image_encoder\.VPT",
    )

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = VPTSettings(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        depth = given.prompt_depth_vision
        check_depth(
            *(clip, depth, clip.vision_layers, "PROMPT_DEPTH_VISION"),
            towers="its image tower supports",
        )
        learner = VisionPrompts(
            clip, n_vision=given.n_ctx_vision, vision_depth=depth, generator=generator
        )
        prefix = given.ctx_init.replace("_", " ")
        super().__init__(clip, learner, classnames, settings=asdict(given), prefix=prefix, n_ctx=0)
