"""Figures: made without a display, saved in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dplq.errors import UserError
from dplq.io.atomic import atomic_write


def new_figure(size: tuple[float, float], what: str) -> Any:
    """Return an empty matplotlib figure.

    Args:
        size: width and height in inches.
        what: its name in messages, such as "the curve".

    Raises:
        UserError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(f"{what} needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, what: str) -> None:
    """Write a PNG atomically.

    Raises:
        UserError: that fails.
    """
    try:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"{what} cannot be written to {path}: {error.strerror or error}") from error
