"""Runs that are killed at any moment, from their start-up on, and given again.

The slow tests kill real processes at random moments. `DPLQ_TEST_KILLS=40 python -m pytest -m slow
tests/trainers/test_kills.py` sets how many, `DPLQ_TEST_KILLS_SEED` which moments.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dplq.io import checkpoint
from tests.runner import PROJECT, make_project, train

KILLS = int(os.environ.get("DPLQ_TEST_KILLS", "12"))
SEED = os.environ.get("DPLQ_TEST_KILLS_SEED", "0")
TRAINERS = ("QuaternionPrompt", "CoOp", "MaPLe", "PromptSRC", "LinearProbe", "DCPL")
DEPTHS = {
    "MaPLe": ["PROMPT_DEPTH"],
    "DCPL": ["PROMPT_DEPTH"],
    "PromptSRC": ["PROMPT_DEPTH_VISION", "PROMPT_DEPTH_TEXT"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the flags of a run of few steps, for kills at chosen moments."""
    return make_project(tmp_path_factory.mktemp("small"), images=6)


def arguments(flags, name, out, *more):
    node = f"TRAINER.{name.upper()}"
    keys = [word for key in DEPTHS.get(name, []) for word in (f"{node}.{key}", "2")]
    given = [name if word == "QuaternionPrompt" else word for word in flags]
    return [*given, "--output-dir", str(out), f"{node}.PREC", "fp32", *keys, *more]


def outcome(folder):
    """Return every tensor and every number that a run's folders hold, by relative path."""
    found = {}
    for path in sorted(folder.rglob("prompt_learner/model*.safetensors")):
        tensors, header = checkpoint.read(path)
        found[str(path.relative_to(folder))] = (
            {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
            header["epoch"],
        )
    for path in sorted(folder.rglob("results.json")):
        result = json.loads(path.read_text())
        keys = ("trainer", "seed", "accuracy", "macro_f1", "per_class_accuracy", "epochs")
        found[str(path.relative_to(folder))] = {key: result[key] for key in keys}
    return found


def leftovers(folder):
    """Return what only a process that still runs may have here."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


# ---------------------------------------------------------------------------- chosen moments


def kill_at_write(name, moment):
    """Die just before or just after the file `name` is renamed into place."""
    original = os.replace

    def replace(source, target):
        if os.path.basename(target) == name and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        original(source, target)
        if os.path.basename(target) == name:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def kill_at_logger():
    import dassl.utils

    dassl.utils.setup_logger = lambda *given: os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = train(folder / "log", arguments(small, "CoOp", folder / "run"))
    assert done.code == 0, done.err
    return outcome(folder / "run")


@pytest.mark.parametrize(
    "kill",
    [
        *((kill_at_write, ".owner.json", moment) for moment in ("before", "after")),
        *((kill_at_write, "run.json", moment) for moment in ("before", "after")),
        *((kill_at_write, "settings.txt", moment) for moment in ("before", "after")),
        (kill_at_logger,),
        (kill_at_write, "train_images.json", "before"),
        *((kill_at_write, "model-3.safetensors", moment) for moment in ("before", "after")),
        *((kill_at_write, "results.json", moment) for moment in ("before", "after")),
    ],
    ids=lambda kill: "-".join(kill[1:]) or "logger",
)
def test_killed_between_its_writes(small, whole, tmp_path, monkeypatch, kill):
    """The start-up too: taking the lock, claiming the folder, opening the log."""
    monkeypatch.setenv("DPLQ_SETTINGS", "of a script")
    run = tmp_path / "run"
    given = arguments(small, "CoOp", run)
    assert train(tmp_path / "killed", given, set_settings, *kill).code == -signal.SIGKILL
    again = train(tmp_path / "again", given, set_settings)
    assert again.code == 0, again.err
    assert outcome(run) == whole
    assert leftovers(run) == []
    assert (run / "settings.txt").read_text() == "of a script\n"


def set_settings(kill=None, *rest):
    """Set the variable in the child: the fork server's environment is older than the test's."""
    os.environ["DPLQ_SETTINGS"] = "of a script"
    if kill is not None:
        kill(*rest)


# ---------------------------------------------------------------------------- random moments


def session(leader):
    """Return the processes of a session that do not end, zombies aside."""
    deadline = time.monotonic() + 10  # those that were killed need a moment
    while (running := list(_running(leader))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return running


def _running(leader):
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, owner = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # just gone
            continue
        if int(owner) == leader and state not in "ZX":
            yield int(path.parent.name)


def start(command, log, **environment):
    with open(log, "wb") as file:
        return subprocess.Popen(
            command,
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
            # A test run started in the background ignores SIGINT, and its children would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def finish(command, log, **environment):
    """Run a command to its end; return how long it took."""
    began = time.monotonic()
    process = start(command, log, **environment)
    assert process.wait(timeout=600) == 0, log.read_text()[-3000:]
    assert session(process.pid) == []
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="lists processes by /proc")
def test_train_py_is_killed_anywhere(project, tmp_path):
    """Without and with loader workers, which outlive it for some seconds."""
    moments, expected, kills = random.Random(SEED), {}, 0
    for index in itertools.count():
        name, workers = TRAINERS[index % len(TRAINERS)], str(2 * (index // len(TRAINERS) % 2))
        run = tmp_path / str(index)
        more = ["DATALOADER.NUM_WORKERS", workers]
        if (name, workers) not in expected:
            whole = tmp_path / f"{name}-{workers}"
            command = [sys.executable, "train.py", *arguments(project, name, whole, *more)]
            seconds = finish(command, tmp_path / "log")
            expected[name, workers] = (outcome(whole), seconds)
        wanted, seconds = expected[name, workers]
        command = [sys.executable, "train.py", *arguments(project, name, run, *more)]
        delay = moments.uniform(0, seconds)
        process = start(command, tmp_path / "killed")
        time.sleep(delay)
        process.kill()
        code = process.wait()
        took = finish(command, tmp_path / "again")
        print(f"{index} {name} {workers} after {delay:.2f} of {seconds:.2f} s: {code}, {took:.2f}")
        assert outcome(run) == wanted, (name, workers, delay)
        assert leftovers(run) == []
        assert took < 4 * seconds + 15, "the lock of the dead is not waited for"
        kills += code == -signal.SIGKILL
        if kills >= KILLS:
            break
        assert index < 3 * KILLS + 10, "most runs ended before the kill"


def kill_group(script):
    os.killpg(script.pid, signal.SIGKILL)


def kill_train_py(script):
    children = Path(f"/proc/{script.pid}/task/{script.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)


def terminate_script(script):
    script.send_signal(signal.SIGTERM)


def interrupt_script(script):
    script.send_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="lists processes by /proc")
@pytest.mark.parametrize("kill", [kill_group, kill_train_py, terminate_script, interrupt_script])
def test_a_script_is_killed_anywhere(tmp_path, kill):
    moments = random.Random(f"{SEED} {kill.__name__}")
    command = ["bash", "scripts/base2new.sh", "demo_tissue", "1", "--", "OPTIM.MAX_EPOCH", "2"]
    environment = {"PYTHON": sys.executable, "SHOTS": "2", "DPLQ_CACHE": str(tmp_path / "cache")}
    environment["TRAINER"] = "CoOp"
    finish(command, tmp_path / "log", OUT=str(tmp_path / "first"), **environment)  # fills the cache
    seconds = finish(command, tmp_path / "log", OUT=str(tmp_path / "whole"), **environment)
    wanted = outcome(tmp_path / "whole")
    assert len(wanted) == 3
    for index in range(max(KILLS // 4, 1)):
        out = tmp_path / f"out{index}"
        delay = moments.uniform(0, seconds)
        script = start(command, tmp_path / "killed", OUT=str(out), **environment)
        time.sleep(delay)
        kill(script)
        code = script.wait(timeout=120)
        left = session(script.pid)
        finish(command, tmp_path / "again", OUT=str(out), **environment)
        print(f"{index} {kill.__name__} after {delay:.2f} of {seconds:.2f} s: {code}")
        assert left == [] or kill is kill_train_py
        assert "Traceback" not in (tmp_path / "killed").read_text()
        assert outcome(out) == wanted, delay
        assert leftovers(out) == []
