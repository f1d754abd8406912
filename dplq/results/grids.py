"""Tables of all-class runs, a line per trainer: accuracy over shots, or on other datasets."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dplq.errors import UserError
from dplq.results.rendering import Line, Table
from dplq.results.runs import Run, match_layout
from dplq.results.summary import Stat, stat
from dplq.results.tables import ROUNDED_NOTE, shorten, spread_note

logger = logging.getLogger(__name__)

ALL_SHOTS = -1  # DATASET.NUM_SHOTS for all training images
SOURCE = "on source"
AVERAGE = "average"


class CellKey(NamedTuple):
    """Position of a run in a table: its line and its column."""

    line: tuple[Any, ...]  # its labels
    column: Any  # number of shots, or name of the target dataset


def group_runs(
    runs: Iterable[Run], key_of: Callable[[Run], CellKey]
) -> dict[CellKey, dict[int, Run]]:
    """Group runs as [line and column][seed], in their order.

    Of two runs with the same cell and seed the second is left out, with a warning.
    """
    found: dict[CellKey, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        kept = found[key_of(run)].setdefault(run.seed, run)
        if kept is not run:
            logger.warning("two runs for one place: %s is used, %s is not", kept.folder, run.folder)
    return found


def all_class_runs(runs: Iterable[Run]) -> list[Run]:
    """Return the runs on all classes.

    Raises:
        UserError: there is none.
    """
    runs = [run for run in runs if run.subset == "all"]
    if not runs:
        raise UserError("no finished run on all classes: base and new runs are not counted here")
    return runs


def shots_of(run: Run) -> int:
    """Return the training images per class of a run; 0 for zero-shot."""
    return 0 if run.zero_shot else run.setting.shots


def shots_table(runs: Iterable[Run], *, ci95: bool = False) -> Table:
    """Return few-shot accuracy: a line per trainer and dataset, a column per shots.

    A trainer may use another config for each number of shots, as CoOp does.

    Args:
        runs: what `collect` returns; those on base and new classes are left out.
        ci95: describe the spread in the note as a 95 % interval.

    Raises:
        UserError: there is no run on all classes.
    """

    def key_of(run: Run) -> CellKey:
        line = (shorten(run.setting.root), run.dataset, run.setting.trainer)
        return CellKey(line, shots_of(run))

    found = group_runs(all_class_runs(runs), key_of)
    shots = sorted({key.column for key in found}, key=lambda n: (n == ALL_SHOTS, n))
    names = {n: "all images" if n == ALL_SHOTS else f"{n} shot{'s' * (n != 1)}" for n in shots}
    lines = _lines(found, ("output", "dataset", "trainer"), names)
    return _table(lines, list(names.values()), ci95, noted=("dataset", "seeds"))


def transfer_table(runs: Iterable[Run], *, ci95: bool = False) -> Table:
    """Return cross-dataset accuracy: a line per trainer and source, a column per target.

    Arguments and errors are those of `shots_table`.
    """

    def key_of(run: Run) -> CellKey:
        root, source, is_target = _origin(run)
        line = (shorten(root), source, run.setting.trainer, run.setting.config, run.setting.shots)
        return CellKey(line, run.dataset if is_target else "")

    found = group_runs(all_class_runs(runs), key_of)
    targets = sorted({key.column for key in found} - {""}, key=str.lower)
    names = {"": SOURCE, **{target: target for target in targets}}
    labels = ("output", "source", "trainer", "config", "shots")
    lines = [_with_average(line, targets) for line in _lines(found, labels, names)]
    columns = [*names.values(), *([AVERAGE] if len(targets) > 1 else [])]
    more = [f"{SOURCE}: on the test images of the source itself."]
    more += [f"{AVERAGE}: over the targets."] if AVERAGE in columns else []
    return _table(lines, columns, ci95, more, noted=("source", "config", "shots", "seeds"))


def _origin(run: Run) -> tuple[str, str, bool]:
    """Return output folder, name of the source's folder, and whether it is a test on a target."""
    root = Path(run.setting.root)
    if root.parent.name == "evaluation":
        return root.parent.parent.as_posix(), root.name, True
    if root.name == "evaluation":  # the layout of MaPLe, which does not name the source
        return root.parent.as_posix(), "?", True
    layout = match_layout(run.folder)
    return root.as_posix(), layout["dataset"] if layout else run.dataset, False


def _lines(
    found: Mapping[CellKey, Mapping[int, Run]],
    labels: tuple[str, ...],
    names: Mapping[Any, str],
) -> list[Line]:
    """Average each cell over its seeds; warn where the cells of a line have different seeds."""
    by_line: dict[tuple, dict[str, Mapping[int, Run]]] = defaultdict(dict)
    for key, runs in found.items():
        by_line[key.line][names[key.column]] = runs
    lines = []
    for line, columns in by_line.items():
        seeds = {column: tuple(sorted(runs)) for column, runs in columns.items()}
        if len(set(seeds.values())) > 1:
            lists = "; ".join(f"{column}: {' '.join(map(str, s))}" for column, s in seeds.items())
            logger.warning(
                "%s: not the same seeds everywhere (%s)", ", ".join(map(str, line)), lists
            )
            text = "mixed"
        else:
            text = " ".join(map(str, next(iter(seeds.values()))))
        lines.append(
            Line(
                labels={**dict(zip(labels, map(str, line), strict=True)), "seeds": text},
                stats={
                    c: stat(run.accuracy for run in runs.values()) for c, runs in columns.items()
                },
                rounded=any(run.rounded for runs in columns.values() for run in runs.values()),
                values={
                    c: {seed: run.accuracy for seed, run in runs.items()}
                    for c, runs in columns.items()
                },
            )
        )
    return lines


def _with_average(line: Line, targets: list[str]) -> Line:
    """Add the mean over the targets, if the line has them all."""
    if not targets or any(target not in line.stats for target in targets):
        return line
    mean = fmean(line.stats[target].mean for target in targets)
    average = {AVERAGE: Stat(mean, None, len(targets))}
    return replace(line, stats={**line.stats, **average})


def _table(
    lines: list[Line],
    columns: list[str],
    ci95: bool,
    more: Iterable[str] = (),
    *,
    noted: tuple[str, ...],
) -> Table:
    rounded = [ROUNDED_NOTE] if any(line.rounded for line in lines) else []
    note = [spread_note(ci95), *more, *rounded]
    return Table(lines, columns, note, noted=noted, group=("output", noted[0]))
