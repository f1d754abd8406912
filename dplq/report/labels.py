"""Names of classes in figures: on one line, and not too long."""

from __future__ import annotations

from dplq.errors import printable

LONGEST = 24  # characters


def short(name: str, longest: int = LONGEST) -> str:
    """Return a name for a figure; tables have it whole."""
    text = printable(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
