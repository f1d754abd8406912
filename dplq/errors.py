"""The exception for user errors, and helpers for their messages.

`train.py` and the command lines print a `UserError` as one line and exit with code 2;
inside a notebook or a host tree it is an ordinary exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from unicodedata import category

NOT_PRINTED = ("Cc", "Cs", "Zl", "Zp")  # control, no characters, line and paragraph separators


class UserError(Exception):
    """Bad input. The message names what was wrong, what was expected and what to do.

    Args:
        *lines: of the message, one in nearly all cases. Values may be quoted in them: line breaks,
            and all that cannot be printed, are escaped.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


def few(names: Iterable[object], limit: int = 5, separator: str = ", ") -> str:
    """Return the first names, and how many more there are: ``"a, b, c and 4 more"``."""
    words = [str(name) for name in names]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return separator.join(words[:limit]) + more


def printable(text: str) -> str:
    """Return a text for a message of one line: what cannot be printed is escaped.

    These are control characters, line separators, and bytes of a file name that are not UTF-8.
    """
    if text.isprintable():  # nearly always: the rest takes its time
        return text
    return "".join(_escaped(sign) if category(sign) in NOT_PRINTED else sign for sign in text)


def _escaped(sign: str) -> str:
    is_byte = "\udc80" <= sign <= "\udcff"  # of a file name, see PEP 383
    return f"\\x{ord(sign) - 0xDC00:02x}" if is_byte else sign.encode("unicode_escape").decode()


def one_line(error: BaseException) -> str:
    """Return an exception's class and message on one line, 160 characters of it at most.

    Messages of other libraries may run over pages.
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def shown(value: object, limit: int = 80) -> str:
    """Return a value as messages show it: its repr, `limit` characters of it at most."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return f"a value of type {type(value).__name__} too long to show"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text):,} characters)"


def suggest(name: object, choices: Iterable[str]) -> str:
    """Return the end of an error message: the nearest choices, then all of them.

    Args:
        name: what the user wrote; nothing is near to what is no text.
        choices: what would have been accepted.

    Returns:
        For example ``" Did you mean 'RSSCN7'? Choices: BTMRI, RSSCN7, WHURS19."``.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = nearest(name, by_lower.values()) if isinstance(name, str) else []
    hint = " Did you mean " + " or ".join(f"'{choice}'" for choice in near) + "?" if near else ""
    return f"{hint} Choices: {', '.join(sorted(by_lower.values(), key=str.lower))}."


def nearest(name: str, choices: Iterable[str], limit: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the choices most similar to `name`, best first; case does not count.

    Args:
        name: what the user wrote.
        choices: what would have been accepted.
        limit: how many to return at most.
        cutoff: least similarity, 0 to 1, as in `difflib.get_close_matches`.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=limit, cutoff=cutoff)
    return [by_lower[lower] for lower in near]
