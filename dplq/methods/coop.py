"""CoOp: context optimisation (Zhou et al., IJCV 2022)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dplq.clip.backbone import Backbone
from dplq.errors import UserError, few
from dplq.methods.base import PromptedCLIP, Prompts, validate_classnames
from dplq.methods.init import CONTEXT_STD, initial_context, seeded_generator
from dplq.methods.public_checkpoints import FIXED_TOKENS, PublicFormat
from dplq.methods.registry import register_method
from dplq.methods.settings import MethodSettings, option
from dplq.methods.trained_names import trained_rows

POSITIONS = ("end", "middle", "front")


@dataclass(frozen=True)
class CoOpSettings(MethodSettings):
    """Settings of CoOp."""

    n_ctx: int = option(16, "context length, where no words set it", minimum=1)
    ctx_init: str = option("", "words that initialise the context, one token each; empty: random")
    csc: bool = option(False, "class-specific context; random, so not together with CTX_INIT")
    class_token_position: str = option(
        "end", "of the name in the context: end, middle or front", choices=POSITIONS
    )


class CoOpLearner(nn.Module):
    """A context (n, d_t) for all classes, or one for each class (K, n, d_t)."""

    def __init__(self, context: Tensor) -> None:
        super().__init__()
        self.ctx = nn.Parameter(context)

    def forward(self) -> Prompts:
        """Return the context alone; the image tower has no prompts."""
        n_ctx, width = self.ctx.shape[-2:]
        return Prompts(self.ctx.view(1, -1, n_ctx, width))


def _settings_of(state: dict[str, Tensor]) -> dict[str, Any]:
    # Which words the context began with does not matter any more, only how many.
    words = {"ctx_init": ""}
    return {"n_ctx": state["ctx"].shape[-2], "csc": state["ctx"].dim() == 3, **words}


def public_context(required_key: str = "", **unused: None) -> PublicFormat:
    """Return the format of a tree that saves CoOp's context, and perhaps more that is not used.

    Args:
        required_key: as of `PublicFormat`.
        **unused: more names, regular expressions.
    """
    names = {"ctx": "ctx", **FIXED_TOKENS, **unused}
    return PublicFormat("prompt_learner", names, _settings_of, required_key)


@register_method
class CoOpModel(PromptedCLIP):
    """CLIP with a learned text context.

    Args:
        clip: the CLIP backbone.
        classnames: K class names; underscores become spaces.
        seed: of the learnable weights' initial values; None: torch's global generator.
        **settings: fields of `settings_class`.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
        TypeError: unknown setting.
    """

    method = "CoOp"
    needs_images = False
    needs: ClassVar[Sequence[str]] = ("text prompts",)
    settings_class: ClassVar[type[CoOpSettings]] = CoOpSettings

    prompt_learner: CoOpLearner
    public = public_context()

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given, generator = self.settings_class(**settings), seeded_generator(seed)
        self.check_support(clip, asdict(given))
        words = given.ctx_init
        prefix, context = self.initial_context(clip, given, generator)
        if given.csc and words:
            given.report_unused("csc", "CTX_INIT gives all classes the same context")
        given = replace(given, n_ctx=len(context), csc=given.csc and not words)
        if given.csc:
            size = (len(classnames), *context.shape)
            context = torch.randn(size, generator=generator) * CONTEXT_STD
        super().__init__(
            clip,
            CoOpLearner(context),
            classnames,
            settings=asdict(given),
            prefix=prefix,
            n_ctx=given.n_ctx,
            class_position=given.class_token_position,
        )

    def initial_context(
        self, clip: Backbone, given: CoOpSettings, generator: torch.Generator
    ) -> tuple[str, Tensor]:
        """Return the words before the class name, and the initial context (n, d_t)."""
        return initial_context(clip, given, generator, whole=True)

    def set_classnames(self, classnames: Sequence[str]) -> None:
        """Classify into these classes; class-specific contexts come in the order of their classes.

        Raises:
            UserError: as in the base; the classes are not those of a class-specific context.
        """
        names, context = validate_classnames(classnames), self.prompt_learner.ctx
        rows = self._context_rows(context, self.classnames, names, "This model")
        super().set_classnames(names)
        if rows is not None:
            with torch.no_grad():
                context.copy_(context[rows])

    def check_classes(
        self,
        tensors: dict[str, Tensor],
        learned: Sequence[str] | None,
        path: str | os.PathLike[str],
    ) -> None:
        """Refuse a class-specific context of other classes, or of another order."""
        rows = self._context_rows(tensors.get("ctx"), learned, self.classnames, str(path))
        if rows is not None and rows != sorted(rows):
            raise UserError(
                f"{path} has a class-specific context of these classes in another order: it cannot "
                "be read into this model. dplq.load(..., classnames=...) puts it into any order."
            )

    def _context_rows(
        self,
        context: Tensor | None,
        learned: Sequence[str] | None,
        names: Sequence[str],
        where: str,
    ) -> list[int] | None:
        """Return which context is that of each class; None if the classes share one.

        Args:
            context: the learned one, (n, d_t) or (K, n, d_t).
            learned: the classes it was learned for; None if they are not known.
            names: the classes that are to have it.
            where: it is, for the message.

        Raises:
            UserError: these are not the same classes.
        """
        if context is None or context.dim() < 3 or not self.settings["csc"]:
            return None
        rows = trained_rows(names, names if learned is None else learned)
        others = [name for name, row in zip(names, rows, strict=True) if row is None]
        if len(context) != len(names) or others:
            said = f" (others: {few(others, 4)})" if len(context) == len(names) else ""
            raise UserError(
                f"{where} has a class-specific context of {len(context)} classes, and now there "
                f"are {len(names)}{said}: it cannot be used for other classes. Train with "
                f"TRAINER.{self.method.upper()}.CSC False for that."
            )
        return [row for row in rows if row is not None]
