"""Few-shot curve: accuracy over shots, as a PNG."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dplq.results.figures import new_figure, save_figure
from dplq.results.grids import ALL_SHOTS, CellKey, all_class_runs, grouped_runs, shots_of
from dplq.results.runs import Run
from dplq.results.summary import Stat, stat

WHAT = "the curve"
MARKERS = "osD^vP*X<>"
FEW = 6  # trainers whose legend is in the panel
COLUMN = 24  # trainers in a column of the legend


def draw_curve(
    runs: Iterable[Run], path: str | os.PathLike[str], *, ci95: bool = False
) -> Mapping[tuple[str, str], Mapping[int, Stat]]:
    """Draw accuracy over shots, a line per trainer and a panel per dataset.

    The band is the spread over seeds; zero-shot trainers are dashed horizontal lines.

    Args:
        runs: what `collect` returns; those on base and new classes are left out.
        path: the PNG, written atomically.
        ci95: the band is half the 95 % interval instead of the standard deviation.

    Returns:
        The points drawn: by dataset and trainer the accuracy by shots, 0 for zero-shot.

    Raises:
        UserError: no run on all classes, `path` cannot be written, or matplotlib is missing.
    """
    figure, drawn = curve_figure(runs, ci95=ci95)
    save_figure(figure, Path(path), WHAT)
    return drawn


def curve_figure(
    runs: Iterable[Run], *, ci95: bool = False
) -> tuple[Any, Mapping[tuple[str, str], Mapping[int, Stat]]]:
    """Return the matplotlib figure that `draw_curve` saves, and the points in it.

    Arguments and errors are those of `draw_curve`.
    """
    drawn = curves(runs)
    datasets = list(dict.fromkeys(dataset for dataset, _ in drawn))
    most = max(Counter(dataset for dataset, _ in drawn).values())
    beside = most > FEW  # the legend, which would cover the lines
    columns = -(-most // COLUMN)
    width = 5.5 + 1.9 * columns * beside
    figure = new_figure((width * len(datasets), 4.2), WHAT)
    shots = sorted({n for points in drawn.values() for n in points} - {0, ALL_SHOTS})
    x_of = {n: n for n in shots} | {ALL_SHOTS: 2 * max(shots, default=0.5)}
    has_all = any(ALL_SHOTS in points for points in drawn.values())
    panels = figure.subplots(1, len(datasets), squeeze=False)[0]
    for axes, dataset in zip(panels, datasets, strict=True):
        lines = {trainer: points for (name, trainer), points in drawn.items() if name == dataset}
        for number, (trainer, points) in enumerate(lines.items()):
            of_ten, tens = number % 10, number // 10
            style = {"color": f"C{of_ten}", "marker": MARKERS[(of_ten + 3 * tens) % len(MARKERS)]}
            _draw_line(axes, trainer, points, x_of, style, ci95)
        ticks = [*shots, *([ALL_SHOTS] if has_all else [])]
        axes.set_xscale("log", base=2)
        axes.set_xticks(
            [x_of[n] for n in ticks], ["all" if n == ALL_SHOTS else str(n) for n in ticks]
        )
        axes.set(title=dataset, xlabel="training images per class", ylabel="accuracy (%)")
        axes.grid(alpha=0.3)
        if beside:
            place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
            axes.legend(fontsize="x-small", ncols=columns, **place)
        else:
            axes.legend(fontsize="small")
    return figure, drawn


def curves(runs: Iterable[Run]) -> dict[tuple[str, str], dict[int, Stat]]:
    """Return the accuracy by shots (0 for zero-shot) of each dataset and trainer.

    Raises:
        UserError: no run on all classes.
    """

    def key_of(run: Run) -> CellKey:
        return CellKey((run.dataset, run.setting.trainer), shots_of(run), run.seed)

    return {
        (dataset, trainer): {
            shots: stat(run.accuracy for run in seeds.values()) for shots, seeds in columns.items()
        }
        for (dataset, trainer), columns in grouped_runs(all_class_runs(runs), key_of).items()
    }


def _draw_line(
    axes: Any,
    trainer: str,
    points: Mapping[int, Stat],
    x_of: Mapping[int, float],
    style: Mapping[str, str],
    ci95: bool,
) -> None:
    """Draw one trainer's curve with its band, or its zero-shot line."""
    if 0 in points:
        axes.axhline(points[0].mean, color=style["color"], linestyle="--", label=trainer)
    order = sorted((n for n in points if n), key=x_of.__getitem__)
    if not order:
        return
    x = [x_of[n] for n in order]
    mean = [points[n].mean for n in order]
    half = [points[n].spread(ci95) or 0.0 for n in order]
    axes.plot(x, mean, markersize=5, label=trainer, **style)
    low, high = zip(*((m - h, m + h) for m, h in zip(mean, half, strict=True)), strict=True)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
