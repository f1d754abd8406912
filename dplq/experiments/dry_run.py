"""What a plan would do: its runs with their states, and how long the rest may take."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from dplq.errors import UserError, few
from dplq.experiments.plan import Plan, RecordedSettings, Run
from dplq.experiments.state import Found, State, scan
from dplq.io.runs.files import RESULTS_FILE
from dplq.io.runs.results import read_results

REFUSED = "refused"  # the folder holds a run with other settings
STATES = (*(state.value for state in State), REFUSED)
SAMPLES = 5  # finished runs of a kind that an estimate is made of


class Kind(NamedTuple):
    """What runs have in common that take about the same time."""

    trainer: str
    shots: int
    tests: bool
    dataset: str


def overview(plan: Plan) -> str:
    """Return a text: the plan's notes, a table of its runs, counts and an estimate."""
    found = scan(plan.runs)
    refusals = _refusals(plan.runs, found)
    states = [
        REFUSED if run.folder in refusals else one.state.value
        for run, one in zip(plan.runs, found, strict=True)
    ]
    remaining = [
        run
        for run, state in zip(plan.runs, states, strict=True)
        if state not in (State.FINISHED.value, REFUSED)
    ]
    finished = [
        run for run, one in zip(plan.runs, found, strict=True) if one.state is State.FINISHED
    ]
    counts = Counter(states)
    parts = (f"{counts[state]:,} {state}" for state in STATES if counts[state])
    lines = [
        *plan.notes,
        *_table(plan.runs, states),
        "",
        f"{len(plan.runs):,} runs: {', '.join(parts)}.",
        *_holders(plan.runs, found),
        *refusals.values(),
    ]
    if remaining:
        lines.append(estimate(remaining, finished))
    return "\n".join(lines)


def estimate(remaining: Iterable[Run], finished: Iterable[Run]) -> str:
    """Return a line: how long runs take one after the other, from finished ones like them.

    Args:
        remaining: runs that are to be made.
        finished: runs whose results are there.
    """
    samples: dict[Kind, list[Path]] = defaultdict(list)
    for run in finished:
        for kind in _kinds(run):
            if len(samples[kind]) < SAMPLES:
                samples[kind].append(run.folder)
    means = {kind: _mean(folders) for kind, folders in samples.items()}
    total, unknown, known = 0.0, dict[str, None](), 0
    for run in remaining:
        seconds = next((means[kind] for kind in _kinds(run) if means.get(kind)), None)
        if seconds is None:
            unknown[run.trainer] = None
        else:
            total, known = total + seconds, known + 1
    if not known:
        return "No finished run to estimate from."
    rest = f"; no finished run to estimate {few(unknown)} from" if unknown else ""
    return f"About {_hours(total)} for {known:,} of them, one after the other{rest}."


def _kinds(run: Run) -> list[Kind]:
    """Return the kinds of a run, the nearest first."""
    kind = Kind(run.trainer, run.shots, run.model is not None, run.dataset)
    return [kind, kind._replace(dataset="")]


def _mean(folders: Sequence[Path]) -> float | None:
    """Return the mean seconds of finished runs; None where no file says them.

    Runs that read frozen features from the cache count only where there are no others: whether
    those to come will find theirs is not known.
    """
    found: dict[bool, list[float]] = {False: [], True: []}
    for folder in folders:
        try:
            seconds = read_results(folder / RESULTS_FILE).seconds
        except UserError:  # damaged: `dplq results` says so
            continue
        if seconds.train is not None or seconds.test is not None:
            whole = (seconds.train or 0.0) + (seconds.test or 0.0)
            found[bool(seconds.cached_batches)].append(whole)
    used = found[False] or found[True]
    return fmean(used) if used else None


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(runs: Sequence[Run], states: Sequence[str]) -> list[str]:
    """Return the lines of a table: a folder of seeds each, and how many are in which state."""
    from tabulate import tabulate

    if not runs:
        return []
    counts: dict[Path, Counter[str]] = defaultdict(Counter)
    for run, state in zip(runs, states, strict=True):
        counts[run.folder.parent][state] += 1
    there = [state for state in STATES if state in states]
    top = os.path.commonpath(counts)
    rows = [
        [os.path.relpath(folder, top), *(of[state] or "" for state in there)]
        for folder, of in counts.items()
    ]
    text = tabulate(rows, [f"seeds of, below {top}", *there], disable_numparse=True)
    return text.splitlines()


def _holders(runs: Sequence[Run], found: Sequence[Found]) -> list[str]:
    return [
        f"running: {run.folder} by {one.holder}"
        for run, one in zip(runs, found, strict=True)
        if one.state is State.HELD
    ]


def _refusals(runs: Sequence[Run], found: Sequence[Found]) -> dict[Path, str]:
    """Return why runs cannot be made: other ones lie in their folders."""
    finished = {run.folder for run, one in zip(runs, found, strict=True) if _is_finished(one)}
    refused, recorded = {}, RecordedSettings()
    for run in runs:
        if run.model is not None and run.model not in finished:
            continue  # what is tested, and so the settings, are not known yet
        try:
            run.check_folder(recorded)
        except UserError as error:
            refused[run.folder] = f"{REFUSED}: {error}"
    return refused


def _is_finished(found: Found) -> bool:
    return found.state is State.FINISHED
