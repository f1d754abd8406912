"""Exit codes of the command lines, and what a user sees of a failure."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from dplq.errors import UserError
from dplq.io.validation.paths import refused_paths

DONE, PROBLEMS, MISTAKE, INTERRUPTED = 0, 1, 2, 130


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
    except KeyboardInterrupt:
        print("Interrupted. The same command resumes where it can.", file=sys.stderr)
        return INTERRUPTED


def closed_pipe() -> int:
    """Return the exit code where `| head` has closed the pipe; what is still printed is lost."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
