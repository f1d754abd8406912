"""The task of a run: its command as a process of a node.

Ray sends these functions by value: a worker has the standard library, but perhaps not this package.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from dplq.experiments.engines.base import THREADS  # a value, which goes with the functions

GRACE = 30.0  # seconds from SIGTERM to SIGKILL
NOT_STARTED = 127  # exit code as a shell gives it
DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")  # set by Ray
# The run dies with its worker: 1 is PR_SET_PDEATHSIG, which outlives execv.
TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(137); os.execv(sys.argv[2], sys.argv[2:])"
)


def carry_out(
    command: Sequence[str], environment: Mapping[str, str], folder: str, log: str | None
) -> tuple[int, str]:
    """Run a job's command on a node, as the task of Ray.

    Returns:
        The exit code as `subprocess` gives it, and on which node it failed, and why if that is
        known.
    """
    node = f"on node {socket.gethostname()}"
    # The devices are those that Ray gave to this task; its number of threads is a default.
    given = {key: value for key, value in environment.items() if key not in DEVICES}
    threads = () if any(key in given for key in THREADS) else THREADS
    there = {key: os.environ[key] for key in (*threads, *DEVICES) if key in os.environ}
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
    return process.returncode, node if process.returncode else ""


def _start(
    command: Sequence[str], environment: Mapping[str, str], folder: str, log: str | None
) -> subprocess.Popen[bytes]:
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise FileNotFoundError(2, "No such program", command[0])
    words = [program, *command[1:]]
    if sys.platform == "linux":
        words = [sys.executable, "-ISc", TIED, str(os.getpid()), *words]
    with ExitStack() as stack:
        output = None if log is None else stack.enter_context(open(log, "ab"))
        return subprocess.Popen(
            words,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run with SIGTERM, and what is left of it after `GRACE` seconds with SIGKILL."""
    process.terminate()
    deadline = time.monotonic() + GRACE
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(KeyboardInterrupt):  # of a further `ray.cancel`
            time.sleep(0.05)
    with suppress(ProcessLookupError):  # none is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
