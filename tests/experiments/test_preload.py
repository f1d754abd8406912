"""Runs that are forked from a process with the imports: they are as ones that were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from dplq.experiments.engines import Job
from dplq.experiments.engines.local import LocalEngine
from dplq.experiments.engines.preload_server import MODULES
from dplq.experiments.plan import train_command
from dplq.io.process import is_alive
from tests.runner import PROJECT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
SAYS = """
import numpy, os, random, sys
print(os.environ.get("DPLQ_JOB"), os.environ.get("CUDA_VISIBLE_DEVICES"), sys.argv[1:])
print(random.random(), numpy.random.random())
print("on stderr", file=sys.stderr)
raise SystemExit(7)
"""
SLEEPS = """
import os, pathlib, time
child = os.fork()
if child:
    pathlib.Path(os.environ["DPLQ_JOB"]).write_text(f"{os.getpid()} {child} {os.getsid(0)}")
time.sleep(60)
"""
IMPORTS = """
import importlib, torch
def looks(*args, **kwargs):
    raise SystemExit("looked for a GPU")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, looks)
for name in {modules}:
    importlib.import_module(name)
"""
KILLED = """
import sys, time
from dplq.experiments.engines import Job
from dplq.experiments.engines.local import LocalEngine
engine = LocalEngine()
engine.start(Job(sys.argv[1], ["no such program"], {{"DPLQ_JOB": sys.argv[1]}}, None, {words!r}))
time.sleep(60)
"""


def words(module):
    """Return the arguments of a run that imports a module, and does nothing before."""
    return ["--import", module, "--trainer", "CoOp"]


def job(name, module, log, **variables):
    """Return a job that can only be forked; a server is for one environment."""
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    return Job(name, ["no such program"], {"DPLQ_JOB": name, **variables}, log, words(module))


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "says.py").write_text(SAYS)
    (folder / "sleeps.py").write_text(SLEEPS)
    return folder


@pytest.fixture(scope="module")
def engine(modules):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{PROJECT}")
        engine = LocalEngine(jobs=4)
        yield engine
        engine.close()


def ends(engine, number):
    ended, until = [], time.monotonic() + 60
    while len(ended) < number:
        assert time.monotonic() < until
        ended += engine.wait(1)
    return {end.job.name: end for end in ended}


def wait_for(path):
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text().count(" ") == 2):
        assert time.monotonic() < until
        time.sleep(0.02)
    return [int(word) for word in path.read_text().split()]


def test_the_environment_the_output_and_the_code_are_a_process_s_own(engine, tmp_path):
    for number in (0, 1):
        name = f"job{number}"
        engine.start(job(name, "says", tmp_path / name, CUDA_VISIBLE_DEVICES=str(number)))
    codes = {name: end.code for name, end in ends(engine, 2).items()}
    assert codes == {"job0": 7, "job1": 7}
    texts = [(tmp_path / name).read_text().splitlines() for name in ("job0", "job1")]
    for number, text in enumerate(texts):
        assert f"job{number} {number} {['train', *words('says')]}" in text
        assert "on stderr" in text
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    drawn = [line for text in texts for line in text if line.startswith("0.")]
    assert len(drawn) == 2
    assert len({number for line in drawn for number in line.split()}) == 4, "not seeded alike"


def test_a_help_text_and_a_mistake_are_those_of_the_command(engine, tmp_path):
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    for name, given in (("help", ["--help"]), ("mistake", ["--trainer", "CoOpp"])):
        command = [*train_command(), *given]
        engine.start(Job(name, command, {}, tmp_path / f"{name}_forked", given))
        engine.start(Job(f"{name} anew", command, {}, tmp_path / name))
        done = ends(engine, 2)
        assert done[name].code == done[f"{name} anew"].code == (2 if name == "mistake" else 0)
        text = (tmp_path / name).read_text()
        assert (tmp_path / f"{name}_forked").read_text() == text
        assert ("Did you mean 'CoOp'" if name == "mistake" else "usage: ") in text


def test_runs_are_ended_and_killed_with_their_children(engine, tmp_path):
    names = [str(tmp_path / name) for name in "ab"]
    for name in names:
        engine.start(job(name, "sleeps", tmp_path / "log"))
    pids = [wait_for(tmp_path / name) for name in "ab"]
    for pid, _, session in pids:
        assert pid == session != os.getsid(0), "Ctrl-C in a terminal does not reach it"
    processes = [process for _, process in engine._processes.values()]
    processes[0].terminate()
    assert processes[0].wait() == 143, "as `dplq train` answers to SIGTERM"
    assert "Interrupted." in (tmp_path / "log").read_text()
    processes[1].kill()
    assert processes[1].wait() == -signal.SIGKILL
    assert {end.code for end in ends(engine, 2).values()} == {143, 137}
    os.kill(pids[0][1], signal.SIGKILL)
    until = time.monotonic() + 20
    while any(map(is_alive, [pid for pair in pids for pid in pair[:2]])):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_log_that_cannot_be_written_is_named(engine, tmp_path):
    from dplq.errors import UserError

    with pytest.raises(UserError, match=r"A run cannot be started: .*missing/log: No such file"):
        engine.start(job("a", "says", tmp_path / "missing/log"))
    assert list(engine.wait(0)) == []


def test_runs_end_with_the_process_that_starts_them(engine, tmp_path):
    """The next ones have another."""
    engine.start(job(str(tmp_path / "a"), "sleeps", tmp_path / "log"))
    pid, child, _ = wait_for(tmp_path / "a")
    (server,) = engine._servers
    server._process.kill()
    (end,) = ends(engine, 1).values()
    assert (end.code, end.reason) == (137, "the process that starts the runs was killed")
    until = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    server._process.wait()
    assert not server.is_alive


def test_a_stop_does_not_wait_for_the_imports(tmp_path):
    engine = LocalEngine()
    engine.start(job("a", "says", tmp_path / "a"))
    engine.stop()
    assert [end.code for end in engine.wait(1)] == [143]
    assert (tmp_path / "a").read_text() == ""
    engine.close()


def test_runs_end_with_an_engine_that_is_killed(modules, tmp_path):
    name = str(tmp_path / "a")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(words=words("sleeps")), name],
        env={**os.environ, "PYTHONPATH": f"{modules}{os.pathsep}{PROJECT}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pid, child, _ = wait_for(tmp_path / "a")
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)


def test_no_import_looks_for_a_gpu():
    """A process that has done so must not fork."""
    code = IMPORTS.format(modules=MODULES)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
