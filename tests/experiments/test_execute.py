"""Carrying out a plan: the order of its runs, failures, and runs that others make."""

from __future__ import annotations

import errno
import logging
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dplq.errors import UserError
from dplq.experiments.base2new import base2new
from dplq.experiments.carry_out import carry_out
from dplq.experiments.engines import Ended, open_engine
from dplq.experiments.execute import execute
from dplq.experiments.plan import Plan, TableRequest
from dplq.experiments.series import Series
from dplq.experiments.state import State, state_of
from dplq.io.process import is_alive
from dplq.io.runs.folder import Identity, RunRecord
from dplq.io.runs.lock import Owner, RunLock
from tests.experiments.stand_in import stand_in  # noqa: F401  (a fixture)
from tests.runner import PROJECT


def plan(tmp_path, seeds=(1, 2), trainer="CoOp", **changes):
    return base2new(
        Series("demo_aerial", trainer, "demo", seeds=seeds, out=tmp_path / "out", **changes)
    )


class Recorder:
    """An engine whose jobs are done as soon as they are waited for, the last one first."""

    def __init__(self, slots, codes=None):
        self.slots, self.codes = slots, codes or {}
        self.under_way, self.started, self.most, self.closed = [], [], 0, 0

    def start(self, job):
        self.started.append(job)
        self.under_way.append(job)
        self.most = max(self.most, len(self.under_way))

    def wait(self, seconds):
        job = self.under_way.pop()
        words = list(job.command)
        out = words[words.index("--output-dir") + 1]
        code = self.codes.get(out.split("base2new/")[1].split("/")[0] + out[-1], 0)
        if code == 0:
            with open(f"{out}/results.json", "w") as file:
                file.write("{}")
        return [Ended(job, code, "the node went away" if code == 99 else "")]

    def stop(self):
        raise AssertionError("nothing is stopped here")

    def close(self):
        self.closed += 1


def places(jobs):
    """Return kind and seed of each job: ``train_base1``."""
    outs = [job.command[list(job.command).index("--output-dir") + 1] for job in jobs]
    return [out.split("base2new/")[1].split("/")[0] + out[-1] for out in outs]


def test_a_test_waits_for_its_model_and_slots_are_used(tmp_path):
    engine = Recorder(2)
    assert execute(plan(tmp_path, seeds=(1, 2, 3)), engine) == 0
    assert places(engine.started) == [
        *("train_base1", "train_base2", "test_new2", "train_base3", "test_new3", "test_new1")
    ]
    assert (engine.most, engine.closed) == (2, 1)
    names = [job.name for job in engine.started]
    assert len(set(names)) == 6
    assert names[0].startswith("CoOp-demo_aerial-base-seed1-")
    assert [job.environment["DPLQ_JOB"] for job in engine.started] == names
    assert engine.started[0].environment["DPLQ_SETTINGS"].startswith("dataset demo_aerial (file ")


@pytest.mark.parametrize("codes", [{}, {"train_base1": 2}], ids=["same", "refused"])
def test_runs_whose_label_file_has_changed_find_out_themselves(tmp_path, capsys, codes):
    """A run that is refused is not taken for one that another process has finished."""
    runs = plan(tmp_path, seeds=(1,)).runs
    made = Plan([replace(run, data=tmp_path / "data") for run in runs])
    assert execute(made, Recorder(1)) == 0
    for run in made.runs:
        identity = Identity("train", "CoOp", "d", "all", 16, 1, {}, labels={"labels.csv": "0" * 32})
        content = msgspec.json.encode(RunRecord(1, identity))
        (run.folder / "run.json").write_bytes(content)
        (run.folder / "settings.txt").write_text(run.settings())
    again = Recorder(1, codes)
    assert execute(made, again) == codes.get("train_base1", 0)
    assert places(again.started) == ["train_base1", *([] if codes else ["test_new1"])]
    assert ("failed (exit code 2)" in capsys.readouterr().err) == bool(codes)


def test_a_failure_stops_only_what_needs_it(tmp_path, capsys):
    engine = Recorder(1, {"train_base1": 99, "test_new3": 5})
    assert execute(plan(tmp_path, seeds=(1, 2, 3)), engine) == 99
    assert len(engine.started) == 5
    err = capsys.readouterr().err
    assert "failed (exit code 99): train on the base classes of demo_aerial, seed 1" in err
    assert ": the node went away. Its log: " in err
    assert "error: 2 of 6 runs failed, 1 skipped:\n" in err
    assert "  skipped: test on the new classes of demo_aerial, seed 1 (its model failed: " in err
    again = Recorder(1)
    assert execute(plan(tmp_path, seeds=(1, 2, 3)), again) == 0
    assert places(again.started) == ["train_base1", "test_new1", "test_new3"]


def test_an_engine_that_refuses_ends_the_plan_with_its_message(tmp_path):
    class Full(Recorder):
        def start(self, job):
            if self.started:
                raise UserError("the queue is closed")
            super().start(job)

    engine = Full(4)
    with pytest.raises(UserError, match="the queue is closed"):
        execute(plan(tmp_path), engine)
    assert places(engine.started) == ["train_base1"]
    assert plan(tmp_path).runs[0].is_finished, "what was under way is waited for"
    assert engine.closed == 1


def test_two_at_once_with_a_log_each(tmp_path, stand_in, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setenv("TOGETHER", "3")
    monkeypatch.setenv("FAIL", "train 2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    engine = open_engine("local", {"jobs": "3", "threads": "1"})
    assert execute(plan(tmp_path, seeds=(1, 2, 3)), engine, logs=tmp_path / "out/run_logs") == 7
    begun, ended = stand_in.notes(), stand_in.notes("end")
    assert max(note["time"] for note in begun[:3]) < min(note["time"] for note in ended)
    assert {note["threads"] for note in begun} == {"1"}
    place = "base2new/train_base/demo_aerial/shots_16/CoOp/demo"
    logs = tmp_path / "out/run_logs" / place
    assert (logs / "seed1.txt").read_text() == "working on train 1\n"
    out, err = capfd.readouterr()
    assert f"seed 2: ValueError: no luck. Its log: {logs}/seed2.txt\n" in err
    assert "working on" not in out
    assert f"{tmp_path}/out/{place}/seed1 [" in out


def test_threads_that_the_user_sets_stay(tmp_path, stand_in, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert execute(plan(tmp_path, seeds=[1]), open_engine("local", {"jobs": 2})) == 0
    assert [note["threads"] for note in stand_in.notes()] == ["3", "3"]


def test_no_results_is_a_failure(tmp_path, stand_in, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("FAIL", "silent")
    assert execute(plan(tmp_path, seeds=[1])) == 1
    assert "(exit code 1): train on the base" in (err := capsys.readouterr().err)
    assert "ended without a whole results.json" in err


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, stand_in):  # noqa: F811
    (tmp_path / "out").touch()
    with pytest.raises(
        UserError, match=r"out/base2new/.* cannot be written to \(Not a directory\)"
    ):
        execute(plan(tmp_path))
    assert stand_in.names() == []


def test_what_runs_goes_on_where_nothing_more_can_be_written(tmp_path, stand_in, monkeypatch):  # noqa: F811
    """As on a full disk: the settings of the first to end cannot be recorded."""
    monkeypatch.setenv("TAKES", "0.3")

    def full(path, data):
        raise UserError("Cannot write: No space left on device")

    monkeypatch.setattr("dplq.experiments.execute.write_bytes_atomically", full)
    with pytest.raises(UserError, match="No space left"):
        execute(plan(tmp_path, seeds=(1, 2, 3, 4)), open_engine("local", {"jobs": 2}))
    assert len(stand_in.notes()) == len(stand_in.notes("end")) == 2, "nothing is stopped or begun"


def test_a_run_of_another_process_is_waited_for(tmp_path, stand_in, capsys):  # noqa: F811
    """What it leaves unfinished is run here."""
    first = plan(tmp_path).runs[0].folder
    first.mkdir(parents=True)
    lock = RunLock(first)
    lock.acquire()
    timer = threading.Timer(1.0, lock.release)
    timer.start()
    assert execute(plan(tmp_path)) == 0
    timer.join()
    assert stand_in.names() == ["train 2", "test 2", "train 1", "test 1"]
    out = capsys.readouterr().out
    assert f"running elsewhere (process {os.getpid()} on " in out
    assert "waiting for 1 run(s) of other processes" in out


TWO = """
import sys
from pathlib import Path
from dplq.experiments.base2new import base2new
from dplq.experiments.plan import Plan
from dplq.experiments.series import Series
from dplq.experiments.engines import open_engine
from dplq.experiments.execute import execute
out = Path(sys.argv[1])
plan = base2new(Series("demo_aerial", "CoOp", "demo", seeds=range(1, 4), out=out))
sys.exit(execute(plan, open_engine("local", {"jobs": 2})))
"""


def test_two_people_on_one_sweep_run_nothing_twice(tmp_path, stand_in):  # noqa: F811
    env = {**os.environ, "LOCK": "yes", "TAKES": "0.3", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", TWO, str(tmp_path / "out")]
    both = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    texts = [process.communicate(timeout=60)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    done = [note["out"] for note in stand_in.notes("end")]
    assert len(done) == 6
    assert len(set(done)) == 6, "nothing is run twice"
    pids = {text.count("finished (") for text in texts}
    assert 0 not in pids, "both did some of it"
    assert "running elsewhere (process " in "".join(texts)


class Killed(Recorder):
    """An engine whose jobs are killed on other machines, when they end or when they are stopped."""

    def start(self, job):
        super().start(job)
        out = Path(job.command[list(job.command).index("--output-dir") + 1])
        owner = Owner(12, "node7", job=job.environment["DPLQ_JOB"])
        (out / ".owner.json").write_bytes(msgspec.json.encode(owner))

    def wait(self, seconds):
        ended, self.under_way = [Ended(job, 137) for job in self.under_way], []
        return ended


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_that_was_killed_elsewhere_is_not_in_use(tmp_path, stopped):
    """The machine of the next command could not tell that it has ended."""

    class Engine(Killed):
        def start(self, job):
            super().start(job)
            if stopped:
                os.kill(os.getpid(), signal.SIGTERM)

        def stop(self):
            assert stopped

    engine = Engine(1)
    assert execute(plan(tmp_path, seeds=[1]), engine) == (143 if stopped else 137)
    assert len(engine.started) == 1
    assert state_of(plan(tmp_path).runs[0].folder).state is not State.HELD


def test_the_file_of_a_run_on_another_machine_is_named(tmp_path, capsys):
    first = plan(tmp_path, seeds=[1]).runs[0].folder
    first.mkdir(parents=True)
    note = first / ".owner.json"
    note.write_bytes(msgspec.json.encode(Owner(12, "node7")))
    timer = threading.Timer(1.0, note.unlink)
    timer.start()
    assert execute(plan(tmp_path, seeds=[1]), Recorder(1)) == 0
    timer.join()
    out = capsys.readouterr().out
    assert "waiting for 1 run(s) of other processes (process 12 on node7)" in out
    assert f"\nIf one of them does not run any more, delete its file: {note}\n" in out


CLOSED = """
import sys
from pathlib import Path
from dplq.experiments.base2new import base2new
from dplq.experiments.plan import Plan
from dplq.experiments.series import Series
from dplq.experiments.carry_out import carry_out
from dplq.experiments.engines import open_engine
from dplq.io.exit_code import exit_code
out, live = Path(sys.argv[1]), sys.argv[2] == "live"
plan = base2new(Series("demo_aerial", "CoOp", "demo", seeds=range(1, 9), out=out))
sys.exit(exit_code(lambda: carry_out(plan, lambda: open_engine("local", {"jobs": 2}), live=live)))
"""


def closing(tmp_path, **changes):
    """Start a plan whose runs take their time; the second word is whether it shows a table."""
    words = [sys.executable, "-c", CLOSED, str(tmp_path / "out")]
    words.append("live" if "stdin" in changes else "lines")
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm"}
    return subprocess.Popen(words, env=env, **changes)


def wait_for_runs(stand_in, number=2):  # noqa: F811
    until = time.monotonic() + 20
    while len(stand_in.notes()) < number:
        assert time.monotonic() < until
        time.sleep(0.05)
    return [note["pid"] for note in stand_in.notes()]


def test_an_output_that_closes_stops_the_runs_and_is_a_failure(tmp_path, stand_in, monkeypatch):  # noqa: F811
    """As `dplq run ... | head`."""
    monkeypatch.setenv("TAKES", "0.3")
    process = closing(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=20) == 128 + signal.SIGPIPE
    assert err.endswith("stopped; to go on, give the same command again\n")
    assert "Traceback" not in err
    assert len(stand_in.notes()) < 16, "the others were not started"


@pytest.mark.skipif(sys.platform != "linux", reason="a closed terminal answers with EIO")
@pytest.mark.parametrize("live", [False, True])
def test_a_terminal_that_closes_stops_the_runs(tmp_path, stand_in, monkeypatch, live):  # noqa: F811
    monkeypatch.setenv("FAIL", "slow")
    terminal, theirs = pty.openpty()
    places = dict.fromkeys(("stdout", "stderr", *["stdin"] * live), theirs)
    process = closing(tmp_path, **places)
    os.close(theirs)
    pids = wait_for_runs(stand_in)
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=20) == 129
    assert not any(map(is_alive, pids))


def test_messages_that_fail_do_not_keep_the_engine_from_stopping(tmp_path, monkeypatch):
    class Stopped(Recorder):
        stopped = False

        def wait(self, seconds):
            os.kill(os.getpid(), signal.SIGTERM)
            return []

        def stop(self):
            self.stopped = True
            self.wait = lambda seconds: []

    def full(self, number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dplq.experiments.progress.Lines.stops", full)
    engine = Stopped(1)
    with pytest.raises(OSError, match="No space left"):
        execute(plan(tmp_path), engine)
    assert engine.stopped


IGNORED = """
import os, signal, sys
from dplq.experiments.signals import caught_signals, run_until_stopped
number = int(sys.argv[1])
def command():
    os.kill(os.getpid(), number)
    with caught_signals() as signals, caught_signals() as same:
        assert signals is same
        os.kill(os.getpid(), number)
        return signals.number
sys.exit(run_until_stopped(command))
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_so(number):
    """As by nohup, or in the background of a script."""
    done = subprocess.run(
        [sys.executable, "-c", IGNORED, str(int(number))],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert done.returncode == 0


def test_a_run_whose_folder_was_in_use_is_tried_again(tmp_path):
    """The other process has ended by now, without results."""

    class Refused(Recorder):
        def wait(self, seconds):
            if len(self.started) > 1:
                return super().wait(seconds)
            job = self.under_way.pop()
            out = Path(job.command[list(job.command).index("--output-dir") + 1])
            lock = RunLock(out)
            lock.acquire()
            with job.log.open("w") as log:
                env = {**os.environ, "PYTHONPATH": str(PROJECT)}
                subprocess.run([sys.executable, "-c", TAKE, str(out)], env=env, stdout=log)
            lock.release()
            return [Ended(job, 2)]

    engine = Refused(1)
    assert execute(plan(tmp_path, seeds=[1]), engine) == 0
    assert places(engine.started) == ["train_base1", "train_base1", "test_new1"]


TAKE = """
import sys
from pathlib import Path
from dplq.errors import UserError
from dplq.io.runs.lock import RunLock
try:
    RunLock(Path(sys.argv[1])).acquire()
except UserError as error:
    print(f"error: {error}")
"""


def test_what_an_engine_decides_is_shown(tmp_path, caplog):
    class Talking(Recorder):
        def start(self, job):
            super().start(job)
            logging.getLogger("dplq.experiments.engines.packing").info("2 run(s) at once")

    assert carry_out(plan(tmp_path, seeds=[1]), lambda: Talking(1)) == 0
    assert "2 run(s) at once" in caplog.messages


def test_no_table_is_missed_where_every_run_failed(tmp_path, capsys):
    """The reason is on the terminal; with results of earlier runs the table comes after it."""

    one = plan(tmp_path, seeds=[1])
    planned = replace(one, tables=[TableRequest("", [tmp_path])])
    assert carry_out(planned, lambda: Recorder(1, {"train_base1": 1})) == 1
    first = capsys.readouterr().err
    assert "failed (exit code 1): train on the base" in first
    assert "no finished run" not in first
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/results.json").write_text("{}")
    assert carry_out(planned, lambda: Recorder(1, {"train_base1": 1})) == 1
    assert "no finished run" in capsys.readouterr().err
