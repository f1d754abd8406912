"""State of runs on disk, how far they are, and why they failed."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace

import pytest

from dplq.experiments.failure import reason
from dplq.experiments.plan import Run
from dplq.experiments.state import State, scan, state_of
from dplq.experiments.watch import how_far
from dplq.io.files import bytes_digest
from dplq.io.runs.files import PREVIOUS_RESUME_FILE as PREVIOUS
from dplq.io.runs.files import RESUME_FILE
from dplq.io.runs.folder import Identity, hold, release_all
from dplq.io.runs.lock import LOCK_FILE, OWNER_FILE, RunLock


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "seed1"
    path.mkdir()
    return path


def note(folder, pid=None, host=None):
    owner = {"pid": pid or os.getpid(), "host": host or socket.gethostname()}
    (folder / OWNER_FILE).write_text(json.dumps(owner))


def test_what_lies_in_a_folder_tells_the_state(folder):
    assert state_of(folder.parent / "seed2").state is State.ABSENT
    assert state_of(folder).state is State.ABSENT, "an empty folder"
    (folder / "log.txt").write_text("begun\n")
    assert state_of(folder).state is State.BROKEN
    (folder / "results.json").touch()
    assert state_of(folder).state is State.BROKEN, "the results are empty"
    (folder / "prompt_learner").mkdir()
    assert state_of(folder).state is State.BROKEN
    (folder / "prompt_learner" / RESUME_FILE).touch()
    assert state_of(folder).state is State.UNFINISHED
    (folder / "results.json").write_text('{"accuracy": 9')
    assert state_of(folder).state is State.UNFINISHED, "the results are damaged"
    (folder / "results.json").write_text("{}")
    assert state_of(folder).state is State.FINISHED
    (folder / "results.json").unlink()
    (folder / "prompt_learner" / RESUME_FILE).rename(folder / "prompt_learner" / PREVIOUS)
    assert state_of(folder).state is State.UNFINISHED, "the run goes on from the epoch before"


def test_a_held_folder_names_its_process(folder):
    lock = RunLock(folder)
    lock.acquire()
    found = state_of(folder)
    assert found.state is State.HELD
    assert str(found.holder).startswith(f"process {os.getpid()} on {socket.gethostname()} (since ")
    lock.release()
    assert state_of(folder).state is State.BROKEN


def test_notes_that_are_left_behind(folder):
    (folder / LOCK_FILE).touch()
    note(folder, pid=2**22 + 1)
    assert state_of(folder).state is State.BROKEN, "the process is gone"
    note(folder)
    assert state_of(folder).state is State.BROKEN, "its id is another process's by now"
    note(folder, host="elsewhere")
    assert state_of(folder).state is State.HELD, "nobody here can tell"


def test_runs_are_looked_up_in_their_order(tmp_path):
    runs = [
        Run(tmp_path / kind / f"seed{seed}", "d", "t", "c", seed, 16, "all")
        for seed in (1, 2)
        for kind in ("a", "b")
    ]
    runs[2].folder.mkdir(parents=True)
    (runs[2].folder / "results.json").write_text("{}")
    runs[1].folder.mkdir(parents=True)
    (runs[1].folder / "log.txt").touch()
    (tmp_path / "b" / "seed2").touch()  # a file
    states = [found.state for found in scan(runs)]
    assert states == [State.ABSENT, State.BROKEN, State.FINISHED, State.ABSENT]


@pytest.mark.parametrize(
    ("labels", "state"),
    [
        ({"own/labels.csv": "path,label\n"}, State.FINISHED),
        ({"own/labels.csv": "path,label,note\n"}, State.CHANGED),
        ({"own/labels.csv": "path,label\n", "../split.json": "{}"}, State.CHANGED),  # it is gone
        ({}, State.FINISHED),
        (None, State.FINISHED),  # of a version that did not record them
    ],
)
def test_finished_runs_whose_files_with_labels_have_changed(tmp_path, labels, state):
    run = Run(tmp_path / "a/seed1", "d", "t", "c", 1, 16, "all", data=tmp_path / "data")
    (tmp_path / "data/own").mkdir(parents=True)
    (tmp_path / "data/own/labels.csv").write_text("path,label\n")
    digests = labels and {
        path: bytes_digest(text.encode(), "blake2b-128") for path, text in labels.items()
    }
    identity = Identity("train", "t", "d", "all", 16, 1, {}, labels=digests)
    hold(run.folder).claim(identity)
    release_all()
    (run.folder / "results.json").write_text("{}")
    assert scan([run])[0].state is state
    assert scan([replace(run, data=None)])[0].state is State.FINISHED
    (run.folder / "run.json").write_text("{")
    assert scan([run])[0].state is State.CHANGED  # the run says what is wrong


LINE = "epoch [{}/50] batch [5/8] time 0.1 (0.1) loss {} (0.9) acc 50.0 (40.0) lr 1\n"


def test_how_far_a_run_is(folder):
    assert how_far(folder) == ("", "")
    (folder / "log.txt").write_text("Loading\n" * 2000 + LINE.format(2, 0.75) + LINE.format(3, 0.5))
    assert how_far(folder) == ("3/50", "0.5")
    (folder / "metrics.csv").write_text("epoch,loss,lr,seconds,val_accuracy\n")
    assert how_far(folder) == ("3/50", "0.5")
    with (folder / "metrics.csv").open("a") as file:
        file.write("1,0.987654321,0.1,2.0,\n2,0.87654321,0.1,2.0,\n3,")
    assert how_far(folder) == ("3/50", "0.876543")
    (folder / "log.txt").unlink()
    assert how_far(folder) == ("2", "0.876543")


def test_the_reason_is_the_last_error_of_this_attempt(tmp_path):
    log = tmp_path / "log"
    log.write_text("error: of an attempt before\n")
    start = log.stat().st_size
    assert reason(1, log, start) == ""
    with log.open("a") as file:
        file.write("epoch 1\nerror: the disk is full\nbye\n\n")
    assert reason(2, log, start) == "the disk is full"
    log.write_text("x" * 30_000 + "\nTraceback\n  line\nKeyError: 'a\x1b'\n")
    assert reason(1, log) == "KeyError: 'a\\x1b'"
    assert reason(137, log).startswith("ended by SIGKILL, as for want of memory; last output: Key")
    assert reason(143, None) == "ended by SIGTERM"
    assert reason(255, None) == ""
    assert reason(3, tmp_path / "missing") == ""
