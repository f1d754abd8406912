"""Tables of all-class runs, a line per trainer: accuracy over shots, or on other datasets."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from dplq.errors import UserError, few
from dplq.results.rendering import Line, Table
from dplq.results.runs import Run, match_layout, one_each, warn_of_mixed_data
from dplq.results.summary import Stat, stat
from dplq.results.tables import ROUNDED_NOTE, problem_lines, shorten, spread_note

logger = logging.getLogger(__name__)

ALL_SHOTS = -1  # DATASET.NUM_SHOTS for all training images
SOURCE = "on source"
AVERAGE = "average"


class CellKey(NamedTuple):
    """Position of a run in a table: its line, its column, and its seed there."""

    line: tuple[Any, ...]  # its labels
    column: Any  # number of shots, or name of the target dataset
    seed: int


def grouped_runs(
    runs: Iterable[Run], key_of: Callable[[Run], CellKey]
) -> dict[tuple[Any, ...], dict[Any, dict[int, Run]]]:
    """Return runs as [line][column][seed], in their order, one for each place.

    A warning names places whose seeds are of several folders or configs.
    """
    found: dict[tuple[Any, ...], dict[Any, dict[int, Run]]] = {}
    for key, run in one_each(runs, "two runs for one place", key_of).items():
        found.setdefault(key.line, {}).setdefault(key.column, {})[key.seed] = run
    for columns in found.values():
        warn_of_mixed_data(run for seeds in columns.values() for run in seeds.values())
        for seeds in columns.values():
            _warn_of_mixture(list(seeds.values()))
    return found


def _warn_of_mixture(runs: Sequence[Run]) -> None:
    """Warn of runs of one place, seed by seed, that are of several folders or configs."""
    places: dict[str, list[int]] = {}
    for run in runs:
        name = f"{run.setting.config} below {shorten(run.setting.root)}"
        places.setdefault(name, []).append(run.seed)
    if len(places) > 1:
        listed = (f"{name}: {' '.join(map(str, seeds))}" for name, seeds in places.items())
        logger.warning(
            "%s on %s: seeds of several configs or folders are averaged as if they were one (%s): "
            "give the folders of one config",
            *(runs[0].setting.trainer, runs[0].dataset, few(listed, separator="; ")),
        )


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
    """Return the training images per class of a run; 0 for zero-shot, ALL_SHOTS for all."""
    if run.zero_shot:
        return 0
    return run.setting.shots if run.setting.shots > 0 else ALL_SHOTS


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
        return CellKey(line, shots_of(run), run.seed)

    found = grouped_runs(all_class_runs(runs), key_of)
    shots = sorted(
        {n for columns in found.values() for n in columns}, key=lambda n: (n == ALL_SHOTS, n)
    )
    names = {n: "all images" if n == ALL_SHOTS else f"{n} shot{'s' * (n != 1)}" for n in shots}
    lines = _lines(found, ("output", "dataset", "trainer"), names)
    more = _training_notes(found)
    return _table(lines, list(names.values()), ci95, more, noted=("dataset", "seeds"))


def transfer_table(runs: Iterable[Run], *, ci95: bool = False) -> Table:
    """Return cross-dataset accuracy: a line per trainer and source, a column per target.

    Arguments and errors are those of `shots_table`.
    """

    def key_of(run: Run) -> CellKey:
        root, source, is_target = _origin(run)
        line = (shorten(root), source, run.setting.trainer, run.setting.config, run.setting.shots)
        return CellKey(line, run.dataset if is_target else "", run.seed)

    found = grouped_runs(all_class_runs(runs), key_of)
    targets = sorted(
        {name for columns in found.values() for name in columns if name}, key=str.lower
    )
    names = {"": SOURCE, **{target: target for target in targets}}
    labels = ("output", "source", "trainer", "config", "shots")
    lines = [_with_average(line, targets) for line in _lines(found, labels, names)]
    columns = [*names.values(), *([AVERAGE] if len(targets) > 1 else [])]
    more = [f"{SOURCE}: on the test images of the source itself."]
    more += [f"{AVERAGE}: over the targets."] if AVERAGE in columns else []
    more += _training_notes(found)
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
    found: Mapping[tuple[Any, ...], Mapping[Any, Mapping[int, Run]]],
    labels: tuple[str, ...],
    names: Mapping[Any, str],
) -> list[Line]:
    """Average each cell over its seeds; warn where the cells of a line have different seeds."""
    lines = []
    for line, columns in found.items():
        cells = {names[column]: runs for column, runs in columns.items()}
        seeds = {column: " ".join(map(str, sorted(runs))) for column, runs in cells.items()}
        text = next(iter(seeds.values())) if len(set(seeds.values())) == 1 else "mixed"
        if text == "mixed":
            lists = "; ".join(f"{column}: {of_column}" for column, of_column in seeds.items())
            where = ", ".join(map(str, line))
            logger.warning("%s: not the same seeds everywhere (%s)", where, lists)
        values = {
            c: {seed: run.accuracy for seed, run in runs.items()} for c, runs in cells.items()
        }
        lines.append(
            Line(
                labels={**dict(zip(labels, map(str, line), strict=True)), "seeds": text},
                stats={column: stat(of_seeds.values()) for column, of_seeds in values.items()},
                rounded=any(run.rounded for runs in cells.values() for run in runs.values()),
                values=values,
            )
        )
    return lines


def _training_notes(
    found: Mapping[tuple[Any, ...], Mapping[Any, Mapping[int, Run]]],
) -> list[str]:
    """Return a line for every problem of trainings, with those that have it."""
    seeds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in (run for line in found.values() for cell in line.values() for run in cell.values()):
        if run.problem:
            one = run.setting
            of = f"{one.trainer} ({one.config}, {run.dataset}, {one.shots} shots, seeds"
            seeds[run.problem, of].append(run.seed)
    problems: dict[str, list[str]] = defaultdict(list)
    for (problem, of), those in seeds.items():
        problems[problem].append(f"{of} {' '.join(map(str, sorted(those)))})")
    return problem_lines(problems)


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
