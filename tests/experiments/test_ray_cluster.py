"""The engine `ray` on a cluster of simulated nodes: ``python -m pytest -m ray``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import Job, open_engine
from dplq.io.exit_code import KILLED
from dplq.io.process import is_alive
from tests.runner import PROJECT

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(sys.platform != "linux", reason="the cluster's processes are in /proc"),
]
# A training of a few epochs, which goes on from the last one.
TRAIN = """
import os, signal, sys, time
from pathlib import Path
file, epochs, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
def stop(*_):
    file.with_suffix(".stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
done = len(file.read_text().splitlines()) if file.exists() else 0
for epoch in range(done, epochs):
    with file.open("a") as lines:
        lines.write(f"{epoch} {os.getpid()} {os.environ['DPLQ_JOB']}\\n")
    print("epoch", epoch, flush=True)
    time.sleep(seconds)
"""


@pytest.fixture(scope="module")
def cluster():
    from tools.ray_cluster import SimulatedCluster

    cluster = SimulatedCluster(3)
    yield cluster
    cluster.close()


@pytest.fixture
def opened(cluster):
    """Return a function that opens the engine with options."""
    engines = []

    def opened(**options):
        engines.append(open_engine("ray", {"address": cluster.address, **options}))
        return engines[-1]

    yield opened
    for engine in engines:
        engine.stop()
        engine.close()


@pytest.fixture
def engine(opened):
    return opened()


def job(name, tmp_path, *words, **environment):
    command = [sys.executable, "-c", *map(str, words)]
    return Job(name, command, {"DPLQ_JOB": name, **environment}, tmp_path / "logs" / f"{name}.log")


def train(name, tmp_path, epochs=4, seconds=0.1):
    return job(name, tmp_path, TRAIN, tmp_path / name, epochs, seconds)


def epochs_of(path):
    """The epoch, process and job of each line that a stand-in wrote."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(e), int(pid), name) for e, pid, name in map(str.split, lines)]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def ended(engine, number):
    """The next jobs that end, by name."""
    found = {}
    end = time.monotonic() + 60
    while len(found) < number and time.monotonic() < end:
        found |= {e.job.name: (e.code, e.reason) for e in engine.wait(1)}
    return found


def test_a_job_has_its_environment_log_and_exit_code(engine, tmp_path, monkeypatch):
    assert engine.slots == 3
    monkeypatch.setenv("HERE", "of this process")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # of this machine, not of a node
    names = "'HERE', 'THERE', 'CUDA_VISIBLE_DEVICES'"
    code = f"print([os.environ.get(k) or None for k in ({names})])"
    text = f"import os, sys; {code}; sys.exit('bad')"
    engine.start(job("fails", tmp_path, text, THERE="of the job"))
    engine.start(job("killed", tmp_path, "import os; os.kill(os.getpid(), 15)"))
    engine.start(Job("absent", ["no_such_program"], {}, tmp_path / "logs/absent.log"))
    there = f"on node {socket.gethostname()}"
    assert ended(engine, 3) == {
        "fails": (1, there),
        "killed": (143, there),
        "absent": (
            127,
            f"{there}: [Errno 2] No such program: 'no_such_program'. All nodes need the same "
            "folders and the same Python.",
        ),
    }
    log = (tmp_path / "logs/fails.log").read_text()
    assert log == "['of this process', 'of the job', None]\nbad\n"
    engine.start(train("good", tmp_path))
    assert ended(engine, 1) == {"good": (0, "")}
    assert [epoch for epoch, _, _ in epochs_of(tmp_path / "good")] == [0, 1, 2, 3]


def test_stop_ends_the_jobs_with_sigterm(engine, tmp_path):
    for number in range(4):  # one more than there are CPUs
        engine.start(train(f"long{number}", tmp_path, 100, 0.2))
    begun = wait_for(lambda: len(found := list(tmp_path.glob("long*"))) == 3 and found)
    wait_for(lambda: all(epochs_of(path) for path in begun))
    engine.stop()
    processes = [epochs_of(path)[0][1] for path in begun]
    assert not any(map(is_alive, processes))
    stopped = {path.stem for path in tmp_path.glob("*.stopped")}
    assert stopped == {path.name for path in begun}
    assert ended(engine, 4) == {f"long{number}": (143, "") for number in range(4)}
    engine.stop()  # there are none
    assert list(engine.wait(0)) == []


def test_the_run_of_a_killed_worker_goes_on(engine, tmp_path):
    """It ends with its worker, so that no two processes write there."""
    engine.start(train("run", tmp_path, 8, 0.2))
    _, process, _ = wait_for(lambda: epochs_of(tmp_path / "run"))[0]
    worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not is_alive(process), 2)
    assert ended(engine, 1) == {"run": (0, "")}
    lines = epochs_of(tmp_path / "run")
    assert [epoch for epoch, _, _ in lines] == list(range(8))
    assert lines[0][1] == process != lines[-1][1]


def test_no_process_outlives_the_program_that_planned(cluster, tmp_path):
    program = f"""
import sys, time
from pathlib import Path
from dplq.experiments.engines import open_engine
from tests.experiments.test_ray_cluster import train
engine = open_engine("ray", {{"address": {cluster.address!r}}})
engine.start(train("run", Path({str(tmp_path)!r}), 100, 0.2))
engine.wait(100)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT) as planner:
        _, process, _ = wait_for(lambda: epochs_of(tmp_path / "run"))[0]
        planner.kill()
    wait_for(lambda: not is_alive(process))


def test_a_run_too_large_for_the_cluster_is_refused(cluster):
    with pytest.raises(UserError) as error:
        open_engine("ray", {"address": cluster.address, "gpus": "0.5"})
    assert str(error.value).startswith(
        "No node of the Ray cluster has the cpus=1 and gpus=0.5 of a run; there are: "
    )
    assert "with CPU=1 GPU=0" in str(error.value)
    assert "Ask for less" in str(error.value)


def test_the_run_of_a_lost_node_goes_on_elsewhere(cluster, engine, tmp_path, caplog):
    names = [f"run{number}" for number in range(3)]
    for name in names:
        engine.start(train(name, tmp_path, 8, 0.25))
    wait_for(lambda: all(len(epochs_of(tmp_path / name)) >= 2 for name in names))
    node, process, command = next(cluster.running())
    name = next(Path(word).name for word in command if word.startswith(str(tmp_path)))
    cluster.kill(node)
    assert ended(engine, 3) == {name: (0, "") for name in names}
    assert engine.slots == 2
    assert not is_alive(process)
    for each in names:
        lines = epochs_of(tmp_path / each)
        assert [epoch for epoch, _, _ in lines] == list(range(8))
        assert {job for _, _, job in lines} == {each}
        assert (len({pid for _, pid, _ in lines}) == 2) is (each == name)
    assert "of the Ray cluster was lost; nodes left: 2. Its runs go on elsewhere." in caplog.text


def test_a_run_lost_for_good_is_a_failure(opened, tmp_path):
    engine = opened(retries=0)
    engine.start(train("run", tmp_path, 100, 0.2))
    _, process, _ = wait_for(lambda: epochs_of(tmp_path / "run"))[0]
    worker = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    code, reason = ended(engine, 1)["run"]
    assert code == KILLED
    assert reason.startswith("Ray lost it, with retries=0: ")


def test_runs_share_a_gpu(cluster, opened, tmp_path):
    """Ray takes our word for a GPU; a run is told its number."""
    cluster.add(cpus=2, gpus=1)
    engine = opened(gpus="0.5")
    assert engine.slots == 2
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
    wait = f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)"
    names = ("first", "second", "third")
    for name in names:
        engine.start(job(name, tmp_path, f"{code}\n{wait}"))
    logs = [tmp_path / "logs" / f"{name}.log" for name in names]
    wait_for(lambda: sum(log.exists() and log.read_text() == "0\n" for log in logs) == 2)
    assert len(list(cluster.running())) == 2  # at once, and the third one waits
    (tmp_path / "go").touch()
    assert ended(engine, 3) == {name: (0, "") for name in names}


@pytest.fixture
def session():
    """Return a folder of Ray with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        yield Path(folder)


def test_a_cluster_of_this_machine_ends_with_the_engine(tmp_path, session):
    program = f"""
from pathlib import Path
from dplq.experiments.engines import open_engine
engine = open_engine("ray", {{"jobs": "3"}})
from tests.experiments.test_ray_cluster import ended, train  # imports Ray
print(engine.slots)
for name in ("first", "second", "third"):
    engine.start(train(name, Path({str(tmp_path)!r})))
print(sorted(ended(engine, 3).items()))
engine.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        env=os.environ | {"RAY_TMPDIR": str(session)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = [(name, (0, "")) for name in ("first", "second", "third")]
    assert (done.stdout, done.stderr) == (f"3\n{expected}\n", "")
    commands = map(command, Path("/proc").glob("[0-9]*/cmdline"))
    assert [words for words in commands if str(session) in words] == []


def command(path):
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended
        return ""
