"""Printing of user errors: one line, without the traceback that hides it."""

from __future__ import annotations

import os
import sys
from typing import Any

from dplq.host.dassl import user_error_types


def wants_traceback() -> bool:
    """Return whether `DPLQ_TRACEBACK` asks for the traceback of user errors too."""
    return os.environ.get("DPLQ_TRACEBACK", "") not in ("", "0")


def print_error(error: BaseException) -> None:
    """Print a user error as one line."""
    print(f"error: {error}", file=sys.stderr)


def one_line_errors() -> None:
    """Have a user error that nothing catches printed as one line; others as before.

    It is a hook of the interpreter, so that it serves the `train.py` of any tree; a second call
    has no effect.
    """
    before = sys.excepthook
    if getattr(before, "prints_user_errors", False):
        return

    def report(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, user_error_types()) and not wants_traceback():
            print_error(error)
        else:
            before(kind, error, trace)

    report.prints_user_errors = True  # type: ignore[attr-defined]
    sys.excepthook = report
