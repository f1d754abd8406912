"""Exceptions for invalid input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad config value, data or file. The message says what and where."""


class ChoiceError(InputError, KeyError):
    """Unknown name."""

    __str__ = ValueError.__str__  # KeyError would show the message in quotes


class MissingFileError(InputError, FileNotFoundError):
    """A required file does not exist."""


def check_availability(requested: str, available: Iterable[str], what: str = "choice") -> None:
    """Raise unless a name is among the choices.

    Args:
        requested: the name.
        available: the choices.
        what: what the name stands for, for the message.

    Raises:
        ChoiceError: with the nearest names and all choices.
    """
    choices = sorted(available)
    if requested in choices:
        return
    near = difflib.get_close_matches(str(requested), choices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(choices) or "none (nothing has been registered)"
    raise ChoiceError(f"unknown {what} '{requested}'.{hint} Choices: {listed}.")
