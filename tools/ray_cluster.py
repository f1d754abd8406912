"""A Ray cluster of simulated nodes on this machine (Linux), to see what the loss of one does."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dplq.experiments.engines.ray.cluster import STORE

# A node is lost once it has refused to answer for three seconds; by Ray's defaults for 15. Runs
# have the priority of other processes.
CONFIG = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,
}


class SimulatedCluster:
    """A cluster of nodes with one CPU each.

    Args:
        nodes: how many there are.
    """

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": STORE}
        head = {"include_dashboard": False, "_system_config": CONFIG}
        self._cluster = Cluster(True, head_node_args=options | head)
        for _ in range(nodes - 1):
            self._cluster.add_node(wait=False, **options)
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        """Return what the engine's option `address` has to be."""
        return str(self._cluster.address)

    def running(self) -> Iterator[tuple[Any, int, list[str]]]:
        """Yield the node, process id and command of each run, those of the first node left out.

        The programs that plan and schedule are connected with the first node.
        """
        parents = dict(_processes())
        for node in list(self._cluster.worker_nodes):
            raylet = node.all_processes["raylet"][0].process.pid
            for pid, parent in parents.items():
                if parents.get(parent) == raylet and (command := _command(pid)):
                    yield node, pid, command

    def add(self, cpus: int, gpus: int) -> Any:
        """Add a node and return it."""
        return self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, object_store_memory=STORE)

    def kill(self, node: Any) -> None:
        """Kill a node's processes, as a machine that loses its power does."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _processes() -> Iterator[tuple[int, int]]:
    """Yield all processes of this machine and their parents."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # The name before may hold anything.
            parent = re.split(r"\) \S ", path.read_text(errors="replace"))[-1].partition(" ")[0]
            yield int(path.parent.name), int(parent)


def _command(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_text(errors="replace").split("\0")[:-1]
    return []
