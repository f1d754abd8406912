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
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import msgspec

from dplq.experiments.engines.base import POLL
from dplq.experiments.engines.parent import end_with
from dplq.io.exit_code import PROBLEMS

READY = b"ready"  # the line that is sent after the imports
CHUNK = 65_536  # bytes
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
# timm imports it where it is there; it makes temporary folders, which are to be a run's own.
HELD_BACK = "wandb"
ENVIRONMENT = "dplq.trainers._engine.environment"  # has the commit of the code, which is kept


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
        pid: of its process; None: it could not be started.
        reason: why not.
    """

    name: str
    code: int
    pid: int | None
    reason: str = ""


def encode(message: Start | Send | Gone) -> bytes:
    """Return a message as a line."""
    return msgspec.json.encode(message) + b"\n"


def serve(connection: int) -> list[str] | None:
    """Serve; return the arguments of ``dplq`` in a forked process, None in the server at its end.

    Args:
        connection: number of the socket.
    """
    # They go to all processes of a job or a terminal, and the runs see to them.
    ignored = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else nothing can be waited for
    with tempfile.TemporaryFile() as said:
        with _output_in(said):
            import_all()
        gc.freeze()  # memory that the collector does not touch stays shared
        with socket.socket(fileno=connection) as link:
            run = _next_run(link)
        return None if run is None else _become(run, before, said)


@contextmanager
def _output_in(file: IO[bytes]) -> Iterator[None]:
    """Have stdout and stderr go to a file."""
    kept = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)


def import_all() -> None:
    """Import `MODULES`, and note which commit they are of."""
    if HELD_BACK not in sys.modules:
        sys.modules[HELD_BACK] = None  # type: ignore[assignment]  # as if it was not installed
    for module in MODULES:
        with contextlib.suppress(Exception):  # the run that needs it says what is wrong
            importlib.import_module(module)
    if sys.modules[HELD_BACK] is None:
        del sys.modules[HELD_BACK]
    if (environment := sys.modules.get(ENVIRONMENT)) is not None:
        environment.git_commit()


def _next_run(link: socket.socket) -> Start | None:
    """Fork runs until the other end is closed; return the run in its process, else None."""
    running: dict[str, int] = {}
    server = os.getpid()
    unread = b""
    _answer(link, READY + b"\n")
    while True:
        _report_ended(link, running)
        if not select.select([link], [], [], POLL)[0]:
            continue
        if not (chunk := _received(link)):
            break
        *lines, unread = (unread + chunk).split(b"\n")
        try:
            messages = [msgspec.json.decode(line, type=Start | Send) for line in lines]
        except msgspec.DecodeError:  # the sender was interrupted: it ends
            break
        for message in messages:
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


def _answer(link: socket.socket, line: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # the other end is closed: noticed at the next look
        link.sendall(line)


def _received(link: socket.socket) -> bytes:
    with contextlib.suppress(ConnectionError):
        return link.recv(CHUNK)
    return b""


def _report_ended(link: socket.socket, running: dict[str, int]) -> None:
    for name, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[name]
            _answer(link, encode(Gone(name, os.waitstatus_to_exitcode(status), pid)))


def _forked(message: Start, running: dict[str, int], link: socket.socket) -> bool:
    """Fork a run; return whether this is its process.

    SIGTERM is blocked there until it is no longer ignored, so that none is lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        pid = os.fork()
    except OSError as error:
        reason = f"no process can be forked ({error.strerror})"
        _answer(link, encode(Gone(message.name, PROBLEMS, None, reason)))
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


def _become(
    run: Start, handlers: dict[signal.Signals, signal._HANDLER], said: IO[bytes]
) -> list[str]:
    """Make this the process of a run, as if Python had just started; return its arguments.

    Args:
        run: it.
        handlers: of signals.
        said: what the imports have printed.
    """
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
    size = os.fstat(said.fileno()).st_size
    sys.stderr.buffer.write(os.pread(said.fileno(), size, 0))  # runs share the file's position
    sys.stderr.buffer.flush()
    _leave_to_the_server()
    _seed()
    sys.argv = ["dplq", "train", *run.words]
    return sys.argv[1:]


def _leave_to_the_server() -> None:
    """Have this process's end delete nothing that the imports made, such as temporary folders.

    PyTorch 2.4 makes one, and the first run to end would delete it for all.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False


def _seed() -> None:
    """Have runs without a seed differ, as those of new processes do."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.seed()  # of the CPU: a GPU has none yet
