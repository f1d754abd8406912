"""The engine `ray`, as far as that needs no cluster."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time

import pytest

from dplq.errors import UserError
from dplq.experiments.engines import open_engine
from dplq.experiments.engines.base import THREADS
from dplq.experiments.engines.ray import Settings, task
from dplq.experiments.engines.ray.cluster import fitting, needs
from dplq.experiments.engines.ray.task import NOT_STARTED, carry_out

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")


def test_without_ray_its_install_line_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError) as error:
        open_engine("ray", {})
    assert str(error.value) == ("The engine ray needs Ray: pip install ray")


@needs_ray
def test_a_cluster_that_does_not_answer():
    with socket.socket() as free:  # bound, but nobody listens
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            began = time.monotonic()
            with pytest.raises(
                UserError, match=f"^No Ray cluster answers at address={given} .*refused"
            ):
                open_engine("ray", {"address": given})
            assert time.monotonic() - began < 6
    with pytest.raises(UserError, match=r"^address=node1 is none of a Ray cluster: auto, "):
        open_engine("ray", {"address": "node1"})


def test_as_many_runs_as_each_node_has_room_for():
    nodes = [{"Resources": {"CPU": 16.0, "GPU": 2.0}}, {"Resources": {"CPU": 6.0, "GPU": 1.0}}]
    for settings, number in (
        ({}, 3),  # a GPU each
        ({"gpus": 0}, 22),
        ({"gpus": 0.25}, 8 + 4),
        ({"gpus": 1 / 3}, 6 + 3),
        ({"gpus": 0.1, "cpus": 4}, 4 + 1),
        ({"gpus": 2}, 1),
        ({"cpus": 0.5, "gpus": 0}, 44),
        ({"cpus": 32}, 0),
    ):
        assert fitting(nodes, needs(nodes, Settings(**settings))) == number, settings
    (node,) = [{"Resources": {"memory": 5.0}}]  # a head that carries nothing out
    assert fitting([node], needs([node], Settings())) == 0


@pytest.mark.parametrize(
    ("given", "wanted"), [({}, "5 None"), ({"MKL_NUM_THREADS": "2"}, "None 2")]
)
def test_the_threads_of_ray_are_a_default(tmp_path, monkeypatch, given, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # as Ray sets it on a node
    text = "import os; print(os.environ.get('OMP_NUM_THREADS'), os.environ.get('MKL_NUM_THREADS'))"
    kept = {key: value for key, value in os.environ.items() if key not in THREADS}
    log = tmp_path / "log"
    assert carry_out([sys.executable, "-c", text], kept | given, str(tmp_path), str(log)) == (0, "")
    assert log.read_text() == f"{wanted}\n"


@needs_ray
def test_a_node_without_this_package_has_the_task():
    """Its functions go by value, with what they need."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(task)
    data = cloudpickle.dumps(task.carry_out)
    cloudpickle.unregister_pickle_by_value(task)
    program = (
        "import pickle, sys; sys.modules['dplq'] = None; "
        "run = pickle.loads(sys.stdin.buffer.read()); "
        "print(run([sys.executable, '-c', 'raise SystemExit(3)'], {}, '.', None)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=data, capture_output=True, check=True
    )
    assert done.stdout == b"3\n"


def test_a_node_that_lacks_the_folders_is_named(tmp_path):
    """The task itself, as a node without the shared file system carries it out."""
    command, absent = [sys.executable, "-c", "1"], tmp_path / "absent"
    for folder, log in ((tmp_path, absent / "log.txt"), (absent, tmp_path / "log.txt")):
        code, reason = carry_out(command, dict(os.environ), str(folder), str(log))
        assert code == NOT_STARTED
        assert reason.startswith(f"on node {socket.gethostname()}: [Errno 2] No such file or")
        assert str(absent) in reason
        assert reason.endswith("All nodes need the same folders and the same Python.")
