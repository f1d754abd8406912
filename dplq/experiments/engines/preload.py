"""Runs that start at once: forked from a process that has imported what every run imports.

The imports of PyTorch, open_clip, timm and scikit-learn take longer than a short run. The server
(`dplq.experiments.engines.preload_server`) makes them once; a run is a process of its own, as
one that was started anew: with its log, its environment, its signals and its exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec

from dplq.experiments.engines.base import POLL, Job
from dplq.experiments.engines.preload_server import CHUNK, READY, Gone, Send, Start, encode
from dplq.io.exit_code import KILLED, TERMINATED
from dplq.io.files import checkout

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
PATIENCE = 5.0  # seconds after SIGKILL in which the end of a run is noticed


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
        self._early = 0  # bytes sent before the imports were made
        self._unsent: list[bytes] = []  # what would not have fit into the socket's buffer by then
        self._ready = False
        self._is_lost = False
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
        return not self._is_lost and self._process.poll() is None

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
            OSError: its log cannot be written; without a file name, the server is gone.
            UnicodeEncodeError: an argument cannot be sent.
        """
        if job.log is not None:
            job.log.open("ab").close()
        log = None if job.log is None else str(job.log)
        self._send(Start(job.name, list(job.train or ()), dict(variables), log))
        run = self._runs[job.name] = Forked(job, {**self.environment, **variables}, self)
        return run

    def send_signal(self, run: Forked, number: int) -> None:
        """Send a signal to a run; SIGKILL to its children, too."""
        with contextlib.suppress(OSError):
            self._send(Send(run.job.name, number))

    def _send(self, message: Start | Send) -> None:
        line = encode(message)
        if self._ready or (not self._unsent and self._early + len(line) <= CHUNK):
            self._connection.sendall(line)
            self._early += len(line)
        else:
            self._unsent.append(line)

    def read(self) -> None:
        """Take notice of the runs that have ended."""
        while chunk := self._received():
            self._unread += chunk
            while b"\n" in self._unread:
                line, rest = self._unread.split(b"\n", 1)
                self._note(line)
                self._unread = rest  # last: an interrupt before it loses nothing

    def _note(self, line: bytes) -> None:
        if line == READY:
            self._ready = True
            with contextlib.suppress(OSError):  # noticed at the next look
                self._connection.sendall(b"".join(self._unsent))
            self._unsent.clear()
            return
        gone = msgspec.json.decode(line, type=Gone)
        if (run := self._runs.get(gone.name)) is not None:
            run.end(gone.code, gone.reason, pid=gone.pid, never_began=gone.pid is None)
            del self._runs[gone.name]

    def _received(self) -> bytes:
        """Return what has come; b"" for nothing. The runs of a server that is gone have ended."""
        try:
            chunk = self._connection.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            chunk = b""
        if not chunk:
            self._is_lost = True
            what = "was killed" if self._ready else "ended while it imported the libraries"
            reason = f"the process that starts the runs {what}"
            self._end_all(KILLED, reason, never_began=not self._ready)
        return chunk

    def terminate(self, run: Forked) -> None:
        """Send SIGTERM to a run; one that waits for the imports is ended with the server."""
        self.read()
        if run.returncode is not None:
            return
        if self._ready:
            self.send_signal(run, signal.SIGTERM)
        else:
            self._process.kill()
            self._is_lost = True
            self._end_all(TERMINATED)

    def _end_all(self, code: int, reason: str = "", *, never_began: bool = False) -> None:
        for run in self._runs.values():
            run.end(code, reason, never_began=never_began)
        self._runs.clear()

    def close(self) -> None:
        """End the server; runs that it still has are ended with SIGTERM, and waited for."""
        self.read()
        if not self._ready:
            self._process.kill()
        self._connection.close()
        self._process.wait()


class Forked:
    """A run of a server, with the methods of a `subprocess.Popen`.

    Attributes:
        job: it.
        environment: of its process.
        returncode: its exit code, the negative number of the signal that ended it, or None.
        reason: what the server knows of a failure.
        never_began: there is no process for it, and nobody has ended it.
    """

    def __init__(self, job: Job, environment: Mapping[str, str], server: Server) -> None:
        self.job = job
        self.environment = environment
        self.returncode: int | None = None
        self.reason = ""
        self.never_began = False
        self._server = server
        self._pid: int | None = None

    def end(
        self, code: int, reason: str = "", *, pid: int | None = None, never_began: bool = False
    ) -> None:
        """Note how it has ended."""
        self._pid, self.reason, self.never_began = pid, reason, never_began
        self.returncode = code

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None:
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
        """Kill it with its children, also where it has ended and left some; wait for its end."""
        if self.poll() is None:
            self._server.send_signal(self, signal.SIGKILL)
            until = time.monotonic() + PATIENCE
            while self.poll() is None and time.monotonic() < until:
                time.sleep(POLL)
            if self.returncode is None:
                self.end(KILLED)
        elif self._pid is not None:
            with contextlib.suppress(OSError):  # not the leader of a group, or all ended
                os.killpg(self._pid, signal.SIGKILL)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
