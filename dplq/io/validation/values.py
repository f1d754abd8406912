"""Checks of single values from outside: flags, numbers, texts, choices, lists.

A `Check` takes a value and returns what is wrong with it, as the end of a sentence that begins with
the key: ``" is -1; it must be at least 0."``; empty where nothing is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from dplq.errors import UserError, shown, suggest

Check = Callable[[Any], str]
MOST = 2**31 - 1  # a larger whole number does not fit what libraries written in C take
LONGEST = 4096  # characters of a text; a path can have no more
LONGEST_LIST = 10_000


def require(key: str, value: Any, check: Check, where: str = "") -> None:
    """Raise if a value fails its check.

    Args:
        key: its name in messages.
        value: of the key.
        check: what it must pass.
        where: the file that the value is from, if any.

    Raises:
        UserError: it does; the message names key, value and what is expected.
    """
    problem = check(value)
    if problem:
        raise UserError(f"{where}: {key}{problem}" if where else f"{key}{problem}")


def expected(value: Any, words: str) -> str:
    """Return the problem of a value that is not what it must be."""
    return f" is {shown(value)}; it must be {words}."


def flag(value: Any) -> str:
    """Check for True or False; a word such as "false" would count as true."""
    return "" if isinstance(value, bool) else f" is {shown(value)}; write True or False."


def whole(low: int = 0, high: int = MOST, words: str = "a whole number") -> Check:
    """Return a check for whole numbers from `low` to `high`."""

    def check(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, Integral):
            return expected(value, words)
        return _range(value, low=low, high=high)

    return check


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Check:
    """Return a check for finite numbers, whole or not, in a range."""

    def check(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, Real):
            return expected(value, "a number")
        try:
            finite = math.isfinite(value)
        except OverflowError:  # a whole number above all floats
            finite = False
        if not finite:
            return expected(value, "a finite number")
        return _range(value, low=low, high=high, above=above, below=below)

    return check


def _range(
    value: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    if low is not None and value < low:
        return expected(value, f"at least {low}")
    if high is not None and value > high:
        return expected(value, f"at most {high}")
    if above is not None and not value > above:
        return expected(value, f"above {above}")
    if below is not None and not value < below:
        return expected(value, f"below {below}")
    return ""


def text(value: Any) -> str:
    """Check for a text that can be a name or a path."""
    if value is None:
        return f'{expected(value, "a text")} For an empty one write "".'
    if not isinstance(value, str):
        return expected(value, "a text")
    if len(value) > LONGEST:
        return f" has {len(value):,} characters; at most {LONGEST:,} are possible."
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return expected(value, "a text without null characters, in UTF-8")
    return ""


def one_of(choices: Sequence[str], words: str = "") -> Check:
    """Return a check for one of these texts.

    Args:
        choices: the texts.
        words: what is expected, for messages; empty: the nearest choice and the list of all.
    """

    def check(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return ""
        if words:
            return expected(value, words)
        name = value[:LONGEST] if isinstance(value, str) else ""
        return f" {shown(value)} is unknown.{suggest(name, choices)}"

    return check


def optional(check: Check) -> Check:
    """Return a check that accepts None, too."""
    return lambda value: "" if value is None else check(value)


def each(check: Check, words: str, count: int | None = None) -> Check:
    """Return a check for a list or tuple.

    Args:
        check: of every element.
        words: what is expected, for messages.
        count: its length; None: any.
    """

    def check_all(value: Any) -> str:
        fits = isinstance(value, (list, tuple)) and len(value) <= LONGEST_LIST
        if not fits or len(value) != (len(value) if count is None else count):
            return expected(value, words)
        return expected(value, words) if any(check(element) for element in value) else ""

    return check_all


def converted(convert: Callable[[Any], Any], words: str) -> Check:
    """Return a check for what a function converts without a TypeError or ValueError."""

    def check(value: Any) -> str:
        try:
            convert(value)
        except (TypeError, ValueError, OverflowError):
            return expected(value, words)
        return ""

    return check


def _plain(value: Any) -> str:
    """Check for an element of a list of any type: a text, number or flag."""
    if isinstance(value, str):
        return text(value)
    return "" if isinstance(value, bool) else number()(value)


def like(default: Any) -> Check:
    """Return the check that a default implies: its type, and that of a list's elements."""
    if isinstance(default, bool):
        return flag
    if isinstance(default, int):
        return whole(-MOST)
    if isinstance(default, float):
        return number()
    if isinstance(default, str):
        return text
    if isinstance(default, (list, tuple)):
        kinds = [like(element) for element in default]
        return each(
            lambda value: kinds[0](value) if kinds else _plain(value),
            f"a list such as {default}" if default else "a list",
        )
    return lambda value: ""
