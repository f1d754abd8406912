"""Exit codes of the command lines, and what a user sees of a failure."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from dplq.errors import UserError
from dplq.io.validation.paths import refused_paths

DONE, PROBLEMS, MISTAKE, INTERRUPTED = 0, 1, 2, 130
KILLED, TERMINATED = 137, 143  # of a process that SIGKILL or SIGTERM ended, as a shell gives it
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, a limit of the shell
CLOSED = (errno.EPIPE, errno.EIO)  # of an output that nobody reads: `| head`, a closed terminal


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; return its exit code, or that of what stopped it, with one line on stderr."""
    try:
        try:
            with refused_paths():
                return run()
        finally:
            sys.stdout.flush()  # here: at the interpreter's end nothing catches a closed pipe
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except BrokenPipeError:
        return closed_pipe()
    except OSError as error:
        if not is_disk_full(error):
            raise
        _discard(sys.stdout)
        print(f"error: nothing more can be written ({error}).", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        print("Interrupted. The same command resumes where it can.", file=sys.stderr)
        return INTERRUPTED


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error is that nothing more can be written."""
    return isinstance(error, OSError) and error.errno in FULL


def shell_code(code: int) -> int:
    """Return the exit code of a process as a shell gives it.

    Args:
        code: as `subprocess` gives it, negative for a signal.
    """
    return code if code >= 0 else 128 - code


def closed_pipe() -> int:
    """Return the exit code where `| head` has closed the pipe; what is still printed is lost."""
    _discard(sys.stdout)
    return DONE


@contextmanager
def until_closed(stream: TextIO, closed: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Write to an output, unless nobody reads it any more: the rest of it is lost then.

    Args:
        stream: the output.
        closed: is called when nobody reads it.

    Raises:
        OSError: another fault, such as a full disk.
    """
    try:
        yield
        stream.flush()
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        _discard(stream)
        closed()


def _discard(stream: TextIO) -> None:
    with suppress(OSError):  # no file: the stand-in of a test
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
