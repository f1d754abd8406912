"""Whether a training fitted its own images."""

from __future__ import annotations

# Percent: from here on at least two training images are right for each one that is wrong. A plain
# linear layer reaches 100 on as few images as its features have dimensions (Cover, 1965).
FITTED = 200 / 3


def fit_problem(start: float | None, end: float) -> str:
    """Return what the accuracy on the training images shows to be wrong; empty for nothing.

    Args:
        start: in percent, before the first step; None where it is not known.
        end: after the last one.
    """
    if start is not None and end < start:
        return "ended below its start"
    return "did not fit" if end < FITTED else ""
