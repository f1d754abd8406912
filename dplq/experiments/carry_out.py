"""Carrying out a plan from its notes to its tables: the end of every command that runs one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from dplq.errors import UserError
from dplq.experiments.check_configs import check_configs
from dplq.experiments.engines import Engine
from dplq.experiments.execute import LOGS_FOLDER, execute
from dplq.experiments.plan import Plan, RecordedSettings, Run, TableRequest
from dplq.experiments.recorded import has_results
from dplq.experiments.signals import caught_signals
from dplq.io.exit_code import DONE, MISTAKE, until_closed
from dplq.io.runs.files import RESULTS_FILE

ENGINES = "dplq.experiments.engines"  # logger


def carry_out(
    plan: Plan,
    engine: Callable[[], Engine] | None = None,
    *,
    live: bool = False,
    here: bool = True,
) -> int:
    """Carry out a plan, and print the tables of what is there, also when runs failed.

    Args:
        plan: the runs and the tables.
        engine: opens the place where they run; None: here, one after the other, with their output
            on the terminal.
        live: show a table of the runs while they run.
        here: the engine's runs are made on this machine.

    Returns:
        0, the code of the first run that failed, or 128 and the number of the signal that came.

    Raises:
        UserError: a run's config cannot be used, or the engine cannot be opened.
    """
    check_configs(plan.runs, here=here)
    logging.getLogger(ENGINES).setLevel(logging.INFO)  # how many runs share a GPU
    with caught_signals() as signals:
        with until_closed(sys.stdout, signals.note_closed):
            print_notes(plan.notes)
        code = _execute(plan, engine, live)
    if signals.number:
        return code
    table_code = DONE
    # Where nothing was finished, the reason is on the terminal, and a table adds nothing.
    with until_closed(sys.stdout):
        if code == DONE or _have_rows(plan.tables):
            table_code = print_tables(plan.tables)
    if code != DONE:
        with until_closed(sys.stderr):
            print_failed(plan.runs)
    return code or table_code


def _execute(plan: Plan, engine: Callable[[], Engine] | None, live: bool) -> int:
    place = None if engine is None else engine()
    try:
        logs = plan.out / LOGS_FOLDER if plan.out else None
        return execute(plan, place, live=live, logs=logs)
    except UserError as error:
        with until_closed(sys.stderr):
            print(f"error: {error}", file=sys.stderr)
        return MISTAKE


def print_notes(notes: Sequence[str]) -> None:
    """Print the notes of a plan, warnings on stderr."""
    for note in notes:
        print(note, file=sys.stderr if note.startswith("warning: ") else sys.stdout, flush=True)


def print_tables(tables: Sequence[TableRequest]) -> int:
    """Print the tables of the folders that are there; return the first code that is not 0."""
    codes = []
    for table in tables:
        folders = [str(folder) for folder in table.folders if folder.is_dir()]
        if folders:
            from dplq.results.__main__ import main

            if len(tables) > 1:
                print(f"\n== {table.title}", flush=True)
            codes.append(main([*table.flags, "--", *folders]))
    return next(filter(None, codes), DONE)


def _have_rows(tables: Sequence[TableRequest]) -> bool:
    """Return whether results of any finished run lie in the folders of the tables."""
    folders = {folder for table in tables for folder in table.folders}
    return any(
        has_results(file.parent) for folder in folders for file in folder.rglob(RESULTS_FILE)
    )


def print_failed(runs: Sequence[Run]) -> None:
    """Name the trainers with a run that failed, where there are several."""
    trainers = dict.fromkeys(run.trainer for run in runs)
    recorded = RecordedSettings()
    failed = dict.fromkeys(run.trainer for run in runs if _failed(run, recorded))
    if len(trainers) > 1 and failed:
        print(
            f"error: failed: {' '.join(failed)}. The messages are above, and in log.txt of each"
            " run.",
            file=sys.stderr,
        )


def _failed(run: Run, recorded: RecordedSettings) -> bool:
    """Return whether a run is not there as it was wanted."""
    if not run.is_finished:
        return True
    try:
        run.check_folder(recorded)
    except (UserError, OSError):
        return True
    return False
