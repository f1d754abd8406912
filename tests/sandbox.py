"""A small project with copies of the scripts, and a stub that stands in for Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PLACE = "RSSCN7/shots_16/QuaternionPrompt/tiny/seed1"
OURS = ("DATA", "TRAINER", "TRAINERS", "TARGETS", "SHOTS", "STUB_FAIL", "STUB_RUN")
STUB = """#!{python}
import json, os, subprocess, sys, time
from pathlib import Path

args = sys.argv[1:]
if args[0] != "train.py":
    sys.exit(subprocess.call([sys.executable, *args]))
value = {{key: args[i + 1] for i, key in enumerate(args[:-1])}}
with open({calls!r}, "a") as file:
    file.write(json.dumps({{"args": args, "cwd": os.getcwd()}}) + "\\n")
fail = os.environ.get("STUB_FAIL", "")
subset, trainer = value["DATASET.SUBSAMPLE_CLASSES"], value["--trainer"]
if fail == "sleep":
    time.sleep(30)
out = Path(value["--output-dir"])
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
}}
(out / "results.json").write_text(json.dumps(result))
"""


class Sandbox:
    """A copy of the scripts in a small project whose path has a space, and a caller's folder."""

    def __init__(self, folder: Path):
        self.root = folder / "my project"
        self.caller = folder / "some where"
        self.calls_file = folder / "calls.jsonl"
        self.caller.mkdir()
        shutil.copytree(PROJECT / "scripts", self.root / "scripts")
        (self.root / "dplq").mkdir()
        (self.root / "dplq/__init__.py").touch()
        shutil.copy(PROJECT / "dplq/errors.py", self.root / "dplq")
        for package in ("experiments", "io", "results"):
            shutil.copytree(PROJECT / "dplq" / package, self.root / "dplq" / package)
        (self.root / "configs").mkdir()
        shutil.copy(PROJECT / "configs/protocols.yaml", self.root / "configs")
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
        if not self.calls_file.exists():
            return []
        return [json.loads(line)["args"] for line in self.calls_file.read_text().splitlines()]

    @property
    def train(self) -> Path:
        return self.caller / "my out/base2new/train_base" / PLACE

    @property
    def test(self) -> Path:
        return self.caller / "my out/base2new/test_new" / PLACE


def interrupt(
    command: list[str], *, when: Callable[[], object], cwd: Path, env: dict[str, str]
) -> tuple[int, str]:
    """Start a command, send Ctrl-C once `when()` is true; return exit code and stderr."""
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
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    return process.returncode, stderr
