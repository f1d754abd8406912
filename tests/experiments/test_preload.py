"""Runs that are forked from a process with the imports: they are as ones that were started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import Job, open_engine, preload
from dplq.experiments.engines.local import LocalEngine
from dplq.experiments.engines.preload import SERVER, Forked
from dplq.experiments.plan import train_command
from dplq.io.process import is_alive
from tests.runner import PROJECT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
# The last argument of a run is its code, and nothing is imported before.
QUICK = SERVER.replace(
    "arguments = serve",
    "from dplq.experiments.engines import preload_server as server\n"
    "server.import_all = lambda: {imports}\narguments = serve",
).replace("from dplq.__main__ import main", "main = lambda words: exec(words[-1], {{}})")
SAYS = """
import numpy, random, sys, torch
print(random.random(), numpy.random.random(), float(torch.rand(1)))
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
import sys, torch
from dplq.experiments.engines.preload_server import MODULES, import_all
def looks(*args, **kwargs):
    raise SystemExit("looked for a GPU")
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device"):
    setattr(torch.cuda, name, looks)
import_all()
print([name for name in MODULES if name not in sys.modules], sys.modules.get("wandb", "absent"))
"""
ENGINE = """
import sys, time
from dplq.experiments.engines import Job, preload
from dplq.experiments.engines.local import LocalEngine
preload.SERVER = sys.argv[2]
engine = LocalEngine()
engine.start(Job(sys.argv[1], ["no such program"], {"DPLQ_JOB": sys.argv[1]}, None, [sys.argv[3]]))
time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    """Return a function that makes an engine whose runs are code; its imports are code, too."""
    engines = []

    def make(imports="None", **options):
        monkeypatch.setattr(preload, "SERVER", QUICK.replace("{imports}", imports))
        engines.append(LocalEngine(jobs=4, **options))
        return engines[-1]

    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield make
    for engine in engines:
        engine.close()


def job(name, code, log, command=("no such program",), **variables):
    return Job(str(name), command, {"DPLQ_JOB": str(name), **variables}, log, [code])


def ends(engine, number):
    ended, until = [], time.monotonic() + 60
    while len(ended) < number:
        assert time.monotonic() < until
        ended += engine.wait(1)
    return {end.job.name: end for end in ended}


def pids_of(path):
    """Return what a sleeping run writes: its process, its child and its session."""
    wait_until(lambda: path.exists() and path.read_text().count(" ") == 2)
    return [int(word) for word in path.read_text().split()]


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_runs_of_the_real_command(tmp_path):
    """Outputs are those of a new process, and nothing is drawn alike."""
    (tmp_path / "says.py").write_text(SAYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{PROJECT}")
        engine = open_engine("local", {"jobs": 4})
        given = {
            "mistake": ["--trainer", "CoOpp"],
            "one": ["--import", "says", "--trainer", "CoOp"],
            "two": ["--import", "says", "--trainer", "CoOp"],
        }
        for name, words in given.items():
            command = [*train_command(), *words]
            engine.start(Job(name, command, {}, tmp_path / name, words))
        engine.start(Job("anew", [*train_command(), *given["mistake"]], {}, tmp_path / "anew"))
        done = ends(engine, 4)
        engine.close()
    codes = {name: end.code for name, end in done.items()}
    assert codes == {"mistake": 2, "anew": 2, "one": 7, "two": 7}
    texts = {name: (tmp_path / name).read_text() for name in done}
    assert texts["mistake"] == texts["anew"]
    assert "Did you mean 'CoOp'" in texts["mistake"]
    assert len({number for name in ("one", "two") for number in texts[name].split()}) == 6


def test_output_environment_and_code_are_a_process_s_own(quick, tmp_path):
    engine = quick(imports="print('of an import')")
    code = (
        "import os, sys; print(os.environ['DPLQ_JOB'], os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "print(sys.argv[:2], file=sys.stderr)\nraise SystemExit(int(os.environ['DPLQ_JOB']))"
    )
    for number in "34":
        engine.start(job(number, code, tmp_path / number, CUDA_VISIBLE_DEVICES=f"GPU-{number}"))
    assert {name: end.code for name, end in ends(engine, 2).items()} == {"3": 3, "4": 4}
    for number in "34":
        lines = (tmp_path / number).read_text().splitlines()
        assert lines[0] == "of an import"
        assert sorted(lines[1:]) == [f"{number} GPU-{number}", "['dplq', 'train']"]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_runs_are_ended_and_killed_with_their_children(quick, tmp_path):
    engine, names = quick(), [tmp_path / name for name in "abc"]
    for name in names:
        engine.start(job(name, SLEEPS, tmp_path / "log"))
    pids = [pids_of(name) for name in names]
    for pid, _, session in pids:
        assert pid == session != os.getsid(0), "Ctrl-C in a terminal does not reach it"
    first, second, third = (process for _, process in engine._processes.values())
    first.terminate()
    assert first.wait() == -signal.SIGTERM
    assert is_alive(pids[0][1])
    for process in (first, second):
        process.kill()
    assert second.returncode == -signal.SIGKILL
    engine.stop()
    assert third.returncode == -signal.SIGTERM
    assert [end.code for end in ends(engine, 3).values()] == [143, 137, 143]
    third.kill()
    wait_until(lambda: not any(map(is_alive, [pid for each in pids for pid in each[:2]])))


def test_ctrl_c_and_ctrl_backslash_do_not_reach_runs_or_their_server(quick, tmp_path):
    """They come to all processes of a terminal; the engine passes one signal on."""
    engine = quick()
    code = "import signal; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    engine.start(job("a", f"{code}; import time; time.sleep(0.5)", None))
    wait_until(lambda: engine.wait(0.1) == [] and engine._servers[0]._ready)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        engine._servers[0]._process.send_signal(number)
    assert ends(engine, 1)["a"].code == 0


def test_a_log_that_cannot_be_written_is_named(quick, tmp_path, capfd):
    engine = quick(imports="__import__('time').sleep(60)")
    with pytest.raises(UserError, match=r"A run cannot be started: .*missing/log: No such file"):
        engine.start(job("a", "", tmp_path / "missing/log"))
    assert list(engine.wait(0)) == []
    before = time.monotonic()
    engine.close()
    assert time.monotonic() - before < 30, "it does not wait for the imports"
    assert capfd.readouterr().err == ""


def test_a_stop_does_not_wait_for_the_imports(quick, tmp_path):
    engine = quick(imports="__import__('time').sleep(60)")
    engine.start(job("a", "", tmp_path / "a"))
    engine.stop()
    assert [end.code for end in engine.wait(1)] == [143]
    assert (tmp_path / "a").read_text() == ""


def test_many_runs_are_started_while_the_imports_go_on(quick, tmp_path):
    engine, large = quick(imports="__import__('time').sleep(2)"), {"DPLQ_SETTINGS": "x" * 20_000}
    before = time.monotonic()
    for number in range(30):
        engine.start(job(number, "", tmp_path / str(number), **large))
    assert time.monotonic() - before < 1.8, "a socket would be full"
    assert {end.code for end in ends(engine, 30).values()} == {0}


@pytest.mark.parametrize("imports", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_where_the_imports_fail_runs_are_started_anew(quick, tmp_path, caplog, imports):
    engine = quick(imports=f"exec('import os, sys; {imports}')")
    for name in "ab":
        command = [
            sys.executable,
            "-c",
            f"import os; print('anew', os.environ['DPLQ_JOB'], {name!r})",
        ]
        engine.start(job(name, "", tmp_path / name, command))
        assert ends(engine, 1)[name].code == 0
        assert (tmp_path / name).read_text() == f"anew {name} {name}\n"
    assert caplog.messages == [
        "Runs import the libraries themselves from now on: the process that starts the runs ended "
        "while it imported the libraries."
    ]


def test_where_a_process_cannot_be_forked_it_is_started_anew(quick, tmp_path, caplog):
    failing = "def fork(): raise OSError(12, 'Cannot allocate memory')\nimport os\nos.fork = fork"
    engine = quick(imports=f"exec({failing!r})")
    engine.start(job("a", "", tmp_path / "a", [sys.executable, "-c", "print('anew')"]))
    engine.start(job("b", "", tmp_path / "b"))
    done = ends(engine, 2)
    assert (done["a"].code, (tmp_path / "a").read_text()) == (0, "anew\n")
    assert done["b"].reason == "it cannot be started: No such file or directory"
    assert "no process can be forked (Cannot allocate memory)" in caplog.messages[0]


def test_runs_end_with_the_process_that_starts_them(quick, tmp_path):
    """The next ones have another."""
    engine = quick()
    engine.start(job(tmp_path / "a", SLEEPS, tmp_path / "log"))
    pid, child, _ = pids_of(tmp_path / "a")
    engine._servers[0]._process.kill()
    (end,) = ends(engine, 1).values()
    assert (end.code, end.reason) == (137, "the process that starts the runs was killed")
    wait_until(lambda: not is_alive(pid))
    os.kill(child, signal.SIGKILL)
    engine.start(job("b", "raise SystemExit(5)", tmp_path / "b"))
    assert ends(engine, 1)["b"].code == 5


def test_what_cannot_be_handed_over_is_started_anew(quick, tmp_path, monkeypatch):
    engine, command = quick(), [sys.executable, "-c", "print('anew')"]
    engine.start(job("a", "\udcff", tmp_path / "a", command))
    monkeypatch.setattr(socket.socket, "sendall", broken)
    engine.start(job("b", "", tmp_path / "b", command))
    assert {end.code for end in ends(engine, 1).values()} == {0}
    monkeypatch.undo()


def broken(*_):
    raise BrokenPipeError


def test_another_environment_has_another_server(quick, tmp_path, monkeypatch):
    """Libraries read variables while they are imported."""
    engine = quick(imports="print(__import__('os').environ.get('OMP_NUM_THREADS'))")
    for number in ("3", "3", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        engine.start(job(number, "", tmp_path / number))
        ends(engine, 1)
    assert [(tmp_path / number).read_text() for number in "35"] == ["3\n3\n", "5\n"]
    assert len(engine._servers) == 1, "one that is idle is ended"


def test_preload_false_forks_none(tmp_path):
    engine = open_engine("local", {"preload": False})
    engine.start(job("a", "", tmp_path / "a", [sys.executable, "-c", "print('anew')"]))
    assert not any(isinstance(process, Forked) for _, process in engine._processes.values())
    assert ends(engine, 1)["a"].code == 0


def test_runs_end_with_an_engine_that_is_killed(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            ENGINE,
            str(tmp_path / "a"),
            QUICK.replace("{imports}", "0"),
            SLEEPS,
        ],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    pid, child, _ = pids_of(tmp_path / "a")
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(pid))
    os.kill(child, signal.SIGKILL)


def test_a_temporary_folder_of_an_import_remains_when_a_run_ends(quick, tmp_path):
    """PyTorch 2.4 makes one; the server deletes it at its end."""
    engine = quick(imports="setattr(sys, 'made', __import__('tempfile').TemporaryDirectory())")
    code = "import os, sys; print(sys.made.name, os.path.isdir(sys.made.name))"
    for name in "ab":
        engine.start(job(name, code, tmp_path / name))
        ends(engine, 1)
    folder, there = (tmp_path / "b").read_text().split()
    assert (tmp_path / "a").read_text().split() == [folder, there] == [folder, "True"]
    engine.close()
    wait_until(lambda: not os.path.exists(folder))


def test_imports_look_for_no_gpu():
    """A process that has done so must not fork."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] absent\n", "")


def test_the_engine_can_be_imported_where_signals_are_missing():
    """As on Windows."""
    code = "import signal; del signal.SIGHUP, signal.SIGQUIT; import dplq.experiments.execute"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)
    assert done.returncode == 0
