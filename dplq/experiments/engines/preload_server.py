"""The process that has imported what every run imports, and forks the runs from itself.

`dplq.experiments.engines.preload` starts it, and asks over a socket: JSON, a message a line. It
ends its runs and itself once the other end of the socket is closed, which no process that is
killed can forget.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import select
import signal
import socket
import sys

import msgspec

from dplq.experiments.engines.parent import end_with
from dplq.io.exit_code import PROBLEMS

READY = b"ready"  # the line that is sent after the imports
POLL = 0.02  # seconds between two looks at the runs
CHUNK = 65_536  # bytes
DEAF = (signal.SIGTERM, signal.SIGHUP)  # a cluster sends them to all processes: the runs see to it
# Nothing here may look for a GPU: a process that has done so must not fork.
MODULES = (
    "dplq.cli.train",
    "dplq.plugin",
    "dplq.demo.models",
    "dplq.host.changed",
    "open_clip",
    "sklearn.linear_model",
    "sklearn.metrics",
    "timm",
    "torch.utils.tensorboard",
)


class Start(msgspec.Struct, tag=True):
    """Start a run.

    Attributes:
        name: of its job.
        words: arguments of ``dplq train``.
        variables: of its environment, besides those of the server.
        log: file that its output is appended to; None: the output of the server.
    """

    name: str
    words: list[str]
    variables: dict[str, str]
    log: str | None


class Send(msgspec.Struct, tag=True):
    """Send a signal to a run; SIGKILL to its children, too."""

    name: str
    number: int


class Gone(msgspec.Struct):
    """A run has ended.

    Attributes:
        name: of its job.
        code: its exit code, or the negative number of the signal that ended it.
        reason: why it could not be started.
    """

    name: str
    code: int
    reason: str = ""


def encode(message: Start | Send | Gone) -> bytes:
    """Return a message as a line."""
    return msgspec.json.encode(message) + b"\n"


def serve(connection: int) -> list[str] | None:
    """Serve; return the arguments of ``dplq`` in a forked process, None in the server at its end.

    Args:
        connection: number of the socket.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in DEAF}
    for module in MODULES:
        with contextlib.suppress(Exception):  # the run that needs it says what is wrong
            importlib.import_module(module)
    gc.freeze()  # memory that the collector does not touch stays shared
    with socket.socket(fileno=connection) as link:
        run = _next_run(link)
    return None if run is None else _become(run, before)


def _next_run(link: socket.socket) -> Start | None:
    """Fork runs until the other end is closed; return the run in its process, else None."""
    running: dict[str, int] = {}
    server = os.getpid()
    unread = b""
    link.sendall(READY + b"\n")
    while True:
        _report_ended(link, running)
        if not select.select([link], [], [], POLL)[0]:
            continue
        if not (chunk := _received(link)):
            break
        *lines, unread = (unread + chunk).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line, type=Start | Send)
            if isinstance(message, Send):
                _send(message, running)
            elif _forked(message, running, link):
                end_with(server)
                return message
    for pid in running.values():
        os.kill(pid, signal.SIGTERM)
    for pid in running.values():
        os.waitpid(pid, 0)
    return None


def _received(link: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return link.recv(CHUNK)
    return b""


def _report_ended(link: socket.socket, running: dict[str, int]) -> None:
    for name, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[name]
            with contextlib.suppress(ConnectionError):  # noticed at the next look
                link.sendall(encode(Gone(name, os.waitstatus_to_exitcode(status))))


def _forked(message: Start, running: dict[str, int], link: socket.socket) -> bool:
    """Fork a run; return whether this is its process.

    SIGTERM is blocked there until it is no longer ignored, so that none is lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        pid = os.fork()
    except OSError as error:
        reason = f"no process can be started ({error.strerror})"
        link.sendall(encode(Gone(message.name, PROBLEMS, reason)))
        pid = -1
    if pid == 0:
        return True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if pid > 0:
        running[message.name] = pid
    return False


def _send(message: Send, running: dict[str, int]) -> None:
    if (pid := running.get(message.name)) is None:
        return
    os.kill(pid, message.number)
    if message.number == signal.SIGKILL and os.getpgid(pid) == pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _become(run: Start, handlers: dict[signal.Signals, signal._HANDLER]) -> list[str]:
    """Make this the process of a run, as if Python had just started; return its arguments."""
    if run.log is not None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        for output in (1, 2):
            os.dup2(log, output)
        os.close(log)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    os.environ.update(run.variables)
    _seed()
    sys.argv = ["dplq", "train", *run.words]
    return sys.argv[1:]


def _seed() -> None:
    """Have runs without a seed differ, as those of new processes do."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
