"""The engine `ray`: runs are tasks of a Ray cluster, on this machine or on many.

Each task starts its run as a process of its own, so that the cluster's processes need neither this
package nor its requirements; the command, its files and the folders of the runs have to be the same
on all nodes (a shared file system). A task that is lost with its worker or its node is started
again by Ray on another one; a run that fails is not.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import msgspec

from dplq.errors import UserError
from dplq.experiments.engines.base import Ended, Job

EXTRA = 'The engine ray needs Ray: pip install "quaternion-prompt[cluster]"'
PATIENCE = 5.0  # seconds for the first answer of a cluster
GRACE = 30.0  # seconds from SIGTERM to SIGKILL
STORE = 80 * 2**20  # bytes of shared memory of an own cluster: Ray's least; results are two words
NOT_STARTED, LOST = 127, 137  # exit codes as a shell gives them
THREADS = "OMP_NUM_THREADS"
DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # set by Ray
# The run dies with its worker: 1 is PR_SET_PDEATHSIG, which outlives execv.
TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(137); os.execv(sys.argv[2], sys.argv[2:])"
)

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True):
    """Options of the engine.

    Attributes:
        address: of a running cluster: "auto", HOST:PORT or ray://HOST:PORT; None: one of this
            machine, which ends with the engine.
        jobs: how many runs are handed to Ray at once; None: as many as fit.
        cpus: CPUs of a run.
        gpus: GPUs of a run, or the share of one; None: 1 where there are any.
        retries: how often a run is started again whose worker or node was lost.
    """

    address: str | None = None
    jobs: Annotated[int, msgspec.Meta(ge=1)] | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0)] = 1
    gpus: Annotated[float, msgspec.Meta(ge=0)] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0)] = 3


def open_engine(settings: Settings) -> RayEngine:
    """Return the engine, connected with its cluster.

    Raises:
        UserError: Ray is missing, the cluster cannot be reached, or no node is large enough.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError(EXTRA) from error
    with _kept_signals():
        _connect(ray, settings.address)
    try:
        return RayEngine(ray, settings)
    except UserError:
        ray.shutdown()
        raise


class RayEngine:
    """Runs as tasks of a Ray cluster.

    Args:
        ray: the module, connected.
        settings: of the engine.
    """

    def __init__(self, ray: Any, settings: Settings) -> None:
        self._ray = ray
        self._settings = settings
        self._nodes = _nodes(ray)
        gpus = settings.gpus
        if gpus is None:
            gpus = 1 if any("GPU" in node["Resources"] for node in self._nodes.values()) else 0
        self._needs = {"CPU": settings.cpus, "GPU": gpus}
        if not self._fitting() and settings.jobs is None:
            there = "; ".join(sorted(map(_resources, self._nodes.values())))
            raise UserError(
                f"No node of the Ray cluster has cpus={settings.cpus:g} and gpus={gpus:g} for a "
                f"run; there are: {there}. Ask for less, or give jobs if larger nodes will come."
            )
        self.slots = settings.jobs or self._fitting()
        # By value: a worker of the cluster may lack this package.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self._task = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=gpus,
            max_retries=settings.retries,
            retry_exceptions=False,
            scheduling_strategy="SPREAD",
        )(carry_out)
        self._jobs: dict[Any, Job] = {}  # by the reference of the task's result

    def start(self, job: Job) -> None:
        """Hand a job to Ray, which starts it where its CPUs and GPUs are free."""
        if job.log is not None:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **job.environment}
        log = None if job.log is None else str(job.log.absolute())
        task = self._task.options(name=job.name)
        reference = task.remote(list(job.command), environment, os.getcwd(), log)
        self._jobs[reference] = job

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the jobs that have ended since the last call.

        Args:
            seconds: how long to wait for the first of them.
        """
        if not self._jobs:
            time.sleep(seconds)
        else:
            self._ray.wait(list(self._jobs), timeout=seconds)
        self._survey()
        return [self._ended(reference) for reference in self._ready()]

    def stop(self) -> None:
        """End all jobs with SIGTERM, and wait until they have ended."""
        for force in (False, True):
            for reference in self._jobs:
                self._ray.cancel(reference, force=force)
            deadline = time.monotonic() + GRACE + PATIENCE
            while len(self._ready()) < len(self._jobs) and time.monotonic() < deadline:
                time.sleep(0.1)
            for reference in self._ready():
                del self._jobs[reference]
        self._jobs.clear()

    def close(self) -> None:
        """Leave the cluster; end it if it is the engine's own."""
        self._ray.shutdown()

    def _ready(self) -> list[Any]:
        if not self._jobs:
            return []
        ready, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=0)
        return list(ready)

    def _ended(self, reference: Any) -> Ended:
        job = self._jobs.pop(reference)
        try:
            code, reason = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # all attempts were lost
            line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return Ended(job, LOST, f"Ray lost it, retries={self._settings.retries}: {line}")
        return Ended(job, code, reason)

    def _survey(self) -> None:
        """Note how many jobs fit at present, and say which nodes were lost."""
        before, self._nodes = self._nodes, _nodes(self._ray)
        for lost in before.keys() - self._nodes.keys():
            logger.warning(
                "Node %s of the Ray cluster was lost; %d are left. Its runs go on elsewhere.",
                _name(before[lost]),
                len(self._nodes),
            )
        # One job may always wait in Ray's queue, for a node that is to come.
        self.slots = self._settings.jobs or max(self._fitting(), 1)

    def _fitting(self) -> int:
        """Return how many jobs the nodes have the CPUs and GPUs for."""
        return sum(
            min(
                int(node["Resources"].get(key, 0) / n + 1e-6) for key, n in self._needs.items() if n
            )
            for node in self._nodes.values()
        )


def carry_out(
    command: Sequence[str], environment: Mapping[str, str], folder: str, log: str | None
) -> tuple[int, str]:
    """Run a job's command on a node, as the task of Ray.

    Returns:
        The exit code as a shell gives it, and on which node it failed, and why if that is known.
    """
    node = f"on node {socket.gethostname()}"
    there = {key: os.environ[key] for key in (THREADS, *DEVICES) if key in os.environ}
    # The devices are those that Ray gave to this task; its number of threads is a default.
    given = {key: value for key, value in environment.items() if key not in DEVICES}
    environment = {**there, **given}
    try:
        process = _start(command, environment, folder, log)
    except OSError as error:
        return NOT_STARTED, f"{node}: {error}. All nodes need the same folders and the same Python."
    try:
        while process.poll() is None:
            time.sleep(0.05)  # short: `ray.cancel` takes effect between two of them
    except KeyboardInterrupt:
        _end(process)
        raise
    if process.returncode == -signal.SIGKILL:
        time.sleep(3)  # by Ray, perhaps, which ends this worker next: then the task is lost
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return code, node if code else ""


def _start(
    command: Sequence[str], environment: Mapping[str, str], folder: str, log: str | None
) -> subprocess.Popen[bytes]:
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise FileNotFoundError(2, "No such program", command[0])
    words = [program, *command[1:]]
    if sys.platform == "linux":
        words = [sys.executable, "-ISc", TIED, str(os.getpid()), *words]
    output = None if log is None else open(log, "ab")  # noqa: SIM115
    try:
        return subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    finally:
        if output is not None:
            output.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run with SIGTERM, and what is left of it after `GRACE` seconds with SIGKILL."""
    process.terminate()
    deadline = time.monotonic() + GRACE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError):  # none is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = {"include_dashboard": False, "object_store_memory": STORE} if address is None else {}
    if address not in (None, "auto"):
        _reach(address)
    try:
        ray.init(
            address="local" if address is None else address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **own,
        )
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        where = "of this machine" if address is None else address
        cure = "" if address is None else " `ray start --head` starts one, `ray status` shows it."
        raise UserError(f"The Ray cluster {where} cannot be used: {line}{cure}") from error


def _reach(address: str) -> None:
    """Refuse (UserError) an address where nothing answers: Ray itself tries for long."""
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
            f"No Ray cluster answers at {address} ({error}). `ray start --head` starts one; "
            "`ray status` shows whether it runs."
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


def _nodes(ray: Any) -> dict[str, dict[str, Any]]:
    """Return the living nodes of the cluster, by their identity."""
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _resources(node: Mapping[str, Any]) -> str:
    has = node["Resources"]
    return f"{_name(node)} with CPU={has.get('CPU', 0):g} GPU={has.get('GPU', 0):g}"
