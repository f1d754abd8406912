"""Engine of a Slurm cluster, by submitit: jobs are elements of job arrays.

Slurm puts a job back into its queue when another one takes its place or its node fails; submitit
does before its time limit. A job that is lost all the same is submitted again. In each case its
command is started again, in the same folder, and so goes on from its last epoch.

Nothing that a job has written is unpickled here: states and exit codes are Slurm's.
"""

from __future__ import annotations

import getpass
import importlib.util
import io
import logging
import os
import shlex
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from dplq.errors import UserError
from dplq.experiments.engines.base import Ended, Job, thread_variables
from dplq.experiments.engines.slurm.queue import FORGOTTEN, JobState, cancel, job_states
from dplq.experiments.engines.slurm.settings import ARRAY, FOLDER, Settings
from dplq.experiments.engines.slurm.task import Task
from dplq.io.exit_code import DONE

PROGRAMS = ("sbatch", "srun", "squeue", "scancel")
SUBMISSIONS = 5  # of a job that is lost again and again
TIME_LIMITS = 20  # that submitit lets one job reach
POLL = 5.0  # seconds between two calls of squeue
RETRY = 30.0  # seconds until a refused array is submitted again
TICK = 0.5  # seconds
PATIENCE = 180.0  # seconds for cancelled jobs to end

logger = logging.getLogger(__name__)


def open_engine(settings: Settings) -> SlurmEngine:
    """Return an engine of the cluster whose commands are on PATH.

    Raises:
        UserError: submitit or Slurm is missing.
    """
    if importlib.util.find_spec("submitit") is None:
        raise UserError("The engine slurm needs submitit: pip install submitit")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        raise UserError(
            f"The engine slurm needs Slurm, and its {missing[0]} is not on PATH. Give the command "
            "on a machine from which jobs are submitted, or choose another --engine."
        )
    return SlurmEngine(settings)


def _user() -> str:
    """Return the name of this user; its number where it has none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # by the version of Python
        return f"uid{os.getuid()}"


class SlurmEngine:
    """A Slurm cluster.

    Args:
        settings: of the jobs.

    Attributes:
        slots: how many jobs may be submitted at a time.
        jobs: those that are, by Slurm's number.
    """

    def __init__(self, settings: Settings) -> None:
        self.slots = settings.parallel
        self._settings = settings
        self._waiting: list[Job] = []  # to be submitted
        self.jobs: dict[str, Job] = {}
        self._submissions: Counter[str] = Counter()  # of jobs, by name
        self._next_call = 0.0  # of squeue
        self._next_attempt = 0.0  # to submit
        self._size = ARRAY  # of the next array, at most
        self._stopped: list[Ended] = []
        self._told: set[str] = set()
        self._files = Path()  # folder of submitit's files

    def start(self, job: Job) -> None:
        """Put a job among those that the next call of `wait` submits, as one array."""
        if job.log is not None:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        self._waiting.append(job)

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Submit what was started; return the jobs that have ended since the last call.

        Args:
            seconds: how long to wait for the first of them; none may come.

        Raises:
            UserError: Slurm refuses jobs, and none is under way.
        """
        if self._stopped:
            stopped, self._stopped = self._stopped, []
            return stopped
        deadline = time.monotonic() + seconds
        while True:
            if self._waiting and time.monotonic() >= self._next_attempt:
                self._submit()
            ended = self._ended() if self.jobs and time.monotonic() >= self._next_call else []
            left = deadline - time.monotonic()
            if ended or left <= 0 or not (self.jobs or self._waiting):
                return ended
            time.sleep(min(left, TICK))

    def stop(self) -> None:
        """Cancel all jobs, and wait until they have ended."""
        self._waiting.clear()
        if not self.jobs:
            return
        try:
            cancel(self.jobs)
            deadline = time.monotonic() + PATIENCE
            while self.jobs and time.monotonic() < deadline:
                time.sleep(1)
                for number, state in job_states(self.jobs).items():
                    if state.is_over:
                        self._stopped.append(Ended(self.jobs.pop(number), state.code, state.reason))
        except OSError as error:
            logger.warning("Slurm: %s. Jobs may still be in its queue: see squeue", error)
        if self.jobs:
            logger.warning("Slurm is still ending %d jobs: see squeue", len(self.jobs))

    def close(self) -> None:
        """Nothing: the engine holds nothing of the cluster's."""

    def _submit(self) -> None:
        """Submit what waits, as one array; where Slurm takes no more, try again later.

        A limit on the jobs of a user or on the size of an array (MaxSubmitJobs, MaxArraySize) has
        Slurm refuse an array as a whole, so the next one is half as large.

        Raises:
            UserError: Slurm refuses a single job, and none is under way.
        """
        jobs = self._waiting[: self._size]
        refusal = self._submit_array(jobs)
        while refusal and len(jobs) > 1 and not self.jobs:
            jobs = jobs[: len(jobs) // 2]
            refusal = self._submit_array(jobs)
        if not refusal:
            self._size = min(ARRAY, 2 * len(jobs))
            return
        if not self.jobs:
            raise UserError(
                f"Slurm takes no jobs: {refusal}. The engine's options, such as partition, "
                "account, time, gpus and folder, are in docs/cluster.md."
            )
        self._size = max(1, len(jobs) // 2)
        self._next_attempt = time.monotonic() + RETRY
        self._warn(f"Slurm takes no more jobs at present: {refusal}")

    def _submit_array(self, jobs: Sequence[Job]) -> str:
        """Submit the first of the jobs that wait; return why Slurm refuses them, or ""."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            executor = submitit.SlurmExecutor(self._folder(jobs[0]), max_num_timeout=TIME_LIMITS)
            executor.update_parameters(**self._settings.parameters())
            with _outside_of_allocations(), redirect_stderr(io.StringIO()):
                submitted = executor.submit_array([self._task(job) for job in jobs])
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            return " ".join(str(error).replace("sbatch: error: ", "").split()) or repr(error)
        del self._waiting[: len(jobs)]
        self._submissions.update(job.name for job in jobs)
        self.jobs |= {new.job_id: job for new, job in zip(submitted, jobs, strict=True)}
        return ""

    def _ended(self) -> list[Ended]:
        """Return the jobs that have ended; one that is lost goes to those to be submitted."""
        self._next_call = time.monotonic() + POLL
        try:
            states = job_states(self.jobs)
        except OSError as error:
            self._warn(f"Slurm does not answer: {error}")
            return []
        ended = []
        for number, state in states.items():
            if state.waits_for:
                what = "It may ask for more than the partition gives"
                self._warn(f"Slurm's job {number} waits: {state.waits_for}. {what}.")
            if not state.is_over:
                continue
            job = self.jobs.pop(number)
            if self._goes_on(job, state):
                why = state.reason or "it was ended by SIGTERM"
                logger.warning("%s is submitted again: %s", job.name, why)
                self._waiting.append(job)
            else:
                ended.append(Ended(job, state.code, self._reason(number, job, state)))
                if state.code == DONE:
                    self._clear(number)
        return ended

    def _goes_on(self, job: Job, state: JobState) -> bool:
        wanted = self._settings.requeue or state.name == FORGOTTEN  # it may well have finished
        return wanted and state.is_lost and self._submissions[job.name] < SUBMISSIONS

    def _reason(self, number: str, job: Job, state: JobState) -> str:
        """Return why a job failed, where its own output does not tell."""
        if state.reason or not state.code or job.log is None or job.log.exists():
            return state.reason
        return f"it did not start: see {self._files / f'{number}_0_log.err'}"

    def _clear(self, number: str) -> None:
        """Delete submitit's files of a job: thousands of runs have thousands of them."""
        for name in ("submitted.pkl", "0_result.pkl", "0_log.out", "0_log.err"):
            (self._files / f"{number}_{name}").unlink(missing_ok=True)

    def _task(self, job: Job) -> Task:
        words = [*shlex.split(self._settings.container), *job.command]
        if self._settings.python:
            words[-len(job.command)] = self._settings.python
        cpus = self._settings.cpus  # a node may have more than are the job's
        threads = thread_variables(cpus) if cpus else {}
        return Task(
            tuple(words),
            threads | dict(job.environment),
            str(job.log.absolute()) if job.log else "",
            self._settings.requeue,
        )

    def _folder(self, job: Job) -> Path:
        """Return the folder of submitit's files, which nobody else may write: it has pickles.

        Raises:
            UserError: it was there, and somebody else may.
        """
        if self._files == Path():
            beside = job.log.parent if job.log else Path()
            folder = Path(self._settings.folder or beside / FOLDER)
            self._files = folder.absolute() / _user()
        self._files.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_ours_alone(self._files):
            raise UserError(
                f"{self._files} is of another user, or others may write there, and jobs run what "
                f"lies there. Give another folder, or make it yours alone: chmod 700 {self._files}"
            )
        return self._files

    def _warn(self, text: str) -> None:
        """Say something once."""
        if text not in self._told:
            self._told.add(text)
            logger.warning("%s", text)


def _is_ours_alone(folder: Path) -> bool:
    """Return whether a folder, not a link to one, is of this user, and nobody else may write it."""
    there = folder.lstat()
    return (
        stat.S_ISDIR(there.st_mode)
        and there.st_uid == os.geteuid()
        and not there.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


@contextmanager
def _outside_of_allocations() -> Iterator[None]:
    """Hide the variables of a job that this process is in: the new jobs would take them over."""
    from submitit.helpers import clean_env

    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or name.startswith("SBATCH_")  # the user's own
    }
    with clean_env():
        os.environ.update(kept)
        yield
