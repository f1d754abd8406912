"""Table of base, new and H (or all-class) accuracy, optionally with costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dplq.results import ACCURACY, METRICS
from dplq.results.comparable import comparable
from dplq.results.composite import NOTE as COMPOSITE_NOTE
from dplq.results.names import MARK
from dplq.results.rendering import Line, Number, Table
from dplq.results.runs import PAIRS, SUBSETS
from dplq.results.summary import Row

COST_COLUMNS = {  # names as in `dplq.results.runs.COSTS`
    "learnable_parameters": Number("learnable", lambda count: f"{count:,.0f}"),
    "seconds_per_step": Number("s/step", lambda seconds: f"{seconds:.3g}"),
    "peak_memory_mib": Number("memory (MiB)", lambda mib: f"{mib:,.0f}"),
    "checkpoint_bytes": Number("checkpoint (kB)", lambda count: f"{count / 1000:,.1f}"),
}
GROUP = ("output", "shots", "dataset")  # lines whose best is sought
_COST_NOTES = {
    "learnable_parameters": "learnable: parameters that are learned or fitted.",
    "seconds_per_step": (
        "s/step: wall-clock seconds of a training step, with each method's own batch size."
    ),
    "peak_memory_mib": (
        "memory: peak of the training process, allocated on a GPU, resident on a CPU."
    ),
    "checkpoint_bytes": "checkpoint: size of one file.",
}


def accuracy_table(
    rows: Sequence[Row], *, ci95: bool = False, costs: bool = False, metric: str = ACCURACY
) -> Table:
    """Return the rows as a table.

    Args:
        rows: what `summarise` returns.
        ci95: describe the spread in the note as a 95 % interval.
        costs: add learnable parameters, seconds per step, peak memory and checkpoint size, and
            move the labels that all rows share to the note.
        metric: what `collect` was asked for.
    """
    notes = note(rows, ci95=ci95, metric=metric)
    lines = comparable([_line(row) for row in rows], GROUP)
    if not costs:
        return Table(lines, columns_of(rows), notes, group=GROUP)
    devices = sorted({device for row in rows for device in row.devices})
    ran_on = [f"Run on: {'; '.join(devices)}."] if devices else []
    return Table(
        lines=lines,
        columns=columns_of(rows),
        note=[*notes, *cost_notes(COST_COLUMNS), *_cached_notes(rows), *ran_on],
        numbers=COST_COLUMNS,
        noted=("config", "shots", "dataset", "seeds"),
        group=GROUP,
    )


def render(
    rows: Sequence[Row], fmt: str = "simple", *, ci95: bool = False, costs: bool = False
) -> str:
    """Return the rows as the text of one table; see `accuracy_table` and `Table.render`."""
    return accuracy_table(rows, ci95=ci95, costs=costs).render(fmt, ci95=ci95)


def cost_notes(columns: Iterable[str]) -> list[str]:
    """Return the lines about some of `COST_COLUMNS`."""
    return [_COST_NOTES[name] for name in columns]


def spread_note(ci95: bool, metric: str = ACCURACY) -> str:
    """Return the first line of every note."""
    spread = "95 % interval (Student's t)" if ci95 else "population standard deviation"
    return f"{METRICS[metric]} in %: mean +- {spread} over seeds; one seed has none."


def note(rows: Sequence[Row], *, ci95: bool = False, metric: str = ACCURACY) -> list[str]:
    """Return the lines of the note: what the numbers in `rows` are."""
    lines = [spread_note(ci95, metric)]
    if "H" in columns_of(rows):
        lines.append(
            f"H: harmonic mean of the averaged base and new {_words(metric)}, as in published"
            " tables, over the seeds that have both; its +- is over the per-seed harmonic means."
        )
        closed = sorted({row.setting.trainer for row in rows if not row.any_classes})
        if closed:
            lines.append(f"{', '.join(closed)}: for training classes only, no new ones.")
    if "gen. H" in columns_of(rows):
        lines.append(
            "gen.: generalised, the model of the base classes chooses among all class names:"
            " accuracy on base images, on new images, and H of the two."
        )
    if any(stat.std is None for row in rows for stat in row.stats.values()):
        lines.append("average: mean over datasets; its H is that of the two averages.")
    lines += _training_notes(rows)
    if any(row.setting.trainer.endswith(MARK) for row in rows):
        lines.append(COMPOSITE_NOTE)
    if any(row.rounded for row in rows):
        lines.append(ROUNDED_NOTE)
    return lines


def _words(metric: str) -> str:
    return metric.replace("_", " ").replace("auroc", "AUROC").replace("f1", "F1")


def _training_notes(rows: Sequence[Row]) -> list[str]:
    """Return a line for every problem of trainings, with those that have it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for problem, seeds in row.problems.items():
            found.setdefault(problem, []).append(_runs_of(row, seeds, rows))
    return problem_lines(found)


def problem_lines(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for every problem of trainings, which `found` has with the runs in words."""
    return [
        f"On its own training images the training {problem}: {'; '.join(found[problem])}."
        for problem in sorted(found)
    ]


def _runs_of(row: Row, seeds: Sequence[int], rows: Sequence[Row]) -> str:
    """Return which runs of a row of a table these are; with the shots where the rows' differ."""
    several = len({one.setting.shots for one in rows}) > 1
    parts = [row.setting.config, row.dataset, *[f"{row.setting.shots} shots"] * several]
    return f"{row.setting.trainer} ({', '.join(parts)}, seeds {' '.join(map(str, seeds))})"


def _cached_notes(rows: Sequence[Row]) -> list[str]:
    """Return a line that names the runs whose time and memory are not the method's own."""
    found = [_runs_of(row, row.cached, rows) for row in rows if row.cached]
    if not found:
        return []
    return [
        "Not in s/step and memory, for frozen features were read from the cache "
        f"(TRAIN.FEATURE_CACHE 0 computes them in each run): {'; '.join(found)}."
    ]


ROUNDED_NOTE = "*: from accuracies that a log.txt gives rounded (one decimal as a rule)."


def columns_of(rows: Iterable[Row | Line]) -> list[str]:
    """Return the columns of accuracies that any row has, in their order."""
    present = {name for row in rows for name in row.stats}
    columns = [
        column
        for name, halves in PAIRS.items()
        if present & set(halves)
        for column in (*halves, name)
    ]
    return columns + ["all"] * ("all" in present)


def _line(row: Row) -> Line:
    labels = {
        "output": shorten(row.setting.root),
        "trainer": row.setting.trainer,
        "config": row.setting.config,
        "shots": str(row.setting.shots),
        "dataset": row.dataset,
        "seeds": seed_text(row.seeds),
    }
    return Line(labels, row.stats, row.rounded, row.costs, row.values, row.parts, row.splits)


def shorten(root: str) -> str:
    """Return a folder below the current one as a relative path, others unchanged."""
    path, here = Path(root), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else root


def seed_text(seeds: Mapping[str, tuple[int, ...]]) -> str:
    """Return the seeds of a row: one list if all its subsets have the same."""
    texts = {subset: " ".join(map(str, seeds[subset])) for subset in SUBSETS if subset in seeds}
    if len(set(texts.values())) <= 1:
        return next(iter(texts.values()), "mixed")
    return ", ".join(f"{subset} {text}" for subset, text in texts.items())
