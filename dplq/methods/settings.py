"""Settings of a method: default, help text and choices of each field.

The yacs node of its trainer, the ``--help`` of the command line and `docs/settings.md` are made
from these dataclasses; a config key is the field's name in capitals.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from functools import partial
from typing import Any

from dplq.errors import UserError
from dplq.io.validation.values import (
    Check,
    each,
    flag,
    number,
    one_of,
    optional,
    require,
    text,
    whole,
)

logger = logging.getLogger(__name__)


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: int | None = None,
    maximum: int | None = None,
    above: float | None = None,
    is_key: bool = True,
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: the value where none is given; None: resolved later, from the preset or the fit.
        help: its meaning, one line.
        choices: the words that are accepted; empty for no check.
        minimum: the smallest number that is accepted.
        maximum: the largest number that is accepted.
        above: a number that is too small, where any larger one is accepted.
        is_key: False for values that are no config key, such as a width found at run time.
    """
    limits = {"low": minimum, "high": maximum, "above": above}
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
        "is_key": is_key,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class MethodSettings:
    """Base of all settings: plain, JSON-able values, checked when they are made."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: naming the first field that is wrong, by its config key.
        """
        for own in fields(self):
            require(own.name.upper(), getattr(self, own.name), check_of(own))

    @classmethod
    def config_fields(cls) -> list[Field[Any]]:
        """Return the fields that are config keys."""
        for own in fields(cls):
            if "is_key" not in own.metadata:
                raise UserError(
                    f"The setting {own.name} of {cls.__name__} has no option(DEFAULT, HELP): write "
                    "its default so (docs/extending.md)."
                )
        return [own for own in fields(cls) if own.metadata["is_key"]]

    def report_unused(self, name: str, reason: str) -> None:
        """Log that a setting has no effect: a warning, or for its default an information.

        Args:
            name: of the field; nothing is logged where its value is None or empty.
            reason: the setting that decides instead.
        """
        value = getattr(self, name)
        if value is None or value == "":
            return
        default = next(own.default for own in fields(self) if own.name == name)
        shown = f"'{value}'" if isinstance(value, str) else value
        level = logging.INFO if value == default else logging.WARNING
        logger.log(level, "%s %s is not used: %s.", name.upper(), shown, reason)


@dataclass(frozen=True)
class JointPromptSettings(MethodSettings):
    """Settings of the methods whose image prompts are made from the text prompts."""

    n_ctx: int = option(2, "prompts per layer of both towers; in layer 0 the context", minimum=1)
    ctx_init: str = option(
        "a photo of a", "words that initialise the context if N_CTX <= 4; empty: random"
    )
    prompt_depth: int = option(
        9, "layers of both towers with prompts, from the first on", minimum=1
    )


# the annotation of a field, as it is written -> its check, which takes the limits
KINDS: dict[str, Any] = {
    "bool": lambda: flag,
    "int": partial(whole, low=-(2**31)),
    "float": number,
    "str": lambda: text,
    "Sequence[str]": lambda: each(text, "a list of texts"),
}


def check_of(own: Field[Any]) -> Check:
    """Return the check of a field: its type, choices and limits; None where it is the default."""
    declared = own.type.__name__ if isinstance(own.type, type) else str(own.type)
    choices, limits = own.metadata["choices"], own.metadata["limits"]
    name = declared.partition(" | ")[0]
    if name not in KINDS:
        raise UserError(
            f"The setting {own.name} has the type {declared}: a setting is one of "
            f"{', '.join(KINDS)}, each also with | None."
        )
    kind = KINDS[name](**limits)
    check = _chosen(kind, choices) if choices else kind
    return optional(check) if own.default is None else check


def _chosen(kind: Check, choices: Sequence[str]) -> Check:
    """Return a check for texts that are one of the choices."""
    return lambda value: kind(value) or one_of(choices)(value)
