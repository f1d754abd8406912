"""The lock of a run's folder: held by one process, and by none that has ended."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import filelock
import msgspec
import pytest

from dplq.errors import UserError
from dplq.io.runs import lock as run_lock
from dplq.io.runs.folder import hold
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
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}  # some filelocks delete it


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
    """Those that were forked without the hooks of Python share its lock."""
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


def note(folder, pid, host=None):
    owner = Owner(pid, host or socket.gethostname())
    (folder / ".owner.json").write_bytes(msgspec.json.encode(owner))


def dead_pid():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    return dead.pid


def test_the_note_of_a_dead_process_does_not_stand_for_a_live_holder(tmp_path):
    """Another process has just taken the lock over, and is about to say so."""
    other = filelock.FileLock(str(tmp_path / ".lock"), is_singleton=False)
    other.acquire()
    note(tmp_path, dead_pid())
    threading.Timer(0.3, note, (tmp_path, os.getppid())).start()
    began = time.monotonic()
    with pytest.raises(UserError, match=f"in use by process {os.getppid()} on"):
        RunLock(tmp_path).acquire()
    assert time.monotonic() - began < 10
    other.release()


def test_a_lock_that_is_just_being_given_back_is_waited_for(tmp_path):
    other = filelock.FileLock(str(tmp_path / ".lock"), is_singleton=False, thread_local=False)
    other.acquire()
    threading.Timer(0.2, other.release).start()
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.check()
    lock.release()


def test_a_free_lock_is_taken_whatever_process_has_the_number_of_the_dead(tmp_path):
    note(tmp_path, os.getppid())
    lock = RunLock(tmp_path)
    lock.acquire()
    assert lock.owner().pid == os.getpid()
    lock.release()


def test_a_later_attempt_of_a_job_takes_over_from_another_host(tmp_path, monkeypatch, caplog):
    there = Owner(1234, "node17", "2026-01-01 00:00:00", job="job-1")
    (tmp_path / ".owner.json").write_bytes(msgspec.json.encode(there))
    monkeypatch.setenv("DPLQ_JOB", "job-1")
    lock = RunLock(tmp_path)
    lock.acquire()
    assert (lock.owner().pid, lock.owner().job) == (os.getpid(), "job-1")
    assert caplog.messages == [f"{tmp_path}: this job goes on from where it was on node17"]
    lock.release()


@pytest.mark.parametrize(("there", "here"), [("job-1", "job-2"), ("job-1", ""), ("", "")])
def test_another_job_does_not_take_over_from_another_host(tmp_path, monkeypatch, there, here):
    note = msgspec.json.encode(Owner(1234, "node17", job=there))
    (tmp_path / ".owner.json").write_bytes(note)
    monkeypatch.setenv("DPLQ_JOB", here)
    with pytest.raises(UserError, match="marked as in use by process 1234 on node17"):
        RunLock(tmp_path).acquire()
    assert (tmp_path / ".owner.json").read_bytes() == note


def test_the_same_job_on_this_host_is_refused_while_it_lives(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_JOB", "job-1")
    process = holder(tmp_path)
    try:
        with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
            RunLock(tmp_path).acquire()
    finally:
        process.kill()
        process.wait()
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("lease", [0.3, 5.0])
def test_a_file_server_may_hold_the_lock_of_a_lost_machine(tmp_path, monkeypatch, lease):
    monkeypatch.setattr(run_lock, "LEASE", lease)
    monkeypatch.setenv("DPLQ_JOB", "job-1")
    server = filelock.FileLock(str(tmp_path / ".lock"), is_singleton=False, thread_local=False)
    server.acquire()
    there = Owner(1234, "node17", job="job-1")
    (tmp_path / ".owner.json").write_bytes(msgspec.json.encode(there))
    timer = threading.Timer(1.0, server.release)
    timer.start()
    lock = RunLock(tmp_path)
    if lease < 1:
        with pytest.raises(UserError, match="in use by process 1234 on node17"):
            lock.acquire()
    else:
        lock.acquire()
        assert lock.owner().is_here
        lock.release()
    timer.join()


def test_the_earlier_attempt_stops_when_it_was_not_dead_after_all(tmp_path, monkeypatch):
    monkeypatch.setenv("DPLQ_JOB", "job-1")
    lock = RunLock(tmp_path)
    lock.acquire()
    later = Owner(7, "node18", job="job-1")
    (tmp_path / ".owner.json").write_bytes(msgspec.json.encode(later))
    with pytest.raises(UserError, match=r"was taken over by process 7 on node18 .*: it stops"):
        lock.check()
    lock.release()


def test_a_note_of_an_older_version_has_no_job(tmp_path):
    (tmp_path / ".owner.json").write_text('{"pid": 1234, "host": "node17", "since": "then"}')
    assert RunLock(tmp_path).owner() == Owner(1234, "node17", "then", job="")


def test_after_a_change_of_the_host_name_the_old_one_is_named(tmp_path, monkeypatch):
    process = holder(tmp_path)
    process.kill()
    process.wait()
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    with pytest.raises(UserError, match=f"marked as in use by process {process.pid} on"):
        RunLock(tmp_path).acquire()


@pytest.mark.parametrize("how", ["deleted", "deleted and taken"])
def test_a_deleted_folder_is_noticed(tmp_path, how):
    lock = RunLock(tmp_path / "run")
    (tmp_path / "run").mkdir()
    lock.acquire()
    lock.check()
    shutil.rmtree(tmp_path / "run")
    if how == "deleted":
        with pytest.raises(
            UserError, match=r"run was deleted while this run wrote there: it stops"
        ):
            lock.check()
    else:
        (tmp_path / "run").mkdir()
        process = holder(tmp_path / "run")
        with pytest.raises(UserError, match=f"run was taken over by process {process.pid} on"):
            lock.check()
        lock.release()
        assert lock.owner().pid == process.pid, "the note of the other stays"
        process.kill()
        process.wait()
    lock.release()


@pytest.mark.parametrize("end", ["lock.release()\n    os._exit(0)", "sys.exit(0)"])
def test_a_forked_child_does_not_give_the_lock_back(tmp_path, end):
    code = f"""
import os, pathlib, sys, time
from dplq.io.runs.lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
lock.acquire()
child = os.fork()
if child == 0:
    {end}
os.waitpid(child, 0)
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
        RunLock(tmp_path).acquire()
    process.kill()
    process.wait()


WITHOUT_FLOCK = """
import errno, fcntl
def flock(*given):
    raise OSError(getattr(errno, sys.argv[3]), "")
fcntl.flock = flock
"""


def attempts(folder, errno, *pauses):
    """Start processes that try to hold a folder where flock fails; yield each with its answer."""
    tried = HOLD.replace("lock.acquire()", f"try:\n    lock.acquire()\n{REFUSED}")
    found = []
    for pause in pauses:
        time.sleep(pause)
        command = [sys.executable, "-c", f"import sys\n{WITHOUT_FLOCK}\n{tried}", str(folder)]
        found.append(
            subprocess.Popen([*command, "alone", errno], stdout=subprocess.PIPE, text=True)
        )
    return [(process, process.stdout.readline()) for process in found]


REFUSED = """
except Exception as error:
    print(repr(error), flush=True)
    sys.exit(2)
"""


@pytest.mark.parametrize("number", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_on_a_file_system_without_locks_the_note_stands_in(tmp_path, number):
    ((first, answer),) = attempts(tmp_path, number, 0)
    assert answer == "held\n"
    ((second, answer),) = attempts(tmp_path, number, 0)
    assert f"in use by process {first.pid} on" in answer
    assert second.wait() == 2
    first.kill()
    first.wait()
    both = attempts(tmp_path, number, 0, 0)
    assert [answer for _, answer in both].count("held\n") <= 1
    for process, _ in both:
        process.kill()
        process.wait()
    ((third, answer),) = attempts(tmp_path, number, 0)
    assert answer == "held\n"
    third.kill()
    third.wait()


def test_a_file_system_that_refuses_to_lock_is_named(tmp_path, monkeypatch):
    def flock(*given):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError) as error:
        hold(tmp_path / "out")
    assert str(error.value) == (
        f"--output-dir {tmp_path / 'out'} cannot be used: Input/output error. Give a folder that "
        "can be written to."
    )


@pytest.mark.parametrize(("job", "left"), [("job-1", False), ("job-2", True), ("", True)])
def test_the_note_of_a_job_that_was_killed_elsewhere_is_deleted(tmp_path, job, left):
    there = Owner(1234, "node17", job=job)
    (tmp_path / ".owner.json").write_bytes(msgspec.json.encode(there))
    run_lock.forget_job(tmp_path, "job-1")
    assert (tmp_path / ".owner.json").exists() == left
    run_lock.forget_job(tmp_path / "absent", "job-1")


def test_the_note_of_a_job_whose_lock_is_held_stays(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    there = msgspec.json.encode(Owner(1234, "node17", job="job-1"))
    (tmp_path / ".owner.json").write_bytes(there)
    run_lock.forget_job(tmp_path, "job-1")
    assert (tmp_path / ".owner.json").read_bytes() == there
