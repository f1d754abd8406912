"""Finished runs as a pandas table: a line per run, filters, any grouping."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dplq.errors import UserError, few, suggest
from dplq.results import ACCURACY, METRICS
from dplq.results.comparable import comparable, shares
from dplq.results.rendering import Line, Table, escape_markdown
from dplq.results.runs import COSTS, GENERALISED, Run, one_each, warn_of_mixed_data
from dplq.results.summary import paired_stats
from dplq.results.tables import ROUNDED_NOTE, columns_of, seed_text, shorten, spread_note

if TYPE_CHECKING:
    from pandas import DataFrame

Parts = dict[str, dict[int, list[str]]]  # classes -> seed -> what its mean is over

logger = logging.getLogger(__name__)

KEYS = ("output", "trainer", "config", "dataset", "classes", "shots", "seed")
GROUPINGS = tuple(name for name in KEYS if name not in ("classes", "seed"))  # those are averaged


def frame(runs: Iterable[Run]) -> DataFrame:
    """Return runs as a pandas table, a line per run in their order.

    The columns are `KEYS`; every metric of `METRICS` and, of generalised tests, the accuracy of a
    half, in percent; `COSTS`; device, rounded and folder. A value that a run lacks is nan.
    """
    from pandas import DataFrame

    columns = [*KEYS, *METRICS, *COSTS, "device", "rounded", "folder"]
    return DataFrame([_record(run) for run in runs], columns=columns)


def _record(run: Run) -> dict[str, Any]:
    setting = run.setting
    keys = (shorten(setting.root), setting.trainer, setting.config, run.dataset, run.subset)
    return {
        **dict(zip(KEYS, (*keys, setting.shots, run.seed), strict=True)),
        **run.metrics,
        **run.costs,
        **{"device": run.device, "rounded": run.rounded, "folder": str(run.folder)},
    }


def listed(runs: Iterable[Run], fmt: str) -> str:
    """Return a line per run, in the format simple, github or csv.

    Raises:
        UserError: another format.
    """
    table = frame(runs)
    if fmt == "csv":
        return table.to_csv(index=False, float_format="%.10g", lineterminator="\n").rstrip("\n")
    if fmt not in ("simple", "github"):
        raise UserError(f"--runs has no format {fmt}: choose csv, github or simple")
    shown = table.drop(columns=["device", "rounded", "folder"]).dropna(axis="columns", how="all")
    if fmt == "github":
        for column in shown.select_dtypes(exclude="number"):
            shown[column] = [escape_markdown(v) if isinstance(v, str) else v for v in shown[column]]
    return str(shown.to_markdown(index=False, tablefmt=fmt, floatfmt=".6g", missingval="-"))


def select(runs: Sequence[Run], conditions: Iterable[str]) -> list[Run]:
    """Return the runs that fulfil every condition.

    Args:
        runs: what `collect` returns.
        conditions: such as "trainer=CoOp,MaPLe", "shots!=16" or "dataset=demo_*": a column of
            `KEYS`, and values in any case, or patterns; after != all that have none of them.

    Raises:
        UserError: a condition has another form, names no column, or no run is left.
    """
    runs, table = list(runs), frame(runs)
    for condition in conditions:
        column, is_not, patterns = _parsed(condition)
        known = table[column].unique()
        wanted = [v for v in known if any(fnmatchcase(str(v).lower(), p) for p in patterns)]
        table = table[table[column].isin(wanted) != is_not]
        if table.empty:
            choices = suggest(",".join(patterns), sorted(map(str, known)))
            raise UserError(f"--where {condition}: no run is left.{choices}")
    return [runs[index] for index in table.index]


def _parsed(condition: str) -> tuple[str, bool, list[str]]:
    """Return column, whether it is excluded, and patterns of a condition."""
    column, equals, values = condition.partition("=")
    is_not = column.endswith("!")
    column = column.removesuffix("!").strip()
    if not equals or not values.strip():
        raise UserError(f"--where {condition}: write COLUMN=VALUE, such as trainer=CoOp")
    if column not in KEYS:
        raise UserError(f"--where {condition}: no column '{column}'.{suggest(column, KEYS)}")
    return column, is_not, [value.strip().lower() for value in values.split(",")]


def grouped_table(
    runs: Iterable[Run], by: Sequence[str], *, ci95: bool = False, metric: str = ACCURACY
) -> Table:
    """Return a table with a line per group of runs.

    For every seed the runs of a group are averaged, whatever else they differ in; the table has
    mean and spread of these averages over the seeds. H is as in `summarise`.

    Args:
        runs: what `collect` returns.
        by: columns of `GROUPINGS`.
        ci95: describe the spread in the note as a 95 % interval.
        metric: what `collect` was asked for.

    Raises:
        UserError: no column, or no such column.
    """
    by = list(dict.fromkeys(by))
    if not by:
        raise UserError(f"--by names no column. Choices: {', '.join(GROUPINGS)}.")
    for name in by:
        if name not in GROUPINGS:
            raise UserError(f"--by {name}: no such column.{suggest(name, GROUPINGS)}")
    runs = list(one_each(runs, "the same run twice").values())
    table = frame(runs).assign(value=[run.accuracy for run in runs])
    groups = table.groupby([*by, "classes", "seed"])
    cells = groups["value"].agg("mean")
    for rows in table.groupby(by).indices.values():
        warn_of_mixed_data(runs[row] for row in rows)
    found: Any = defaultdict(lambda: defaultdict(dict))
    for key, mean in cells.items():
        *group, classes, seed = key
        found[tuple(group)][classes][int(seed)] = float(mean)
    averaged = _averaged(table, by)
    rounded = table.groupby(list(by))["rounded"].any()
    lines = []
    for group, values in found.items():
        parts = averaged[group]
        _warn_unequal(group, parts)
        stats, values = paired_stats(values)
        halves = GENERALISED[1:]  # one test has both
        counted = [seeds for column, seeds in parts.items() if column not in halves]
        count = sum(len(names) for seeds in counted for names in seeds.values())
        labels = {**dict(zip(by, map(str, group), strict=True)), "runs": str(count)}
        seeds = {name: tuple(sorted(values[name])) for name in parts}
        labels["seeds"] = seed_text(seeds)
        is_rounded = bool(rounded[group if len(by) > 1 else group[0]])
        weights = {c: {s: shares(names) for s, names in of.items()} for c, of in parts.items()}
        lines.append(Line(labels, stats, is_rounded, values=values, parts=weights))
    among = [name for name in by if name not in ("trainer", "config")]
    lines = comparable(lines, among)
    return Table(
        lines=lines,
        columns=columns_of(lines),
        note=_note(table, by, lines, ci95, metric),
        dropped=(),
        noted=("seeds",),
        group=among,
    )


def _averaged(table: DataFrame, by: Sequence[str]) -> dict[tuple[Any, ...], Parts]:
    """Return what is averaged in each group, by classes and seed: a name for every run.

    A config belongs to its trainer: trainers are compared whatever their configs are called.
    """
    varied = [n for n in GROUPINGS if n not in by and n != "config" and table[n].nunique() > 1]
    columns = [table[name] for name in varied] or [[""] * len(table)]
    names = (", ".join(map(str, values)) for values in zip(*columns, strict=True))
    found: dict[tuple[Any, ...], Parts] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    keys = zip(*(table[n] for n in (*by, "classes", "seed")), strict=True)
    for (*group, classes, seed), name in zip(keys, names, strict=True):
        found[tuple(group)][classes][int(seed)].append(name)
    return found


def _warn_unequal(group: tuple[Any, ...], parts: Parts) -> None:
    """Warn of a group whose means of two seeds are over other runs."""
    for classes, by_seed in parts.items():
        if len({tuple(sorted(names)) for names in by_seed.values()}) > 1:
            sizes = {seed: str(len(names)) for seed, names in sorted(by_seed.items())}
            if len(set(sizes.values())) == 1:
                sizes = {seed: few(sorted(by_seed[seed])) for seed in sizes}
            listed = ", ".join(f"seed {seed}: {size}" for seed, size in sizes.items())
            logger.warning(
                "%s: the seeds have different runs on %s classes (%s)",
                *(", ".join(map(str, group)), classes, listed),
            )


def _note(
    table: DataFrame, by: Sequence[str], lines: Sequence[Line], ci95: bool, metric: str
) -> list[str]:
    varied = [
        n for n in GROUPINGS if n not in by and table.groupby(list(by))[n].nunique().max() > 1
    ]
    notes = [spread_note(ci95, metric)]
    if varied:
        notes.append(f"Of each seed the mean over all of: {', '.join(varied)}.")
    return notes + ([ROUNDED_NOTE] if any(line.rounded for line in lines) else [])
