"""Carrying out a plan: which run starts when, and what becomes of it.

A run starts once its model is trained and the engine has a place. One whose folder another process
holds is that one's: the plan goes on without it, and takes it up at the end if it was left.
"""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from dplq.errors import UserError
from dplq.experiments.engines.base import JOB_VARIABLE, Ended, Engine, Job
from dplq.experiments.engines.local import LocalEngine
from dplq.experiments.failure import reason
from dplq.experiments.plan import Plan, RecordedSettings, Run, is_own_python
from dplq.experiments.progress import Lines, Progress
from dplq.experiments.recorded import has_results
from dplq.experiments.schedule import Item, Schedule, Stage
from dplq.experiments.signals import Signals, caught_signals, say_stopped
from dplq.experiments.state import Found, State, scan, state_of
from dplq.io.atomic import write_bytes_atomically
from dplq.io.exit_code import DONE, MISTAKE, PROBLEMS
from dplq.io.runs.files import RESULTS_FILE, RUN_FILE, SETTINGS_FILE
from dplq.io.runs.lock import IN_USE, OWNER_FILE, forget_job

SETTINGS_VARIABLE = "DPLQ_SETTINGS"  # has `dplq train` write settings.txt
LOGS_FOLDER = "run_logs"  # beside the runs' folders, which exist only once a run has begun
TICK = 0.5  # seconds: how late a signal is noticed at most
MOST_REFUSALS = 3  # of one run, each by a process that was faster
POLL = 2.0  # seconds between two looks at what other processes hold


def execute(
    plan: Plan, engine: Engine | None = None, *, live: bool = False, logs: Path | None = None
) -> int:
    """Carry out a plan; a finished run is not repeated.

    Args:
        plan: the runs.
        engine: where they run; it is closed. None: here, one after the other, with their output on
            the terminal.
        live: show a table of the runs while they run, where stdout is a terminal.
        logs: folder of one log a run, for an engine; None: a folder beside those of the runs.

    Returns:
        0, the code of the run that failed first, or 128 and the number of the signal that came.

    Raises:
        UserError: the folders of all runs that remain hold runs with other settings; or no run can
            be started any more (no room to write, an engine that refuses): those under way have
            ended.
    """
    place = LocalEngine() if engine is None else engine
    if engine is not None and logs is None and plan.runs:
        logs = Path(os.path.commonpath([run.folder.parent for run in plan.runs])) / LOGS_FOLDER
    progress = live_table() if live and sys.stdout.isatty() else Lines(brief=engine is not None)
    try:
        with caught_signals() as signals:
            return Execution(plan, place, signals, logs if engine else None, progress).run()
    finally:
        place.close()


def live_table() -> Progress:
    """Return the table that is shown while runs go on."""
    from dplq.experiments.live import LiveTable

    return LiveTable()


class Execution:
    """A plan that is being carried out.

    Args:
        plan: the runs.
        engine: where they run.
        signals: that have come.
        logs: folder of one log a run; None: the output goes to the terminal.
        progress: what the user sees.
    """

    def __init__(
        self, plan: Plan, engine: Engine, signals: Signals, logs: Path | None, progress: Progress
    ) -> None:
        self.schedule = Schedule(plan.runs)
        self.engine = engine
        self.signals = signals
        self.logs = logs
        self.progress = progress
        self._token = uuid.uuid4().hex[:10]
        self._jobs: dict[str, _Started] = {}
        self._elsewhere: list[Item] = []
        self._looked = 0.0
        self._code = DONE
        self._refusal: UserError | None = None  # nothing more is started

    def run(self) -> int:
        """Carry the plan out; return the exit code."""
        try:
            self.begin()
            with self.progress.shown(self.schedule.items):
                while self._step():
                    self.progress.refresh()
        finally:
            if self._jobs:  # a signal, or an error of ours
                self._stop()
        if self.signals.number:
            say_stopped()
            return 128 + self.signals.number
        self.progress.end()
        if self._refusal is not None:
            raise self._refusal
        return self._code

    def begin(self) -> None:
        """Note what is finished and what is refused, before anything is started.

        Raises:
            UserError: nothing can be started, because other runs lie in the folders.
        """
        items, refused, recorded = self.schedule.items, [], RecordedSettings()
        for item, found in zip(items, scan(item.run for item in items), strict=True):
            item.recheck = found.state is State.CHANGED
            model = self.schedule.model(item)
            if item.stage is not Stage.WAITING or (model and model.stage is not Stage.FINISHED):
                continue  # what is tested, and so the settings, are not known yet
            try:
                item.run.check_folder(recorded)
            except UserError as error:
                self.schedule.fail(item, MISTAKE, str(error))
                refused.append(item)
                continue
            if found.state is State.FINISHED:
                self.schedule.finish(item)
                self.progress.finished_before(item)
        if refused and not self.schedule.at(Stage.WAITING):
            more = f" ({len(refused) - 1:,} more likewise.)" if refused[1:] else ""
            raise UserError(refused[0].reason + more)
        for item in refused:
            self._note_failure(item)

    def _step(self) -> bool:
        """Start what can be started, and wait for an end; return whether there is more to do."""
        if self.progress.closed and (
            self._jobs or self._elsewhere or self.schedule.at(Stage.WAITING)
        ):
            self.signals.note_closed()
        if self.signals.number:
            return False
        while self._refusal is None and len(self._jobs) < self.engine.slots:
            if (item := self.schedule.next()) is None:
                break
            try:
                self._start(item)
            except UserError as error:
                self.schedule.put_back(item)
                self._refusal = error
        if self._jobs:
            for ended in self.engine.wait(TICK):
                self._end(ended)
        elif self._elsewhere and self._refusal is None:
            self.progress.waits(self._elsewhere)
            time.sleep(TICK)
        else:
            return False
        self._check_elsewhere()
        return True

    def _start(self, item: Item) -> None:
        """Start a run, unless its results are there by now or another process makes them.

        Raises:
            UserError: no run can be started at present.
        """
        run, found = item.run, state_of(item.run.folder)
        if found.state is State.HELD:
            item.stage = Stage.ELSEWHERE
            _note_holder(item, found)
            self._elsewhere.append(item)
            self.progress.elsewhere(item)
            return
        try:
            settings = self._checked(run)
        except UserError as error:
            self._fail(item, MISTAKE, str(error))
            return
        if found.state is State.FINISHED and not item.recheck:
            self.schedule.finish(item)
            self.progress.finished_before(item)
            return
        make_folder(run.folder)
        record = not (run.folder / RUN_FILE).exists() and not run.holds_work
        item.log = self._log(run)
        item.log_size = item.log.stat().st_size if item.log and item.log.exists() else 0
        job = Job(
            f"{job_title(run)}-{self._token}{item.index:05d}",
            run.command,
            {SETTINGS_VARIABLE: settings},
            item.log,
            run.words if is_own_python() else None,
        )
        job = replace(job, environment={**job.environment, JOB_VARIABLE: job.name})
        item.stage, item.since = Stage.RUNNING, time.monotonic()
        self.progress.started(item)
        self.engine.start(job)
        self._jobs[job.name] = _Started(item, settings, record)

    def _checked(self, run: Run) -> str:
        """Return the settings of a run whose folder can take it.

        Raises:
            UserError: it cannot, or the model is not there.
        """
        if run.model is not None and not has_results(run.model):
            text = f"{run.model} holds no finished run (a whole {RESULTS_FILE})"
            raise UserError(f"{text}: train its model first.")
        run.check_folder()
        return run.settings()

    def _end(self, ended: Ended) -> None:
        """Take notice of what became of a run."""
        started = self._jobs.pop(ended.job.name)
        item, code = started.item, ended.code
        self._record(ended, started)
        if self.signals.number:
            return
        if code == DONE and item.run.is_finished:
            self.schedule.finish(item)
            self.progress.finished(item)
            return
        said = reason(code, item.log, item.log_size)
        if code == MISTAKE and self._was_taken(item, said):
            self.schedule.put_back(item)
            return
        if code == DONE:
            code, said = PROBLEMS, f"the run ended without a whole {RESULTS_FILE}"
        self._fail(item, code, "; ".join(filter(None, [said, ended.reason])))

    def _was_taken(self, item: Item, said: str) -> bool:
        """Return whether another process was faster to take a run's folder.

        Args:
            item: the run, which was refused.
            said: its message.
        """
        item.refused += 1
        found = state_of(item.run.folder).state
        taken = found is State.HELD or (found is State.FINISHED and not item.recheck)
        return (taken or IN_USE in said) and item.refused <= MOST_REFUSALS

    def _fail(self, item: Item, code: int, why: str) -> None:
        self.schedule.fail(item, code, why)
        self._note_failure(item)

    def _note_failure(self, item: Item) -> None:
        self._code = self._code or item.code
        self.progress.failed(item)

    def _check_elsewhere(self) -> None:
        """See what became of the runs that other processes held."""
        if time.monotonic() - self._looked < POLL:
            return
        self._looked = time.monotonic()
        for item in list(self._elsewhere):
            found = state_of(item.run.folder)
            if found.state is State.HELD:
                _note_holder(item, found)
            else:  # finished, or left to us
                self._elsewhere.remove(item)
                self.schedule.put_back(item)

    def _stop(self) -> None:
        """End the runs that are under way; they go on from their last epoch another time."""
        self.signals.stopping = True
        try:
            try:
                self.progress.stops(len(self._jobs))
            finally:  # whatever became of the terminal
                self.engine.stop()
            for ended in self.engine.wait(0):
                if ended.job.name in self._jobs:
                    self._record(ended, self._jobs.pop(ended.job.name))
        except KeyboardInterrupt:  # a second signal
            pass
        finally:
            self.signals.stopping = False

    def _record(self, ended: Ended, started: _Started) -> None:
        forget_job(started.item.run.folder, ended.job.name)
        try:
            started.record_settings(ended.code)
        except UserError as error:  # a full disk: what runs may still save what it has
            self._refusal = self._refusal or error

    def _log(self, run: Run) -> Path | None:
        """Return the log of a run, in folders like those of the runs; its folder is made."""
        if self.logs is None:
            return None
        above = self.logs.parent
        place = run.folder.relative_to(above) if above in run.folder.parents else run.folder.name
        log = self.logs / f"{place}.txt"
        make_folder(log.parent)
        return log


@dataclass(frozen=True)
class _Started:
    """A run whose job is under way.

    Attributes:
        item: the run.
        settings: its settings.
        record: whether there were none, or those of a run that failed early.
    """

    item: Item
    settings: str
    record: bool

    def record_settings(self, code: int) -> None:
        """Write ``settings.txt`` for a process that did not.

        Ours writes it with ``run.json``, while it holds the lock; after code 2 it wrote nothing,
        and the folder may be that of another process by now.
        """
        folder = self.item.run.folder
        path = folder / SETTINGS_FILE
        if code == MISTAKE or not (self.record or not path.exists()):
            return
        if folder.is_dir() and not (folder / RUN_FILE).exists():
            write_bytes_atomically(path, f"{self.settings}\n".encode())


def _note_holder(item: Item, found: Found) -> None:
    """Note which process holds the folder of a run, and the file that says so."""
    if found.holder is not None:
        item.reason = str(found.holder)
        item.note = None if found.holder.is_here else item.run.folder / OWNER_FILE


def make_folder(folder: Path) -> None:
    """Make a folder that can be written to.

    Raises:
        UserError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fault = "" if os.access(folder, os.W_OK) else "no permission to write"
    except OSError as error:
        fault = error.strerror or str(error)
    if fault:
        raise UserError(
            f"{folder} cannot be written to ({fault}). Free some space there, or give another "
            "folder for the results (--out), and start again: finished runs are kept."
        )


def job_title(run: Run) -> str:
    """Return the beginning of a job's name, such as ``CoOp-demo_aerial-base-seed1``."""
    words = (run.trainer, run.dataset, run.classes, f"seed{run.seed}")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(words))[:100]
