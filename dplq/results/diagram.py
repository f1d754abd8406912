"""Critical-difference diagram: average ranks, and who cannot be told apart (Demsar, JMLR 2006)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dplq.errors import UserError
from dplq.results.comparison import Pairs, values_of
from dplq.results.figures import new_figure, save_figure
from dplq.results.runs import Run
from dplq.results.statistics import Ranks, average_ranks

WHAT = "the diagram"


def draw_diagram(runs: Iterable[Run], path: str | os.PathLike[str], metric: str = "") -> Ranks:
    """Draw the average ranks of all trainers over datasets and seeds.

    Args:
        runs: what `collect` returns.
        path: the PNG, written atomically.
        metric: such as "H" or "all"; empty: "H" where base-to-new runs are, else "all".

    Returns:
        The ranks that are drawn.

    Raises:
        UserError: fewer than three trainers have two datasets or seeds in common, scikit-posthocs
            is missing, or `path` cannot be written.
    """
    runs = list(runs)
    values, pairs = values_of(runs), Pairs(runs)
    metric = metric or ("H" if any(values["H"].values()) else "all")
    ranks = average_ranks(pairs.blocks(values[metric]))
    if ranks is None:
        raise UserError(
            f"{WHAT} needs {metric} of three trainers or more, on two datasets or seeds at least"
            " that all of them have"
        )
    try:
        from pandas import DataFrame
        from scikit_posthocs import critical_difference_diagram
    except ImportError as error:
        raise UserError(f"{WHAT} needs scikit-posthocs: pip install scikit-posthocs") from error
    names = list(ranks.average)
    alike = [[float(ranks.are_alike(one, two)) for two in names] for one in names]
    figure = new_figure((8, 1.5 + 0.25 * len(names)), WHAT)
    axes = figure.subplots()
    axes.set_title(f"Average rank in {metric}, {ranks.blocks} pairs of dataset and seed")
    critical_difference_diagram(dict(ranks.average), DataFrame(alike, names, names), ax=axes)
    save_figure(figure, Path(path), WHAT)
    return ranks
