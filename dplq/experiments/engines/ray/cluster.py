"""The cluster: connecting with it, its nodes, and how many runs they can take."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dplq.errors import UserError
from dplq.experiments.engines.ray.settings import Settings

EXTRA = "The engine ray needs Ray: pip install ray"
PATIENCE = 5.0  # seconds for the first answer
STORE = 80 * 2**20  # bytes of shared memory of an own cluster: Ray's least; results are two words
TOKEN = (
    "it wants its token. Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH where the token is not "
    "in ~/.ray/auth_token (`ray get-auth-token` on the head prints it)."
)
START = "`ray start --head` starts one, `ray status` shows whether it runs."
# Variables that Ray takes notice of when it is imported; those of the user stand.
ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # pages of the nodes about what the engine says in a line
    "RAY_task_oom_retries": "3",  # of a run that Ray ends because its node lacks memory
}
OWN = {"RAY_worker_niceness": "0"}  # as the runs of other engines; Ray's default is 15
# Two attempts where something answers that is no cluster; Ray would make 20, of 40 seconds each.
IMPATIENT = {"RAY_NUM_REDIS_GET_RETRIES": "2", "RAY_py_gcs_connect_timeout_s": "3"}

Node = Mapping[str, Any]  # as `ray.nodes` describes it


def connect(address: str | None) -> Any:
    """Connect with a running cluster, or start one of this machine.

    Args:
        address: of the cluster; None: it is started.

    Returns:
        The module `ray`, connected.

    Raises:
        UserError: that is not possible, or Ray is missing.
    """
    for key, value in {**ALWAYS, **(IMPATIENT if address else OWN)}.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(EXTRA) from error
    own: dict[str, Any] = (
        {"include_dashboard": False, "object_store_memory": STORE} if address is None else {}
    )
    if address not in (None, "auto"):
        _reach(address)
    try:
        with _kept_signals():
            ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        if address is None:
            raise UserError(f"Ray does not start on this machine: {line(error)}") from error
        refused = "AuthToken" in str(error.__cause__)
        cure = TOKEN if refused else f"{line(error)}. {START}"
        raise UserError(f"No Ray cluster at address={address}: {cure}") from error
    return ray


def living_nodes(ray: Any) -> dict[str, Node]:
    """Return the living nodes of the cluster, by their identity."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def needs(nodes: Iterable[Node], settings: Settings) -> dict[str, float]:
    """Return what a run needs of a node."""
    gpus = settings.gpus
    if gpus is None:
        gpus = 1 if any("GPU" in node["Resources"] for node in nodes) else 0
    return {"CPU": settings.cpus, "GPU": gpus}


def fitting(nodes: Iterable[Node], needed: Mapping[str, float]) -> int:
    """Return how many runs the nodes have the CPUs and GPUs for, all at once."""
    wanted = {key: number for key, number in needed.items() if number}
    return sum(
        # A share such as 1/3 fits three times.
        min(int(node["Resources"].get(key, 0) / number + 1e-4) for key, number in wanted.items())
        for node in nodes
    )


def too_small(nodes: Iterable[Node], needed: Mapping[str, float]) -> str:
    """Return the message for a cluster without a node that is large enough for a run."""
    have = [(name(node), node["Resources"]) for node in nodes]
    there = "; ".join(f"{n} with CPU={r.get('CPU', 0):g} GPU={r.get('GPU', 0):g}" for n, r in have)
    return (
        f"No node of the Ray cluster has the cpus={needed['CPU']:g} and gpus={needed['GPU']:g} of "
        f"a run; there are: {there}. Ask for less, or give jobs if larger nodes will come."
    )


def name(node: Node) -> str:
    """Return a node's name for messages."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def line(error: Exception) -> str:
    """Return the first line of an error of Ray, which may have dozens."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def _reach(address: str) -> None:
    """Refuse (UserError) an address where nothing answers: Ray itself tries for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(
            f"address={address} is none of a Ray cluster: auto, HOST:PORT (6379, on a node of the "
            "cluster) or ray://HOST:PORT (10001, from elsewhere)."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"No Ray cluster answers at address={address} ({error}). {START}"
        ) from error


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)
