"""CoOp: context optimisation (Zhou et al., IJCV 2022)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.errors import UserError, suggest
from dplq.host.dassl import register_trainer
from dplq.methods.base import Prompts
from dplq.methods.init import CONTEXT_STD, initial_context
from dplq.methods.learned import Design, LearnedCLIP
from dplq.methods.public_checkpoints import FIXED_TOKENS, PublicLayout

from ._engine.base import PromptTrainer

logger = logging.getLogger(__name__)
POSITIONS = ("end", "middle", "front")


class CoOpLearner(nn.Module):
    """A context (n, d_t) for all classes, or one for each class (K, n, d_t)."""

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.ctx = nn.Parameter(context)

    def forward(self) -> Prompts:
        """The context alone; the image tower gets nothing."""
        n_ctx, width = self.ctx.shape[-2:]
        return Prompts(self.ctx.view(1, -1, n_ctx, width))


@dataclass(frozen=True)
class CoOpSettings:
    """What a CoOp model is made of.

    Attributes:
        n_ctx: context length, where no words give it.
        ctx_init: words that initialise the context, one token for each; "": random.
        csc: class-specific context; it starts random, so not together with `ctx_init`.
        class_token_position: of the name in the context, "end", "middle" or "front".
    """

    n_ctx: int = 16
    ctx_init: str = ""
    csc: bool = False
    class_token_position: str = "end"

    def __post_init__(self) -> None:
        position = self.class_token_position
        if position not in POSITIONS:
            hint = suggest(position, POSITIONS)
            raise UserError(f"CLASS_TOKEN_POSITION '{position}' is unknown.{hint}")


class CoOpModel(LearnedCLIP):
    """CLIP with a learned text context."""

    method, settings_class = "CoOp", CoOpSettings

    def design(self, clip: Backbone, classes: int, given: CoOpSettings, rng: Generator) -> Design:
        """One context of words or random numbers, or a random one for each class."""
        words = given.ctx_init
        prefix, context = initial_context(clip, given.n_ctx, words, rng, whole=True)
        if given.csc and words:
            logger.warning("CSC is not used: CTX_INIT gives all classes the same context.")
        given = replace(given, n_ctx=len(context), csc=given.csc and not words)
        if given.csc:
            context = torch.randn(classes, *context.shape, generator=rng) * CONTEXT_STD
        learner = CoOpLearner(context)
        return Design(given, learner, prefix, given.n_ctx, given.class_token_position)

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes; a class-specific context must be one of so many."""
        self._check_number(self.prompt_learner.ctx, classnames, "This model", None)
        super().set_classnames(classnames)

    def check_classes(
        self, tensors: dict[str, Tensor], learned: Sequence[str] | None, path: str | os.PathLike
    ) -> None:
        """Refuse a class-specific context of other classes."""
        self._check_number(tensors.get("ctx"), self.classnames, str(path), learned)

    def _check_number(
        self, ctx: Tensor | None, names: Sequence[str], where: str, learned: Sequence[str] | None
    ) -> None:
        if ctx is None or ctx.dim() < 3 or not self.settings["csc"]:
            return
        others = "" if learned in (None, list(names)) else " (others)"
        if len(ctx) != len(names) or others:
            raise UserError(
                f"{where} has a class-specific context of {len(ctx)} classes, and now there are "
                f"{len(names)}{others}: it cannot be used for other classes. Train with "
                "TRAINER.COOP.CSC False for that."
            )


@register_trainer
class CoOp(PromptTrainer):
    """A learned context in place of the words before the class name."""

    node = "COOP"
    model_class = CoOpModel
    public = PublicLayout("prompt_learner", {"ctx": "ctx", **FIXED_TOKENS})
