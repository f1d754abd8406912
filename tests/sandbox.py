"""A small project with copies of the scripts, and a stub that stands in for Python."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
PLACE = "RSSCN7/shots_16/QuaternionPrompt/tiny/seed1"
OURS = ("DATA", "TRAINER", "TRAINERS", "TARGETS", "SHOTS", "STUB_FAIL", "STUB_RUN", "DPLQ_SETTINGS",
        "GENERALISED")  # fmt: skip
STUB = """#!{python}
import json, os, signal, sys, time
from pathlib import Path

args = sys.argv[1:]
if not args[0].endswith("train.py"):
    os.execv(sys.executable, [sys.executable, *args])
value = {{key: args[i + 1] for i, key in enumerate(args[:-1])}}
with open({calls!r}, "a") as file:
    file.write(json.dumps({{
        "args": args, "cwd": os.getcwd(), "pid": os.getpid(),
        "settings": os.environ.get("DPLQ_SETTINGS"),
    }}) + "\\n")
fail = os.environ.get("STUB_FAIL", "")
subset, trainer = value["DATASET.SUBSAMPLE_CLASSES"], value["--trainer"]
out = Path(value["--output-dir"])
if fail == "sleep":
    time.sleep(30)
if fail == "patient":  # takes its time to end, as a run that writes its state
    came = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    (out / "ready").touch()
    while not came:
        time.sleep(0.01)
    time.sleep(0.3)
    (out / "ended").write_text(repr(came))
    sys.exit(130)
if fail == "owner":  # writes its own files, as train.py does
    (out / "run.json").write_text("{{}}")
    (out / "settings.txt").write_text(os.environ["DPLQ_SETTINGS"] + "\\n")
(out / "log.txt").write_text("started\\n")
if fail == "silent":
    sys.exit(0)
if fail in (f"{{subset}} {{value['--seed']}}", trainer):
    sys.exit(7)
(out / "prompt_learner").mkdir(exist_ok=True)
if fail == f"late {{subset}}":
    sys.exit(7)
result = {{
    "format": 1, "trainer": trainer, "subsample": subset,
    "dataset": Path(value["--dataset-config-file"]).stem,
    "split": "test", "shots": int(value["DATASET.NUM_SHOTS"]), "seed": int(value["--seed"]),
    "accuracy": 90.0 if subset == "base" else 60.0, "run": os.environ.get("STUB_RUN", ""),
    "learnable_parameters": 1234, "checkpoint_bytes": 5678, "peak_memory_mib": 900.2,
    "seconds": {{"step": 0.25}}, "device": "cpu", "precision": "fp32",
    "generalised": {{"base": 80.0, "new": 40.0}} if subset == "all" else None,
}}
(out / "results.json").write_text(json.dumps(result))
"""


@cache
def _project() -> tempfile.TemporaryDirectory[str]:
    """Make what all sandboxes copy, with bytecode: a process would compile all modules anew."""
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    shutil.copytree(PROJECT / "scripts", root / "scripts")
    (root / "dplq").mkdir()
    (root / "dplq/__init__.py").write_text('__version__ = "0"\n')  # the real one imports more
    shutil.copy(PROJECT / "dplq/errors.py", root / "dplq")
    (root / "train.py").touch()
    for package in ("evaluation", "experiments", "io", "results", "training"):
        shutil.copytree(PROJECT / "dplq" / package, root / "dplq" / package)
    (root / "configs").mkdir()
    shutil.copy(PROJECT / "configs/protocols.yaml", root / "configs")
    compileall.compile_dir(root / "dplq", quiet=2)
    return folder


class Sandbox:
    """A copy of the scripts in a small project whose path has a space, and a caller's folder."""

    def __init__(self, folder: Path):
        self.root = folder / "my project"
        self.caller = folder / "some where"
        self.calls_file = folder / "calls.jsonl"
        self.caller.mkdir()
        shutil.copytree(_project().name, self.root)
        for name in (
            "datasets/RSSCN7.yaml",
            "datasets/btmri.yaml",
            "trainers/QuaternionPrompt/tiny.yaml",
            "trainers/CoOp/tiny.yaml",
        ):
            self.add_config(name)
        stub = self.caller / "stub python"
        stub.write_text(STUB.format(python=sys.executable, calls=str(self.calls_file)))
        stub.chmod(0o755)
        self.env = {**os.environ, "PYTHON": "./stub python", "CFG": "tiny", "OUT": "my out"}
        self.env["LC_ALL"] = "C"  # the order of file names in messages
        for name in OURS:
            self.env.pop(name, None)

    def add_config(self, name: str) -> None:
        path = self.root / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def command(self, *args: str, script: str = "base2new") -> list[str]:
        return ["bash", str(self.root / f"scripts/{script}.sh"), *args]

    def run(self, *args: str, script: str = "base2new", **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*args, script=script),
            cwd=self.caller,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[list[str]]:
        return [record["args"] for record in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """Return the arguments, cwd, pid and DPLQ_SETTINGS of each call of train.py."""
        if not self.calls_file.exists():
            return []
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def train(self) -> Path:
        return self.caller / "my out/base2new/train_base" / PLACE

    @property
    def test(self) -> Path:
        return self.caller / "my out/base2new/test_new" / PLACE


def interrupt(
    command: list[str],
    *,
    when: Callable[[], object],
    cwd: Path,
    env: dict[str, str],
    number: int = signal.SIGINT,
    send: Callable[[int, int], None] = os.killpg,
) -> tuple[int, str]:
    """Start a command, send a signal once `when()` is true; return exit code and stderr.

    Args:
        command: it becomes the leader of a process group.
        when: asked again and again.
        cwd: where the command runs.
        env: its environment.
        number: the signal.
        send: `os.killpg`, as a terminal does on Ctrl-C, or `os.kill`.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run started in the background ignores SIGINT, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    send(process.pid, number)
    stderr = process.communicate(timeout=60)[1]
    return process.returncode, stderr
