"""Free prompts in the layers of one or both towers, the same for all images and classes.

The learners of VPT (Jia et al., ECCV 2022; for CLIP as in MaPLe, section 4.1), of independent
vision-language prompting (MaPLe's IVLP baseline) and of PromptSRC.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.methods.base import Prompts
from dplq.methods.init import random_tokens

MAX_VISION_PROMPTS = 1000  # per layer; an image has a few hundred patches


class VisionPrompts(nn.Module):
    """Prompts for the image tower alone.

    Args:
        clip: the backbone, for its widths.
        n_vision: tokens per layer; 0: none.
        vision_depth: layers 0..vision_depth-1 of the image tower get their own; 0: none.
        generator: source of the initial values, N(0, 0.02^2).
    """

    vision: nn.Parameter | None

    def __init__(
        self, clip: Backbone, *, n_vision: int, vision_depth: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        layers = vision_depth if n_vision else 0
        tokens = [random_tokens(n_vision, clip.vision_width, generator) for _ in range(layers)]
        self.register_parameter("vision", tokens[0] if tokens else None)
        self.deep_vision = nn.ParameterList(tokens[1:])

    def forward(self) -> Prompts:
        """The prompts; the text is fixed."""
        return Prompts(None, vision=self.vision, deep_vision=list(self.deep_vision))


class VLPrompts(VisionPrompts):
    """Prompts for both towers, independent of each other.

    Args:
        clip: the backbone.
        context: (n, d_t), the initial context.
        text_depth: layers 0..text_depth-1 of the text tower get their own.
        generator: source of the other initial values.
        n_vision: as for `VisionPrompts`.
        vision_depth: as for `VisionPrompts`.
    """

    def __init__(
        self,
        clip: Backbone,
        context: Tensor,
        *,
        text_depth: int,
        generator: torch.Generator,
        n_vision: int,
        vision_depth: int,
    ) -> None:
        super().__init__(clip, n_vision=n_vision, vision_depth=vision_depth, generator=generator)
        self.ctx = nn.Parameter(context)
        n_ctx, width = context.shape
        deep = (random_tokens(n_ctx, width, generator) for _ in range(text_depth - 1))
        self.deep_text = nn.ParameterList(deep)

    def forward(self) -> Prompts:
        """The prompts of both towers."""
        return super().forward().with_text(self.ctx[None, None], list(self.deep_text))
