"""What an engine is: a place where the runs of a plan are carried out.

An engine knows processes, not experiments: which job is ready, what its settings are and whether it
has results is the matter of `dplq.experiments.execute`. A job whose process is lost with its
machine is started again by the engine itself, elsewhere; the run goes on from its last epoch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dplq.io.runs.lock import JOB_VARIABLE

__all__ = ["JOB_VARIABLE", "POLL", "THREADS", "Ended", "Engine", "Job", "thread_variables"]

POLL = 0.02  # seconds between two looks at processes
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # how many CPU threads PyTorch takes


def thread_variables(number: int) -> dict[str, str]:
    """Return the variables that give a process its CPU threads; none where the user sets one.

    The second one falls back to the first, so a user who sets either has set both.
    """
    return (
        {} if any(name in os.environ for name in THREADS) else dict.fromkeys(THREADS, str(number))
    )


@dataclass(frozen=True)
class Job:
    """A process to be run.

    Attributes:
        name: of the job, unique among all jobs of all users; a valid file name.
        command: the program and its arguments, for any current directory.
        environment: variables that it has besides those of this process.
        log: file that its output is appended to; None: the output of this process.
        train: the arguments, where the command is ``dplq train`` with this Python: an engine need
            not start that anew. None: another command.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    train: Sequence[str] | None = None


@dataclass(frozen=True)
class Ended:
    """A job that has ended.

    Attributes:
        job: it.
        code: its exit code as a shell gives it: 128 and the number of a signal that ended it.
        reason: what the engine knows of a failure that the job's output does not tell.
    """

    job: Job
    code: int
    reason: str = ""


class Engine(Protocol):
    """A place to run on."""

    @property
    def slots(self) -> int:
        """Return how many jobs may be under way, waiting ones included; it may change."""

    def start(self, job: Job) -> None:
        """Start a job, or put it in the engine's queue; return at once.

        Raises:
            UserError: the engine refuses it.
        """

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the jobs that have ended since the last call.

        Args:
            seconds: how long to wait for the first of them; none may come.
        """

    def stop(self) -> None:
        """End all jobs with SIGTERM, and wait until they have ended; `wait` returns them.

        A further signal raises KeyboardInterrupt here: the jobs are to be killed at once.
        """

    def close(self) -> None:
        """Give back what the engine holds; no job is under way. A second call does nothing."""
