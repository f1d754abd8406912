"""Engine `local`: processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from dplq.errors import UserError
from dplq.experiments.engines.base import Ended, Engine, Job

POLL = 0.02  # seconds between two looks at the processes
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Options of the engine.

    Attributes:
        jobs: how many runs at once.
        threads: CPU threads of a run; 0: the cores divided by the number of runs.
    """

    jobs: Annotated[int, Meta(ge=1)] = 1
    threads: Annotated[int, Meta(ge=0)] = 0


@dataclass
class Process:
    """A job that is under way."""

    job: Job
    popen: subprocess.Popen[bytes]


class LocalEngine:
    """Processes of this machine, each the leader of its own session.

    Ctrl-C in a terminal therefore reaches this process alone, which passes one signal on.

    Args:
        slots: how many at once.
        threads: CPU threads of each; 0: as many as it takes by itself.
    """

    def __init__(self, slots: int = 1, threads: int = 0) -> None:
        self.slots = slots
        self._threads = {name: str(threads) for name in THREADS if threads}
        self._processes: list[Process] = []

    def start(self, job: Job) -> None:
        """Start a process."""
        threads = {name: text for name, text in self._threads.items() if name not in os.environ}
        environment = {**os.environ, **threads, **job.environment}
        with contextlib.ExitStack() as stack:
            output = None if job.log is None else stack.enter_context(job.log.open("ab"))
            try:
                popen = subprocess.Popen(
                    job.command,
                    env=environment,
                    stdout=output,
                    stderr=None if output is None else subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise UserError(f"{job.command[0]} cannot be started: {error.strerror}.") from error
        self._processes.append(Process(job, popen))

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the jobs that have ended, once there is one or the time is over."""
        until = time.monotonic() + seconds
        while not (ended := self._ended()) and (left := until - time.monotonic()) > 0:
            time.sleep(min(POLL, left))
        return ended

    def stop(self) -> None:
        """End all jobs with SIGTERM and wait for them; on a second signal kill them."""
        for process in self._processes:
            process.popen.terminate()
        try:
            for process in self._processes:
                process.popen.wait()
        except KeyboardInterrupt:
            self._kill()

    def close(self) -> None:
        """Do nothing: the engine holds nothing."""

    def _ended(self) -> list[Ended]:
        ended = [process for process in self._processes if process.popen.poll() is not None]
        for process in ended:
            self._processes.remove(process)
        return [Ended(process.job, shell_code(process.popen.returncode)) for process in ended]

    def _kill(self) -> None:
        """Kill the processes with their children."""
        for process in self._processes:
            if sys.platform == "win32":
                process.popen.kill()
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
        for process in self._processes:
            process.popen.wait()


def shell_code(code: int) -> int:
    """Return the exit code of a process as a shell gives it."""
    return code if code >= 0 else 128 - code


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_engine(settings: Settings) -> Engine:
    """Return the engine."""
    threads = settings.threads or max(1, cores() // settings.jobs)
    return LocalEngine(settings.jobs, threads)
