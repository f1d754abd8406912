"""Carrying out a plan: one run after the other, each a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dplq.experiments.plan import Plan, Run
from dplq.io.atomic import write_bytes_atomically
from dplq.io.exit_code import DONE, MISTAKE, PROBLEMS
from dplq.io.runs.files import SETTINGS_FILE

SETTINGS_VARIABLE = "DPLQ_SETTINGS"  # has `dplq train` write settings.txt
STOPPED = "Stopped. The same command goes on from here."


def execute(plan: Plan) -> int:
    """Carry out a plan; a finished run is not repeated.

    Returns:
        0, the code of the run that failed, or 128 and the number of the signal that came.

    Raises:
        UserError: a folder has a run with other settings.
    """
    with forwarded_signals() as child:
        for run in plan.runs:
            run.check_folder()
            if run.is_finished:
                print(f"Already finished: {run.folder}", flush=True)
                continue
            print(f"== {run.title}: {run.folder}", flush=True)
            code = _carry_out(run, child)
            if child.signal:
                print(STOPPED, file=sys.stderr)
                return 128 + child.signal
            if code != DONE:
                print(
                    f"error: failed (exit code {code}): {run.title}. Its folder: {run.folder}\n"
                    "Fix the cause and give the same command again; finished runs are kept.",
                    file=sys.stderr,
                )
                return code
    return DONE


def _carry_out(run: Run, child: Child) -> int:
    """Start a run and wait for it; return its exit code."""
    settings = run.settings()
    code = child.run(run.command, os.environ | {SETTINGS_VARIABLE: settings})
    path = run.folder / SETTINGS_FILE
    if code != MISTAKE and run.folder.is_dir() and not path.exists():
        write_bytes_atomically(path, f"{settings}\n".encode())
    if code == DONE and not run.is_finished:
        print("error: the run ended without results", file=sys.stderr)
        return PROBLEMS
    return code


class Child:
    """The process that runs at present, and the signal that has come for it; 0 for none."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.signal = 0

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command; return its exit code as a shell does."""
        if self.signal:
            return 128 + self.signal
        # Of Ctrl-C in a terminal only we take notice, and pass on one signal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.process = subprocess.Popen(command, env=dict(environment))
        finally:
            signal.signal(signal.SIGINT, before)
        code = self.process.wait()
        self.process = None
        return code if code >= 0 else 128 - code

    def stop(self, number: int, frame: Any) -> None:
        """End the process, as a handler of signals."""
        self.signal = self.signal or number
        if self.process is not None:
            self.process.terminate()


@contextmanager
def forwarded_signals() -> Iterator[Child]:
    """Pass SIGINT, SIGTERM and SIGHUP on to the child, as SIGTERM, while the block runs."""
    child = Child()
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, child.stop) for number in numbers}
    try:
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
