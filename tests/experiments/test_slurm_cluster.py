"""The engine slurm on a cluster of one node on the loopback: ``python -m pytest -m slurm``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import Job, open_engine
from dplq.io.runs.lock import JOB_VARIABLE, OWNER_FILE
from tools import slurm_cluster

pytest.importorskip("submitit")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(
        not slurm_cluster.is_installed(), reason="needs root, and Debian's slurm-wlm and munge"
    ),
]
OPTIONS = {"gpus": 0, "time": 5}
PATIENCE = 60.0
# Stands for a training: an epoch a line of the file `epochs`, where it goes on.
EPOCHS = """
import os, pathlib, sys, time
from dplq.io.runs.lock import RunLock
folder, epochs, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
folder.mkdir(exist_ok=True)
if (folder / "results.json").exists():
    sys.exit(print("already finished"))
lock = RunLock(folder)
try:
    lock.acquire()
except Exception as error:
    sys.exit(print(error) or 2)
done = folder / "epochs"
begun = len(done.read_text().split()) if done.exists() else 0
print("begins after epoch", begun, flush=True)
for epoch in range(begun, epochs):
    time.sleep(seconds)
    with done.open("a") as file:
        print(epoch, file=file)
(folder / "results.json").write_text("{}")
lock.release()
"""


@pytest.fixture(scope="module")
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for the path of a socket
    try:
        with slurm_cluster.running(folder):
            yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def engine(cluster):
    opened = open_engine("slurm", OPTIONS)
    yield opened
    opened.stop()


def training(folder, name="run", epochs=4, seconds=1.0):
    command = [sys.executable, "-c", EPOCHS, str(folder / name), str(epochs), str(seconds)]
    return Job(name, command, {JOB_VARIABLE: name}, folder / "logs" / f"{name}.txt")


def all_ended(engine, count):
    ended = []
    deadline = time.monotonic() + PATIENCE
    while len(ended) < count and time.monotonic() < deadline:
        ended += engine.wait(1)
    return {end.job.name: (end.code, end.reason) for end in ended}


def until(engine, condition):
    """Let an engine work until something is so; nothing may end before."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert engine.wait(0.2) == []
        assert time.monotonic() < deadline


def epochs(folder, name="run"):
    path = folder / name / "epochs"
    return path.read_text().split() if path.exists() else []


def begins(folder, name="run"):
    return (folder / "logs" / f"{name}.txt").read_text().count("begins after epoch")


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def number(engine):
    (found,) = engine.jobs
    return found


def test_an_array_of_three(engine, tmp_path):
    for code in range(3):
        command = ["sh", "-c", f"echo $A; exit {code}"]
        log = tmp_path / f"{code}.txt"
        engine.start(Job(str(code), command, {"A": f"value {code}"}, log))
    assert all_ended(engine, 3) == {"0": (0, ""), "1": (1, ""), "2": (2, "")}
    assert (tmp_path / "2.txt").read_text() == "value 2\n"
    (files,) = (tmp_path / ".slurm").iterdir()
    assert not list(files.glob("*_0_submitted.pkl")), "the files of what went well are deleted"
    assert len(list(files.glob("*_submitted.pkl"))) == 2


def check_it_goes_on_after(command, engine, tmp_path):
    """Check that a job is begun a second time after a command about it, and goes on."""
    engine.start(training(tmp_path))
    until(engine, lambda: epochs(tmp_path))
    slurm(*command, number(engine))
    assert all_ended(engine, 1) == {"run": (0, "")}
    assert begins(tmp_path) == 2
    assert epochs(tmp_path) == ["0", "1", "2", "3"]


def check_one_is_preempted_and_goes_on(engine, tmp_path):
    """Check that of two jobs, one for each CPU, one makes place for another and goes on."""
    for name in ("a", "b"):
        engine.start(training(tmp_path, name))
    until(engine, lambda: epochs(tmp_path, "a") and epochs(tmp_path, "b"))
    slurm("sbatch", "--partition=high", "--output=/dev/null", "--wrap=sleep 1")
    assert all_ended(engine, 2) == {"a": (0, ""), "b": (0, "")}
    assert begins(tmp_path, "a") + begins(tmp_path, "b") == 3
    assert epochs(tmp_path, "a") == epochs(tmp_path, "b") == ["0", "1", "2", "3"]


def test_a_requeued_job_goes_on_from_its_last_epoch(engine, tmp_path):
    check_it_goes_on_after(("scontrol", "requeue"), engine, tmp_path)


def test_a_preempted_job_goes_on_from_its_last_epoch(engine, tmp_path):
    check_one_is_preempted_and_goes_on(engine, tmp_path)


def test_a_job_that_ends_in_its_grace_time_is_put_back_by_itself(cluster, tmp_path, monkeypatch):
    engine = open_engine("slurm", OPTIONS | {"partition": "grace"})
    monkeypatch.setattr(engine, "_goes_on", lambda *given: False)  # as without this process
    check_one_is_preempted_and_goes_on(engine, tmp_path)


def test_the_notice_of_a_time_limit_puts_a_job_into_the_queue(engine, tmp_path):
    """Slurm sends it a minute before the limit; here it is sent by hand."""
    check_it_goes_on_after(("scancel", "--signal=USR2"), engine, tmp_path)


def test_a_cancelled_job_has_failed(engine, tmp_path):
    engine.start(training(tmp_path, epochs=60))
    until(engine, lambda: epochs(tmp_path))
    slurm("scancel", number(engine))
    assert all_ended(engine, 1) == {"run": (143, "cancelled (scancel)")}


def test_stop_leaves_nothing_in_the_queue(engine, tmp_path):
    for name in ("a", "b", "c"):
        engine.start(training(tmp_path, name, epochs=60))
    until(engine, lambda: epochs(tmp_path, "a"))
    engine.stop()
    assert slurm("squeue", "--noheader") == ""
    assert sorted(ended.job.name for ended in engine.wait(5)) == ["a", "b", "c"]
    assert engine.wait(1) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"partition": "nope"}, "invalid partition specified: nope"),
        ({"gpus": 1}, "Invalid generic resource (gres) specification"),
        ({"extra": {"nodelist": "node17"}}, "Invalid node name specified"),
    ],
)
def test_what_the_cluster_refuses_is_one_line(cluster, tmp_path, options, words):
    engine = open_engine("slurm", OPTIONS | options)
    engine.start(training(tmp_path))
    with pytest.raises(UserError) as error:
        engine.wait(0)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"time": "2-00:00:00"}, {"cpus": 64}])
def test_what_the_partition_never_gives_is_said(cluster, tmp_path, caplog, options):
    engine = open_engine("slurm", OPTIONS | options)
    engine.start(training(tmp_path))
    assert engine.wait(3) == []
    engine.stop()
    (said,) = caplog.messages
    assert said.startswith("Slurm's job ")
    assert "waits: PartitionConfig. It may ask for more than the partition gives" in said


def test_a_job_that_cannot_start_says_where_to_find_why(cluster, tmp_path):
    engine = open_engine("slurm", OPTIONS | {"setup": ["echo no such module >&2; exit 1"]})
    engine.start(training(tmp_path))
    ((code, reason),) = all_ended(engine, 1).values()
    assert code == 1
    assert Path(reason.removeprefix("it did not start: see ")).read_text() == "no such module\n"


def test_a_second_front_does_not_run_a_job_twice(engine, tmp_path):
    """The first one was killed: its jobs go on, one under way and one in the queue."""
    for name in ("a", "b"):
        engine.start(training(tmp_path, name, epochs=6))
    until(engine, lambda: epochs(tmp_path, "a") and epochs(tmp_path, "b"))
    second = open_engine("slurm", OPTIONS)
    slurm("sbatch", "--partition=high", "--output=/dev/null", "--wrap=sleep 1")  # b or a waits
    for name in ("a", "b"):
        again = training(tmp_path, name, epochs=6)
        second.start(Job(f"{name}2", again.command, {JOB_VARIABLE: f"{name}2"}, again.log))
    codes = {
        name: code for name, (code, _) in (all_ended(second, 2) | all_ended(engine, 2)).items()
    }
    for name in ("a", "b"):  # whoever comes second is refused, or finds it finished
        assert {codes[name], codes[f"{name}2"]} in ({0}, {0, 2})
        assert epochs(tmp_path, name) == [str(epoch) for epoch in range(6)]


# A front: three runs of five epochs, of which two fit on the node at a time.
FRONT = """
import sys
from pathlib import Path
from dplq.experiments.engines import open_engine
from dplq.experiments.execute import execute
from dplq.experiments.plan import Plan, Run
from tests.experiments.test_slurm_cluster import EPOCHS, OPTIONS

class StandIn(Run):
    command = property(lambda run: [sys.executable, "-c", EPOCHS, str(run.folder), "5", "1"])
    settings = lambda run: ""
    check_folder = lambda run: None

out = Path(sys.argv[1])
names = ("a", "b", "c")
runs = [StandIn(out / name / "seed1", "data", "CoOp", "demo", 1, 16, "all") for name in names]
sys.exit(execute(Plan(runs, []), open_engine("slurm", OPTIONS)))
"""


@pytest.mark.parametrize(("number", "left"), [(signal.SIGKILL, 3), (signal.SIGTERM, 0)])
def test_what_a_command_left_is_taken_up(cluster, tmp_path, number, left):
    """Two of its jobs run, one is in the queue; nothing is run twice."""
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", FRONT, str(tmp_path)]
    first = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while sum(bool(epochs(tmp_path / name, "seed1")) for name in "abc") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(number)
    _, said = first.communicate()
    assert first.returncode == (-9 if left else 143)
    assert ("give the same command again" in said) == (not left)
    assert len(slurm("squeue", "--noheader", "--array").splitlines()) == left
    second = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert ("running elsewhere" in second.stdout + second.stderr) == bool(left)
    for name in "abc":
        assert epochs(tmp_path / name, "seed1") == ["0", "1", "2", "3", "4"]


def test_a_lost_job_of_another_host_is_taken_over(engine, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "epochs").write_text("0\n1\n")
    (folder / OWNER_FILE).write_text('{"pid": 1234, "host": "node17", "job": "run"}')
    engine.start(training(tmp_path))
    assert all_ended(engine, 1) == {"run": (0, "")}
    assert epochs(tmp_path) == ["0", "1", "2", "3"]
    assert os.listdir(folder).count(OWNER_FILE) == 0


def test_the_job_of_a_lost_node_goes_on_when_there_is_one(engine, tmp_path):
    engine.start(training(tmp_path))
    until(engine, lambda: epochs(tmp_path))
    node = slurm("sinfo", "--noheader", "--format=%n").split()[0]
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    slurm("scontrol", "update", f"nodename={node}", "state=resume")
    assert all_ended(engine, 1) == {"run": (0, "")}
    assert begins(tmp_path) == 2
    assert epochs(tmp_path) == ["0", "1", "2", "3"]
