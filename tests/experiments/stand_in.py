"""A stand-in for Python that runs in place of a training, for tests of plans and engines."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
# Its behaviour is told by variables: FAIL "train 2" exits with 7, FAIL "slow" sleeps.
# TAKES is how many seconds it takes, TOGETHER how many must have begun before it goes on, LOCK has
# it hold its folder, RESULTS is what it writes.
TEXT = """#!{python}
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {project!r})
value = {{key: sys.argv[i + 1] for i, key in enumerate(sys.argv[:-1])}}
out = Path(value["--output-dir"])
kind = "test" if "--eval-only" in sys.argv else "train"
name = f"{{kind}} {{value['--seed']}}"
def note(what):
    with open({calls!r}, "a") as file:
        file.write(json.dumps({{
            "what": what, "name": name, "out": str(out), "time": time.monotonic(),
            "threads": os.environ.get("OMP_NUM_THREADS"), "job": os.environ.get("DPLQ_JOB"),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid(),
        }}) + "\\n")
out.mkdir(parents=True, exist_ok=True)
if os.environ.get("LOCK"):
    from dplq.errors import UserError
    from dplq.io.runs.lock import RunLock
    try:
        lock = RunLock(out)
        lock.acquire()
    except UserError as error:
        print(f"error: {{error}}", file=sys.stderr)
        sys.exit(2)
    if (out / "results.json").exists():
        sys.exit(0)
    (out / "settings.txt").write_text(os.environ["DPLQ_SETTINGS"] + "\\n")
note("begin")
print("working on", name)
if os.environ.get("FAIL") == name:
    print("Traceback (most recent call last):\\nValueError: no luck", file=sys.stderr)
    sys.exit(7)
deadline = time.monotonic() + 30
while Path({calls!r}).read_text().count('"begin"') < int(os.environ.get("TOGETHER", 0)):
    assert time.monotonic() < deadline, "the others do not begin"
    time.sleep(0.02)
time.sleep(30 if os.environ.get("FAIL") == "slow" else float(os.environ.get("TAKES", 0)))
(out / "prompt_learner").mkdir(exist_ok=True)
if os.environ.get("FAIL") != "silent":
    (out / "results.json").write_text(os.environ.get("RESULTS", "{{}}"))
note("end")
"""


class StandIn:
    """A program that is called as Python is, and the calls that it noted."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "notes"
        self.file.touch()
        self.path = folder / "python"
        self.path.write_text(
            TEXT.format(python=sys.executable, calls=str(self.file), project=str(PROJECT))
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    def notes(self, what: str = "begin") -> list[dict]:
        lines = map(json.loads, self.file.read_text().splitlines())
        return [line for line in lines if line["what"] == what]

    def names(self) -> list[str]:
        return [note["name"] for note in self.notes()]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Have a stand-in run in place of Python."""
    made = StandIn(tmp_path)
    monkeypatch.setenv("DPLQ_PYTHON", str(made.path))
    for name in ("FAIL", "TAKES", "TOGETHER", "LOCK"):
        monkeypatch.delenv(name, raising=False)
    return made
