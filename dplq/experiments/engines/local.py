"""Engine `local`: processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dplq.errors import UserError
from dplq.experiments.engines.base import POLL, Ended, Engine, Job, thread_variables
from dplq.experiments.engines.gpus import VARIABLE, list_gpus
from dplq.experiments.engines.packing import Packing
from dplq.experiments.engines.parent import ending_with
from dplq.experiments.engines.preload import CAN_FORK, Forked, Server
from dplq.io.exit_code import DONE, PROBLEMS, shell_code

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """Options of the engine.

    Attributes:
        jobs: how many runs at once; None: one, or what `per_gpu` allows.
        per_gpu: how many of them on each GPU: a number, "auto" for as many as the memory measured
            in earlier runs allows, 0 for an even share of `jobs`.
        gpus: numbers or unique names, separated by commas; None: ``CUDA_VISIBLE_DEVICES``, else
            all.
        threads: CPU threads of a run; 0: the cores divided by the number of runs.
        preload: import PyTorch and the other libraries once, and fork the runs from that process
            (Linux); False: each run imports them.
    """

    jobs: Annotated[int, Meta(ge=1)] | None = None
    per_gpu: Annotated[int, Meta(ge=0)] | Literal["auto"] = 0
    gpus: str | int | None = None
    threads: Annotated[int, Meta(ge=0)] = 0
    preload: bool = True


class LocalEngine:
    """Processes of this machine.

    Of Ctrl-C in a terminal only this process takes notice, which passes one signal on: a process
    with a log is the leader of its own session, and one whose output goes to the terminal, where it
    can also be suspended, ignores SIGINT.

    Args:
        jobs: how many at once, at most; None: as many as `packing` says.
        threads: CPU threads of each; 0: the cores divided; None: as many as it takes by itself.
        packing: of the GPUs; None: each job sees them all.
        preload: fork the runs of this project from a process that has imported the libraries.
    """

    def __init__(
        self,
        jobs: int | None = 1,
        threads: int | None = None,
        packing: Packing | None = None,
        preload: bool = True,
    ) -> None:
        self._jobs = jobs
        self._threads = threads
        self._packing = packing
        self._preload = preload and CAN_FORK
        self._servers: list[Server] = []
        self._processes: dict[str, tuple[Job, subprocess.Popen[Any] | Forked]] = {}

    @property
    def slots(self) -> int:
        """Return how many jobs may be under way."""
        if self._packing is None:
            return self._jobs or 1
        places = self._packing.places
        return min(places, self._jobs or places)

    def start(self, job: Job) -> None:
        """Start a process."""
        threads, own = self._threads_of_job(), {**self._gpu(job), **job.environment}
        try:
            self._processes[job.name] = (job, self._begin(job, threads, own))
        except OSError as error:
            self._leave(job, well=False)
            where = error.filename or "its process"
            raise UserError(f"A run cannot be started: {where}: {error.strerror}.") from error

    def _begin(
        self, job: Job, threads: Mapping[str, str], own: Mapping[str, str]
    ) -> subprocess.Popen[Any] | Forked:
        """Fork a job, or start it anew where that is not possible."""
        if self._preload and job.train is not None:
            with contextlib.suppress(ConnectionError, UnicodeEncodeError):
                return self._server(threads).start(job, own)
        return _start(job, {**os.environ, **threads, **own})

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the jobs that have ended, once there is one or the time is over."""
        until = time.monotonic() + seconds
        while not (ended := self._ended()) and (left := until - time.monotonic()) > 0:
            if self._packing is not None:
                self._packing.measure()
            time.sleep(min(POLL, left))
        return ended

    def stop(self) -> None:
        """End all jobs with SIGTERM and wait for them; on a further signal kill them."""
        processes = [popen for _, popen in self._processes.values()]
        for popen in processes:
            popen.terminate()
        try:
            for popen in processes:
                popen.wait()
        except KeyboardInterrupt:
            for popen in processes:
                _kill(popen)

    def close(self) -> None:
        """End the processes that runs are forked from."""
        while self._servers:
            self._servers.pop().close()

    def _server(self, threads: Mapping[str, str]) -> Server:
        """Return a process whose libraries were imported with the variables of this one."""
        environment = {**os.environ, **threads}

        def fits(server: Server) -> bool:
            return server.is_alive and server.environment == environment

        for server in [each for each in self._servers if each.is_idle and not fits(each)]:
            self._servers.remove(server)
            server.close()
        if (fitting := next(filter(fits, self._servers), None)) is not None:
            return fitting
        self._servers.append(Server(environment))
        return self._servers[-1]

    def _ended(self) -> list[Ended]:
        ended = []
        for job, process in list(self._processes.values()):
            if process.poll() is None:
                continue
            if isinstance(process, Forked) and process.never_began and self._began_anew(process):
                continue
            del self._processes[job.name]
            ended.append(_end_of(job, process))
        for end in ended:
            self._leave(end.job, well=end.code == DONE)
        return ended

    def _began_anew(self, run: Forked) -> bool:
        """Start a run that could not be forked, and fork no more; return whether it began."""
        if self._preload:
            logger.warning("Runs import the libraries themselves from now on: %s.", run.reason)
        self._preload = False
        try:
            self._processes[run.job.name] = (run.job, _start(run.job, run.environment))
        except OSError as error:
            run.returncode, run.reason = PROBLEMS, f"it cannot be started: {error.strerror}"
            return False
        return True

    def _threads_of_job(self) -> dict[str, str]:
        """Return the variables that give a job its share of the cores."""
        if self._threads is None:
            return {}
        return thread_variables(self._threads or max(1, cores() // self.slots))

    def _gpu(self, job: Job) -> dict[str, str]:
        """Return the variable that gives a job its GPU."""
        return {} if self._packing is None else {VARIABLE: self._packing.place(job.name).name}

    def _leave(self, job: Job, *, well: bool) -> None:
        if self._packing is not None:
            self._packing.remove(job.name, well=well)


def _start(job: Job, environment: Mapping[str, str]) -> subprocess.Popen[Any]:
    start = partial(
        subprocess.Popen,
        job.command,
        env=environment,
        preexec_fn=ending_with(os.getpid()),
    )
    if job.log is not None:
        with job.log.open("ab") as output:
            return start(stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return start()
    finally:
        signal.signal(signal.SIGINT, before)


def _end_of(job: Job, process: subprocess.Popen[Any] | Forked) -> Ended:
    assert process.returncode is not None
    reason = process.reason if isinstance(process, Forked) else ""
    return Ended(job, shell_code(process.returncode), reason)


def _kill(popen: subprocess.Popen[Any] | Forked) -> None:
    """Kill a process with its children, and wait for it."""
    popen.kill()
    if isinstance(popen, Forked):
        return
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError):  # not the leader of a group, or all ended
            os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_engine(settings: Settings) -> Engine:
    """Return the engine.

    Raises:
        UserError: GPUs are to be shared, and there are none.
    """
    jobs, per_gpu = settings.jobs, settings.per_gpu
    wanted = None if settings.gpus is None else str(settings.gpus)
    shared = per_gpu != 0 or wanted is not None
    gpus = list_gpus(wanted) if shared or (jobs or 1) > 1 else []
    if shared and not gpus:
        raise UserError(
            f"per_gpu is {per_gpu}, but nvidia-smi finds no GPU that may be used: give the number "
            "of runs at once, --jobs."
        )
    if not gpus:
        return LocalEngine(jobs, settings.threads, preload=settings.preload)
    even = -(-(jobs or len(gpus)) // len(gpus))
    if per_gpu == "auto":  # memory is not the only limit: a run keeps a core busy, too
        packing = Packing(gpus, None)
        most = jobs or max(cores(), len(gpus))
        return LocalEngine(most, settings.threads, packing, settings.preload)
    packing = Packing(gpus, per_gpu or even)
    return LocalEngine(jobs, settings.threads, packing, settings.preload)
