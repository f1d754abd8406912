"""Prompt methods that are a learner and some settings: the constructor that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Generator, nn

from dplq.clip.backbone import Backbone
from dplq.methods.base import PromptedCLIP
from dplq.methods.init import seeded


@dataclass(frozen=True)
class Design:
    """What a method makes of its settings.

    Attributes:
        settings: those in force.
        learner: makes the prompts.
        prefix: the words before the class name.
        n_ctx: how many of their tokens the learner's context replaces.
        class_position: of the name in the context.
    """

    settings: Any
    learner: nn.Module
    prefix: str
    n_ctx: int
    class_position: str = "end"


class LearnedCLIP(PromptedCLIP):
    """A frozen CLIP and a learner of prompts that is made from settings.

    Subclasses set `settings_class`, a dataclass of plain values, and implement `design`.

    Args:
        clip: the CLIP backbone.
        classnames: K class names.
        seed: of the learnable weights' initial values; None takes torch's global generator.
        **settings: fields of `settings_class`.

    Raises:
        UserError: a setting that does not fit the backbone, or a class name that is too long.
        TypeError: unknown setting.
    """

    settings_class: type

    def __init__(
        self, clip: Backbone, classnames: Sequence[str], *, seed: int | None = None, **settings: Any
    ) -> None:
        given = self.settings_class(**settings)
        made = self.design(clip, len(classnames), given, seeded(seed))
        super().__init__(
            clip,
            made.learner,
            classnames,
            prefix=made.prefix,
            n_ctx=made.n_ctx,
            settings=asdict(made.settings),
            class_position=made.class_position,
        )

    def design(self, clip: Backbone, classes: int, given: Any, rng: Generator) -> Design:
        """Make the learner for so many classes; random initial values come from `rng`."""
        raise NotImplementedError
