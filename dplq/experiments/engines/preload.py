"""Runs that start at once: forked from a process that has imported what every run imports.

The imports of PyTorch, open_clip, timm and scikit-learn take longer than a short run. The server
(`dplq.experiments.engines.preload_server`) makes them once; a run is a process of its own, as
one that was started anew: with its log, its environment, its signals and its exit code.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec

from dplq.experiments.engines.base import Job
from dplq.experiments.engines.preload_server import READY, Gone, Send, Start, encode
from dplq.io.exit_code import KILLED, TERMINATED
from dplq.io.files import checkout

POLL = 0.02  # seconds between two looks at the answers
CHUNK = 65_536  # bytes
SERVER = """
import sys
sys.path[:] = [*{folders!r}, *filter(None, sys.path)]  # no current folder, which -c adds as ""
from dplq.experiments.engines.preload_server import serve
arguments = serve({connection})
if arguments is not None:  # a forked process
    from dplq.__main__ import main
    sys.exit(main(arguments))
"""


CAN_FORK = sys.platform == "linux"  # elsewhere not after system libraries have been loaded


class Server:
    """A server that is running.

    Args:
        environment: that the libraries are imported with.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._runs: dict[str, Forked] = {}
        self._unread = b""
        self._ready = False
        self._connection, theirs = socket.socketpair()
        root = checkout()
        code = SERVER.format(folders=[str(root)] if root else [], connection=theirs.fileno())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                env=self.environment,
                preexec_fn=_ignore_interrupts,  # from its first instruction on
            )

    @property
    def is_alive(self) -> bool:
        """Return whether it can start runs."""
        return self._process.poll() is None

    @property
    def is_idle(self) -> bool:
        """Return whether it has no runs."""
        return not self._runs

    def start(self, job: Job, variables: Mapping[str, str]) -> Forked:
        """Start a run.

        Args:
            job: it, with `Job.train`.
            variables: that it has besides those of the server.

        Raises:
            OSError: its log cannot be written, or the server is gone.
        """
        if job.log is not None:
            job.log.open("ab").close()
        log = None if job.log is None else str(job.log)
        self.send(Start(job.name, list(job.train or ()), dict(variables), log))
        run = self._runs[job.name] = Forked(job.name, self)
        return run

    def send(self, message: Start | Send) -> None:
        """Send a message.

        Raises:
            OSError: the server is gone.
        """
        self._connection.sendall(encode(message))

    def read(self) -> None:
        """Take notice of the runs that have ended."""
        while chunk := self._received():
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                if line == READY:
                    self._ready = True
                    continue
                gone = msgspec.json.decode(line, type=Gone)
                run = self._runs.pop(gone.name)
                run.returncode, run.reason = gone.code, gone.reason

    def _received(self) -> bytes:
        """Return what has come; b"" for nothing. The runs of a server that is gone have ended."""
        try:
            chunk = self._connection.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            chunk = b""
        if not chunk:
            self._lose_runs(KILLED, "the process that starts the runs was killed")
        return chunk

    def terminate(self, run: Forked) -> None:
        """Send SIGTERM to a run; one that waits for the imports is ended with the server."""
        self.read()
        if run.returncode is not None:
            return
        if self._ready:
            with contextlib.suppress(OSError):
                self.send(Send(run.name, signal.SIGTERM))
        else:
            self._process.kill()
            self._lose_runs(TERMINATED, "")

    def _lose_runs(self, code: int, reason: str) -> None:
        for run in self._runs.values():
            run.returncode, run.reason = code, reason
        self._runs.clear()

    def close(self) -> None:
        """End the server; runs that it still has are ended with SIGTERM, and waited for."""
        self._connection.close()
        self._process.wait()


class Forked:
    """A run of a server, with the methods of a `subprocess.Popen`.

    Attributes:
        name: of its job.
        returncode: its exit code, the negative number of the signal that ended it, or None.
        reason: what the server knows of a failure.
    """

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.returncode: int | None = None
        self.reason = ""
        self._server = server

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        self._server.read()
        return self.returncode

    def wait(self) -> int:
        """Return the exit code, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(POLL)
        return code

    def terminate(self) -> None:
        """End it with SIGTERM."""
        self._server.terminate(self)

    def kill(self) -> None:
        """Kill it with its children."""
        with contextlib.suppress(OSError):
            self._server.send(Send(self.name, signal.SIGKILL))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
