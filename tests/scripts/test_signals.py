"""Signals: a script passes them on, waits for what it runs, and leaves nothing running."""

import os
import signal
import subprocess
import time

import pytest

from tests.sandbox import Sandbox, interrupt

STOPPED = "stopped; to go on, give the same command again\n"
CODES = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def box(tmp_path):
    """A sandbox whose plan looks for a signal ten times as often."""
    box = Sandbox(tmp_path)
    path = box.root / "dplq/experiments/execute.py"
    before, tick, after = path.read_text().partition("TICK = 0.5 ")
    assert tick
    path.write_text(f"{before}TICK = 0.05 {after}")
    return box


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("trainers", ["QuaternionPrompt", "QuaternionPrompt CoOp"])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_to_the_script_ends_the_run_then_the_script(box, trainers, number):
    code, stderr = interrupt(
        box.command("RSSCN7", "1"),
        when=(box.train / "ready").exists,
        cwd=box.caller,
        env={**box.env, "STUB_FAIL": "patient", "TRAINERS": trainers},
        number=number,
        send=os.kill,
    )
    assert (code, stderr) == (CODES[number], STOPPED)
    (record,) = box.records()
    assert not is_running(record["pid"])
    assert (box.train / "ended").read_text() == f"[{int(signal.SIGTERM)}]", "waited for"


@pytest.mark.parametrize("trainers", ["QuaternionPrompt", "QuaternionPrompt CoOp"])
def test_ctrl_c_in_a_terminal_comes_as_one_signal(box, trainers):
    code, stderr = interrupt(
        box.command("RSSCN7", "1"),
        when=(box.train / "ready").exists,
        cwd=box.caller,
        env={**box.env, "STUB_FAIL": "patient", "TRAINERS": trainers},
    )
    assert (code, stderr) == (130, STOPPED)
    assert len(box.calls()) == 1
    assert (box.train / "ended").read_text() == f"[{int(signal.SIGTERM)}]"


@pytest.mark.parametrize("trainers", ["QuaternionPrompt", "QuaternionPrompt CoOp"])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_to_the_group_ends_a_plain_python(box, trainers, number):
    code, stderr = interrupt(
        box.command("RSSCN7", "1"),
        when=box.calls,
        cwd=box.caller,
        env={**box.env, "STUB_FAIL": "sleep", "TRAINERS": trainers},
        number=number,
    )
    assert (code, stderr) == (CODES[number], STOPPED)
    (record,) = box.records()
    assert not is_running(record["pid"])


def test_under_nohup_the_script_outlives_its_terminal(box):
    env = {**box.env, "STUB_FAIL": "patient"}
    command = ["nohup", *box.command("RSSCN7", "1")]
    process = subprocess.Popen(
        command, cwd=box.caller, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (box.train / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143


def test_a_signal_during_the_table(box):
    """It is drawn by dplq.results, which is a child as well."""
    box.run("RSSCN7", "1")
    results = box.root / "dplq/results/__main__.py"
    mark = box.caller / "pid"
    lines = ["import os, time", f"open({str(mark)!r}, 'w').write(f'{{os.getpid()}}\\n')"]
    results.write_text("\n".join([*lines, "time.sleep(30)"]))
    code, stderr = interrupt(
        box.command("RSSCN7", "1"),
        when=lambda: mark.exists() and mark.read_text().endswith("\n"),
        cwd=box.caller,
        env=box.env,
        number=signal.SIGTERM,
        send=os.kill,
    )
    assert (code, stderr) == (143, STOPPED)
    assert not is_running(int(mark.read_text()))


def test_the_settings_of_a_stopped_run_are_recorded(box):
    env = {**box.env, "STUB_FAIL": "patient"}
    interrupt(
        box.command("RSSCN7", "1"), when=(box.train / "ready").exists, cwd=box.caller, env=env
    )
    assert "seed 1\n" in (box.train / "settings.txt").read_text()


def test_a_trainer_that_ends_by_itself_with_130_does_not_stop_the_others(box):
    """Only the script's own signals stop it: this is one run that somebody ended by its pid."""
    stub = box.caller / "stub python"
    stub.write_text(stub.read_text().replace("sys.exit(7)", "sys.exit(130)"))
    env = {"TRAINERS": "CoOp QuaternionPrompt", "STUB_FAIL": "CoOp"}
    done = box.run("RSSCN7", "1", **env)
    assert done.returncode == 130
    assert "error: failed: CoOp." in done.stderr
    assert len(box.calls()) == 3, "QuaternionPrompt is run"
