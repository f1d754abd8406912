"""Numbers as the pages show them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share (0 to 1) in percent, without the sign; "-" where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of digits; "-" where there is none."""
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.000"


def interval(pair: Sequence[float] | None, is_percent: bool) -> str:
    """Return the bounds of an interval; "" where there is none."""
    if pair is None:
        return ""
    text = percent if is_percent else decimal
    return " \N{EN DASH} ".join(map(text, pair))


def counted(count: int, thing: str, things: str = "") -> str:
    """Return a count with the name of what is counted: "1 image", "1,200 images".

    Args:
        count: how many.
        thing: one of them.
        things: several of them, where that is not `thing` with an "s".
    """
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def duration(seconds: float) -> str:
    """Return seconds in words: "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
