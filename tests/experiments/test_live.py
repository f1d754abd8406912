"""The table of a plan's runs on a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from dplq.experiments.base2new import base2new
from dplq.experiments.live import LiveTable
from dplq.experiments.schedule import Schedule, Stage
from dplq.experiments.series import Series
from tests.experiments.stand_in import stand_in  # noqa: F401  (a fixture)
from tests.runner import PROJECT


def shown(table: LiveTable, items, height=20) -> str:
    with table.shown(items):
        console = Console(file=io.StringIO(), width=120, height=height)
        console.print(table.table())
        return console.file.getvalue()


def schedule(tmp_path: Path, seeds=(1, 2, 3)) -> Schedule:
    return Schedule(base2new(Series("demo_aerial", "CoOp", "demo", seeds=seeds, out=tmp_path)).runs)


def console(height=20) -> Console:
    return Console(file=io.StringIO(), width=120, height=height, force_terminal=True)


def test_the_table_shows_what_runs_and_what_failed(tmp_path):
    plan = schedule(tmp_path)
    table = LiveTable(console())
    first, second, third = plan.items[::2]
    first.stage, first.since = Stage.RUNNING, time.monotonic() - 3725
    first.run.folder.mkdir(parents=True)
    (first.run.folder / "log.txt").write_text("epoch [3/50] batch [1/2] loss 0.25 (0.3)\n")
    second.stage, second.reason = Stage.ELSEWHERE, "process 12 on node7"
    plan.fail(third, 7, "ValueError: no luck")
    table.failed(third)
    lines = shown(table, plan.items).splitlines()
    assert lines[0] == "6 runs: 2 waiting, 1 running, 1 running elsewhere, 1 failed, 1 skipped"
    name = "CoOp, 16 shots: train on the base classes of demo_aerial, seed"
    assert lines[2].split() == ["running", *f"{name} 1 3/50 0.25 1:02:05".split()]
    assert lines[3].split() == ["elsewhere", *f"{name} 2 process 12 on node7".split()]
    assert lines[4].startswith(f"failed: {name} 3: ValueError: no luck")


PLAN = """
import sys
from pathlib import Path
from dplq.experiments.base2new import base2new
from dplq.experiments.series import Series
from dplq.experiments.engines import open_engine
from dplq.experiments.execute import execute
plan = base2new(Series("demo_aerial", "CoOp", "demo", seeds=[1, 2], out=Path(sys.argv[1])))
sys.exit(execute(plan, open_engine("local", {"jobs": 2}), live=True))
"""


def test_the_table_on_a_terminal(tmp_path, stand_in):  # noqa: F811
    terminal, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(PROJECT), "FAIL": "train 2", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", PLAN, str(tmp_path / "out")],
        env={**env, "COLUMNS": "140", "LINES": "30"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while block := os.read(terminal, 4096):
            text += block
    os.close(terminal)
    assert process.wait(timeout=20) == 7
    lines = text.decode().replace("\r", "").splitlines()
    assert any(line.endswith("4 runs: 2 finished, 1 failed, 1 skipped") for line in lines)
    name = "train on the base classes of demo_aerial, seed 2"
    assert f"  failed (exit code 7): {name}: ValueError: no luck. Its log: {tmp_path}" in (
        "\n".join(lines)
    )
    assert "working on" not in text.decode(), "the output of the runs is in their logs"


def test_the_table_fits_the_terminal(tmp_path):
    plan = schedule(tmp_path, seeds=range(40))
    for item in plan.items[::2]:
        item.stage = Stage.RUNNING
    lines = shown(LiveTable(console(height=12)), plan.items).splitlines()
    assert len(lines) < 12
    assert "40 running" in lines[0]
    assert "(32 more than fit here)" in lines[0]
