"""Settings of a method: default, help text and choices of each field.

The yacs node of its trainer, the ``--help`` of the command line and `docs/settings.md` are made
from these dataclasses; a config key is the field's name in capitals.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

from dplq.errors import UserError, suggest

logger = logging.getLogger(__name__)


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] = (),
    minimum: int | None = None,
    is_key: bool = True,
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: the value where none is given; None: resolved later, from the preset or the fit.
        help: its meaning, one line.
        choices: the words that are accepted; empty for no check.
        minimum: the smallest number that is accepted.
        is_key: False for values that are no config key, such as a width found at run time.
    """
    metadata = {"help": help, "choices": tuple(choices), "minimum": minimum, "is_key": is_key}
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
            value = getattr(self, own.name)
            if value is not None or own.default is not None:
                _check(own, value)

    @classmethod
    def config_fields(cls) -> list[Field[Any]]:
        """Return the fields that are config keys."""
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

    n_ctx: int = option(2, "prompts per layer of both towers; in layer 0 the context")
    ctx_init: str = option(
        "a photo of a", "words that initialise the context if N_CTX <= 4; empty: random"
    )
    prompt_depth: int = option(9, "layers of both towers with prompts, from the first on")


KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "str": (str, "a text"),
    "Sequence[str]": ((list, tuple), "a list of texts"),
}


def _check(own: Field[Any], value: Any) -> None:
    key, choices, minimum = own.name.upper(), own.metadata["choices"], own.metadata["minimum"]
    declared = own.type.__name__ if isinstance(own.type, type) else str(own.type)
    kind = declared.partition(" | ")[0]
    # A word such as "false" would count as true.
    if kind == "bool" and not isinstance(value, bool):
        raise UserError(f"{key} is {value!r}; write True or False.")
    accepted, words = KINDS.get(kind, (object, ""))
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind in ("int", "float")):
        raise UserError(f"{key} is {value!r}; it must be {words}.")
    if choices and value not in choices:
        raise UserError(f"{key} '{value}' is unknown.{suggest(str(value), choices)}")
    if minimum is not None and value < minimum:
        raise UserError(f"{key} must be at least {minimum}, not {value}.")
