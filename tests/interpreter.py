"""Python commands in children of the fork server of `tests.runner`: no library is imported anew.

A test of what a command does need not wait for torch and open_clip each time; a test of how the
real Python starts does.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import CompletedProcess

from tests.runner import PROJECT, compute_as_a_process, fork

# Everything of a checkout: a child imports it from the folder that its command names.
OURS = {"dplq", "dassl", "trainers", "datasets", "configs", "train", "tests"}
STAND_IN = """#!{python} -IS
import json, os, socket, sys

if not (sys.argv[1:] and sys.argv[1].endswith("train.py")):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
command = {{"arguments": sys.argv[1:], "cwd": os.getcwd(), "variables": dict(os.environ)}}
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    socket.send_fds(link, [b"-"], [0, 1, 2])
    link.sendall(json.dumps(command).encode())
    link.shutdown(socket.SHUT_WR)
    sys.exit(int(link.recv(16) or 1))
"""


def python(
    arguments: Sequence[object], cwd: Path = PROJECT, **variables: str
) -> CompletedProcess[str]:
    """Return the outcome of ``python ARGUMENTS``: of a script, ``-c CODE`` or ``-m MODULE``.

    Args:
        arguments: the script's path, or the flag, and what follows.
        cwd: the folder it runs in.
        **variables: of the environment, beside those of this process.
    """
    words = list(map(str, arguments))
    temporary = tempfile.TemporaryFile
    with open(os.devnull) as nothing, temporary("w+") as out, temporary("w+") as err:
        numbers = [file.fileno() for file in (nothing, out, err)]
        code = _run(words, str(cwd), {**os.environ, **variables}, numbers)
        for file in (out, err):
            file.seek(0)
        return CompletedProcess(["python", *words], code, out.read(), err.read())


def printed(arguments: Sequence[object], cwd: Path = PROJECT, **variables: str) -> str:
    """Return what ``python ARGUMENTS`` prints; it has to succeed."""
    done = python(arguments, cwd, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@contextmanager
def stand_in(folder: Path) -> Iterator[Path]:
    """Write a program that runs ``train.py`` as `python` does, and any other command itself."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        address = os.path.join(short, "socket")  # such a name has about 100 characters at most
        server.bind(address)
        server.listen()
        program = folder / "python_stand_in"
        program.write_text(STAND_IN.format(python=sys.executable, address=address))
        program.chmod(0o755)
        serving = threading.Thread(target=_serve, args=(server,))
        serving.start()
        try:
            yield program
        finally:
            server.shutdown(socket.SHUT_RDWR)
            serving.join()


def _serve(server: socket.socket) -> None:
    """Run one command after the other until the socket is shut down."""
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        with link:
            _, numbers, _, _ = socket.recv_fds(link, 1, 3)
            with link.makefile("rb") as text:
                command = json.load(text)
            try:
                code = _run(**command, numbers=numbers)
            finally:
                for number in numbers:
                    os.close(number)
            link.sendall(str(code).encode())


def _run(arguments: list[str], cwd: str, variables: dict[str, str], numbers: list[int]) -> int:
    child = fork(_Command(arguments, cwd, variables, numbers))
    child.join()
    assert child.exitcode is not None
    return child.exitcode


class _Command:
    """What a child does; it receives duplicates of stdin, stdout and stderr."""

    def __init__(
        self, arguments: list[str], cwd: str, variables: dict[str, str], numbers: list[int]
    ):
        self.given = arguments, cwd, variables
        self.numbers = numbers

    def __getstate__(self) -> dict[str, object]:
        return {"given": self.given, "numbers": [DupFd(number) for number in self.numbers]}

    def __call__(self) -> None:
        arguments, cwd, variables = self.given
        for target, number in enumerate(self.numbers):
            os.dup2(number.detach(), target)  # type: ignore[attr-defined]
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(variables)
        _forget()
        code = _execute(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _forget() -> None:
    """Bring the interpreter to where it was before anything of this project was imported."""
    import logging

    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    logging.getLogger().handlers.clear()
    sys.excepthook = sys.__excepthook__
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    ours = ("", str(PROJECT), str(PROJECT / "dplq/_fallback"))
    sys.path[:] = [*filter(None, given), *(path for path in sys.path if path not in ours)]


def _execute(arguments: list[str]) -> int:
    """Run a script, ``-c CODE`` or ``-m MODULE`` as the interpreter does; return the exit code."""
    compute_as_a_process()
    first, *rest = arguments
    try:
        if first == "-c":
            sys.path.insert(0, "")
            sys.argv = [first, *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            sys.path.insert(0, os.getcwd())
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
            sys.argv = arguments
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except BaseException:
            traceback.print_exc()
        return 1
    return 0
