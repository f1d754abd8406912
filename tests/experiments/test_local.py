"""The engine `local`: processes, their share of the machine, and signals."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import Job, open_engine
from dplq.experiments.engines.base import THREADS
from dplq.experiments.engines.gpus import Gpu
from dplq.experiments.engines.packing import Packing
from dplq.io.exit_code import shell_code
from dplq.io.process import is_alive
from tests.runner import PROJECT

SMI = """#!{python}
import pathlib
used = [len(list(pathlib.Path({marks!r}).glob(f"{{n}}-*"))) for n in "01"]
for n in (0, 1):
    print(f"{{n}}, GPU-{{n}}abc, 10000, {{1000 + 3000 * used[n]}}")
"""
# A job that takes memory of the GPU it was given, as the stand-in above tells.
TAKE = """
import os, pathlib, sys, time
gpu = os.environ["CUDA_VISIBLE_DEVICES"].removeprefix("GPU-")[0]
mark = pathlib.Path(sys.argv[1]) / f"{gpu}-{os.getpid()}"
mark.touch()
time.sleep(float(sys.argv[2]))
mark.unlink()
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Have two GPUs of 10,000 MiB, 1,000 of them in use; a job takes 3,000."""
    marks, program = tmp_path / "marks", tmp_path / "bin/nvidia-smi"
    marks.mkdir()
    program.parent.mkdir()
    program.write_text(SMI.format(python=sys.executable, marks=str(marks)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return marks


def python(*words: object) -> tuple[str, ...]:
    return (sys.executable, "-c", *map(str, words))


def test_jobs_are_spread_over_the_gpus(smi, tmp_path):
    engine = open_engine("local", {"per_gpu": 2})
    assert engine.slots == 4
    text = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    for name in "abcd":
        engine.start(Job(name, python(text), log=tmp_path / name))
    ended = []
    while len(ended) < 4:
        ended += engine.wait(5)
    assert [(tmp_path / name).read_text().strip() for name in "abcd"] == [
        "GPU-0abc",
        "GPU-1abc",
    ] * 2


@pytest.mark.parametrize(
    ("visible", "options", "names"),
    [
        ("1", {}, ["1"]),
        ("GPU-1", {}, ["GPU-1"]),
        ("1,0", {}, ["1", "0"]),
        (None, {"gpus": "0"}, ["0"]),
        ("-1", {"gpus": "GPU-0abc"}, ["GPU-0abc"]),
    ],
)
def test_only_the_visible_gpus_are_used(smi, monkeypatch, visible, options, names):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    engine = open_engine("local", {"jobs": 4, "per_gpu": 4, **options})
    assert [gpu.name for gpu in engine._packing.gpus] == names


def test_as_many_as_the_memory_of_the_first_run_allows(smi, monkeypatch, caplog):
    """3 x 3,000 of the 9,000 MiB that are free; a tenth of them is left."""
    monkeypatch.setattr("dplq.experiments.engines.packing.EVERY", 0.05)
    monkeypatch.setattr("dplq.experiments.engines.local.cores", lambda: 64)
    caplog.set_level("INFO")
    engine = open_engine("local", {"per_gpu": "auto"})
    assert engine.slots == 2
    engine.start(Job("first", python(TAKE, smi, 0.5)))
    assert [ended.code for ended in engine.wait(20)] == [0]
    assert engine.slots == 4
    assert "2 run(s) at once on a GPU: one takes up to 3,000 MiB of the 9,000" in (caplog.text)


def test_a_larger_run_lowers_the_number_for_those_that_follow(monkeypatch):
    gpu, _ = memory(monkeypatch, total=10_000, a=1_000, b=4_000, c=0)
    packing, numbers = Packing([gpu], None), [1]
    for job in "aaaaabc":
        packing.place(job)
        packing.measure()
        packing.remove(job, well=True)
        numbers.append(packing.per_gpu)
    assert numbers == [1, 2, 4, 8, 9, 9, 2, 2]


def test_a_run_that_fails_does_not_raise_the_number(monkeypatch):
    """It may have failed before it took what it needs."""
    gpu, _ = memory(monkeypatch, total=10_000, a=100, b=1_000, c=8_000)
    packing, numbers = Packing([gpu], None), []
    for job, well in (("a", False), ("b", True), ("c", False)):
        packing.place(job)
        packing.measure()
        packing.remove(job, well=well)
        numbers.append(packing.per_gpu)
    assert numbers == [1, 2, 1], "but it may lower it"


def test_none_is_placed_where_the_memory_that_is_free_is_too_little(monkeypatch):
    gpu, taken = memory(monkeypatch, total=10_000, a=1_000)
    packing = Packing([gpu], None)
    for _ in range(3):
        packing.place("a")
        packing.measure()
        packing.remove("a", well=True)
    packing.measure()
    assert (packing.per_gpu, packing.places) == (8, 8)
    packing.place("a")
    taken["a"] = 6_000  # it grows; a second one would have no place
    packing.measure()
    assert (packing.per_gpu, packing.places) == (8, 1)
    packing.remove("a", well=False)
    assert packing.places == 1, "on an empty GPU one is always tried"


def memory(monkeypatch, total, **taken):
    """Return a GPU, and what each job takes of its memory in MiB, by name."""
    monkeypatch.setattr("dplq.experiments.engines.packing.EVERY", 0)
    gpu = Gpu("0", "0", "GPU-0", total=total, used=0)
    monkeypatch.setattr(
        "dplq.experiments.engines.packing.refresh",
        lambda gpus: setattr(gpu, "used", sum(taken[job] for job in gpu.jobs)),
    )
    return gpu, taken


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_gpu": "some"}, "Options of the engine local: per_gpu: invalid enum value"),
        ({"jobs": 0}, "Options of the engine local: jobs: expected"),
        ({"per_gpus": 1}, "has no option per_gpus. Did you mean 'per_gpu'"),
        ({"gpus": "0,7"}, r"there is no GPU 7. nvidia-smi lists: 0 \(GPU-0abc\), 1"),
        ({"gpus": "", "per_gpu": 1}, "nvidia-smi finds no GPU that may be used"),
    ],
)
def test_bad_options(smi, options, message):
    with pytest.raises(UserError, match=message):
        open_engine("local", options)


def test_sharing_without_gpus_is_refused(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="per_gpu is auto, but nvidia-smi finds no GPU"):
        open_engine("local", {"per_gpu": "auto"})
    assert open_engine("local", {"jobs": 3}).slots == 3


def test_a_program_that_is_missing(tmp_path):
    engine = open_engine("local", {})
    with pytest.raises(UserError, match=r"A run cannot be started: .*no_such_program: No such"):
        engine.start(Job("a", [str(tmp_path / "no_such_program")]))
    with pytest.raises(UserError, match=r"A run cannot be started: .*missing/log: No such"):
        engine.start(Job("a", python("pass"), log=tmp_path / "missing/log"))
    assert list(engine.wait(0)) == []


@pytest.mark.parametrize("name", THREADS)
def test_threads_that_the_user_sets_in_either_way_stay(tmp_path, monkeypatch, name):
    for other in THREADS:
        monkeypatch.delenv(other, raising=False)
    engine = open_engine("local", {"jobs": 2, "threads": 3})
    text = f"import os; print(*map(os.environ.get, {THREADS}))"
    engine.start(Job("a", python(text), log=tmp_path / "a"))
    monkeypatch.setenv(name, "7")
    engine.start(Job("b", python(text), log=tmp_path / "b"))
    ended = []
    while len(ended) < 2:
        ended += engine.wait(5)
    wanted = " ".join("7" if other == name else "None" for other in THREADS)
    assert [(tmp_path / log).read_text().strip() for log in "ab"] == ["3 3", wanted]


def test_codes_are_those_of_a_shell():
    assert [shell_code(code) for code in (0, 7, -9)] == [0, 7, 137]


PLAN = """
import sys
from pathlib import Path
from dplq.experiments.base2new import base2new
from dplq.experiments.series import Series
from dplq.experiments.engines import open_engine
from dplq.experiments.execute import execute
out = Path(sys.argv[1])
plan = base2new(Series("demo_aerial", "CoOp", "demo", seeds=[1, 2, 3], out=out))
sys.exit(execute(plan, open_engine("local", {"jobs": 2})))
"""
STUBBORN = """#!{python}
import os, pathlib, signal, sys, time
if {deaf}:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
pathlib.Path({pids!r}, str(os.getpid())).touch()
time.sleep(60)
"""


@pytest.fixture
def sweep(tmp_path):
    """Return a function that starts a plan of sleeping runs, and has their ids."""

    def start(deaf=False):
        pids, program = tmp_path / "pids", tmp_path / "python"
        pids.mkdir()
        program.write_text(STUBBORN.format(python=sys.executable, deaf=deaf, pids=str(pids)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        process = subprocess.Popen(
            [sys.executable, "-c", PLAN, str(tmp_path / "out")],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "DPLQ_PYTHON": str(program)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wait_until(lambda: len(list(pids.iterdir())) == 4)
        return process, [int(path.name) for path in pids.iterdir()]

    return start


def wait_until(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_runs_and_the_plan(sweep, number):
    process, pids = sweep()
    process.send_signal(number)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 128 + number
    assert "stopped; to go on, give the same command again\n" in err
    assert "failed" not in err
    leaders = [pid for pid in pids if not is_alive(pid)]
    assert len(leaders) >= 2
    for pid in pids:
        if pid not in leaders:
            os.kill(pid, signal.SIGKILL)  # what our stand-in forked


def test_a_second_ctrl_c_kills_the_runs_with_their_children(sweep):
    process, pids = sweep(deaf=True)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None, "it waits for its runs"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_runs_end_with_a_plan_that_is_killed(sweep):
    process, pids = sweep()
    process.kill()
    process.communicate(timeout=20)
    wait_until(lambda: sum(map(is_alive, pids)) <= 2)
    for pid in filter(is_alive, pids):
        os.kill(pid, signal.SIGKILL)
