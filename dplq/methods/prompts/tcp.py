"""TCP: textual-based class-aware prompt tuning (Yao et al., CVPR 2024).

The loss is KgCoOp's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.methods.base import Prompts
from dplq.methods.init import initial_context, linear, seeded_generator
from dplq.methods.prompts.kgcoop import AnchoredTextModel, AnchoredTextSettings
from dplq.methods.public_checkpoints import context_and_net
from dplq.methods.registry import register_method
from dplq.methods.settings import option

REDUCTION = 4  # of the hidden layer that makes the class-aware tokens


@dataclass(frozen=True)
class TCPSettings(AnchoredTextSettings):
    """Settings of TCP's model and of its training."""

    n_ctx: int = option(4, "context length, where no words set it", minimum=1)
    ctx_init: str = option("", "words that initialise the context, one token each; empty: random")
    class_layer: int = option(
        8, "text layer, counted from 0, that gets the class-aware tokens", minimum=1
    )
    adam_eps: float = option(
        0.001, "eps of the optimiser, where it is Adam or AdamW", above=0, maximum=1
    )


class QuickGELU(nn.Module):
    """The GELU of OpenAI's CLIP, x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation, of the shape of `x`."""
        return x * torch.sigmoid(1.702 * x)


class TCPLearner(nn.Module):
    """A context (n, d_t) for all classes, and a net that makes n tokens of a class's feature.

    Args:
        context: (n, d_t), the initial context.
        embed_dim: width of the features.
        class_layer: the text layer in which these tokens replace the context.
        generator: source of the other initial weights.
    """

    def __init__(
        self, context: Tensor, embed_dim: int, class_layer: int, generator: Generator
    ) -> None:
        super().__init__()
        self.ctx, self.class_layer = nn.Parameter(context), class_layer
        hidden = max(embed_dim // REDUCTION, 1)
        self.meta_net = nn.Sequential(
            linear(embed_dim, hidden, generator),
            QuickGELU(),
            linear(hidden, context.numel(), generator),
        )

    def forward(self, text: Tensor) -> Prompts:
        """Return the prompts of classes with the hand-written texts' features (1, K, d)."""
        own = self.meta_net(text[0]).unflatten(-1, self.ctx.shape)  # (K, n, d_t)
        unchanged = [self.ctx[:0]] * (self.class_layer - 1)
        return Prompts(self.ctx[None, None], deep_text=[*unchanged, own])


@register_method
class TCPModel(AnchoredTextModel):
    """CLIP with a learned context, replaced by class-aware tokens inside the text tower.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `TCPSettings`.

    Raises:
        UserError: a layer that the text tower does not have, or as for CoOp.
    """

    method, settings_class = "TCP", TCPSettings
    needs_images = False
    needs = ("text prompts",)
    structure, may_differ = ("n_ctx", "ctx_init", "class_layer"), ("template",)
    public = context_and_net(len)

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = TCPSettings(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        if given.class_layer >= clip.text_layers:
            raise UserError(
                f"CLASS_LAYER {given.class_layer} does not fit {clip.spec.name}: its text tower "
                f"can replace the tokens of layers 1 to {clip.text_layers - 1}."
            )
        prefix, context = initial_context(clip, given, generator, whole=True)
        given = replace(given, n_ctx=len(context))
        learner = TCPLearner(context, clip.embed_dim, given.class_layer, generator)
        super().__init__(
            clip, learner, classnames, settings=asdict(given), prefix=prefix, n_ctx=given.n_ctx
        )

    def prompts(self, images: Tensor) -> Prompts:
        """Return the prompts, the same for all images (B, 3, H, W)."""
        learner = self.prompt_learner
        return learner(self.reference_text().to(next(learner.parameters()).dtype))
