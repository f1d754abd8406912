"""Carrying out a plan from its notes to its tables: the end of every command that runs one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from dplq.errors import UserError
from dplq.experiments.plan import Plan, Run, TableRequest
from dplq.experiments.sequential import STOPPED, execute
from dplq.io.exit_code import DONE


class Stopped(BaseException):
    """A signal that ends the command; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def carry_out(plan: Plan) -> int:
    """Carry out a plan, and print the tables of what is there, also when runs failed.

    Returns:
        0, the code of the first run that failed, or 128 and the number of the signal that came.
    """
    try:
        with stopped_by_signals():
            print_notes(plan.notes)
            code = execute(plan)
            table_code = print_tables(plan.tables)
    except Stopped as stop:
        print(STOPPED, file=sys.stderr)
        return 128 + stop.number
    if code != DONE:
        print_failed(plan)
    return code or table_code


def print_notes(notes: Sequence[str]) -> None:
    """Print the notes of a plan, warnings on stderr."""
    for note in notes:
        print(note, file=sys.stderr if note.startswith("warning: ") else sys.stdout, flush=True)


def print_tables(tables: Sequence[TableRequest]) -> int:
    """Print the tables of the folders that are there; return the first code that is not 0."""
    from dplq.results.__main__ import main

    codes = []
    for table in tables:
        folders = [str(folder) for folder in table.folders if folder.is_dir()]
        if folders:
            if len(tables) > 1:
                print(f"\n== {table.title}", flush=True)
            codes.append(main([*table.flags, "--", *folders]))
    return next(filter(None, codes), DONE)


def print_failed(plan: Plan) -> None:
    """Name the trainers with a run that failed, where there are several."""
    trainers = list(dict.fromkeys(run.trainer for run in plan.runs))
    failed = dict.fromkeys(run.trainer for run in plan.runs if _failed(run))
    if len(trainers) > 1 and failed:
        names = " ".join(failed)
        print(
            f"error: failed: {names}. The messages are above, and in log.txt of each run.",
            file=sys.stderr,
        )


def _failed(run: Run) -> bool:
    """Return whether a run is not there as it was wanted."""
    if not run.is_finished:
        return True
    try:
        run.check_folder()
    except (UserError, OSError):
        return True
    return False


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` on SIGINT, SIGTERM and SIGHUP while the block runs."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

    def stop(number: int, frame: Any) -> NoReturn:
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
