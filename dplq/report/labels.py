"""Names of classes in figures: on one line, not too long, and no two alike."""

from __future__ import annotations

from collections.abc import Sequence

from dplq.errors import printable
from dplq.evaluation.prediction_rows import distinct_names

LONGEST = 24  # characters
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def short(name: str, longest: int = LONGEST) -> str:
    """Return a name for a figure, cut in the middle; tables have it whole."""
    text = printable(name)
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}{ELLIPSIS}{text[-end:]}"


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Return the labels of all classes of a run: those that are still alike have a number.

    Args:
        names: all of them, so that a class has one label in all figures.
    """
    return dict(zip(names, distinct_names([short(name) for name in names]), strict=True))
