"""The lock of a run's folder: held by one process, and by none that has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import filelock
import msgspec
import pytest

from dplq.errors import UserError
from dplq.io.runs import lock as run_lock
from dplq.io.runs.lock import Owner, RunLock

HOLD = """
import multiprocessing, pathlib, sys, time
from dplq.io.runs.lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
lock.acquire()
if sys.argv[2] == "with a child":
    context = multiprocessing.get_context("fork")
    context.Process(target=time.sleep, args=(5,)).start()
print("held", flush=True)
time.sleep(60)
"""


def holder(folder, how="alone"):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_pid_and_host(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(UserError) as error:
            RunLock(tmp_path).acquire()
    finally:
        process.kill()
        process.wait()
    assert f"is in use by process {process.pid} on {socket.gethostname()} (since " in str(
        error.value
    )
    assert "or choose another --output-dir" in str(error.value)


@pytest.mark.parametrize("how", ["alone", "with a child"])
def test_that_of_a_killed_process_is_taken_over(tmp_path, how):
    process = holder(tmp_path, how)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lock = RunLock(tmp_path)
    lock.acquire()
    assert lock.owner().pid == os.getpid()
    lock.release()
    assert lock.owner() is None
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_that_of_another_host_is_named(tmp_path):
    there = Owner(1234, "node17", "2026-01-01 00:00:00")
    (tmp_path / ".owner.json").write_bytes(msgspec.json.encode(there))
    with pytest.raises(UserError) as error:
        RunLock(tmp_path).acquire()
    assert "marked as in use by process 1234 on node17 (since 2026-01-01" in str(error.value)
    assert f"delete {tmp_path / '.owner.json'}" in str(error.value)
    (tmp_path / ".owner.json").unlink()
    lock = RunLock(tmp_path)
    lock.acquire()  # the refusal left no lock behind
    lock.release()


@pytest.mark.parametrize("content", ["", "[]", '{"pid": -1, "host": "x"}', '{"pid": "1"}', "\xff"])
def test_a_damaged_note_of_the_owner_is_no_owner(tmp_path, content):
    (tmp_path / ".owner.json").write_bytes(content.encode("latin-1"))
    lock = RunLock(tmp_path)
    lock.acquire()
    assert lock.owner().is_here
    lock.release()


def test_a_number_that_no_process_has_is_dead():
    assert Owner(2**53, socket.gethostname()).is_dead
    assert not Owner(os.getpid(), socket.gethostname()).is_dead
    assert not Owner(2**53, "node17").is_dead


def test_a_live_holder_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "ORPHANS", 30)
    process = holder(tmp_path)
    began = time.monotonic()
    with pytest.raises(UserError):
        RunLock(tmp_path).acquire()
    assert time.monotonic() - began < 10
    process.kill()
    process.wait()


def test_children_of_a_dead_process_are_waited_for(tmp_path, monkeypatch):
    """With older versions of filelock they share its lock."""
    monkeypatch.setattr(run_lock, "ORPHANS", 0.2)
    other = filelock.FileLock(str(tmp_path / ".lock"), is_singleton=False)
    other.acquire()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / ".owner.json").write_bytes(
        msgspec.json.encode(Owner(dead.pid, socket.gethostname()))
    )
    with pytest.raises(UserError, match=f"in use by process {dead.pid} on"):
        RunLock(tmp_path).acquire()
    other.release()
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()
