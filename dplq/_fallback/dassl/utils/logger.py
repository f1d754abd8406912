"""Logging of standard output to a file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

from .files import mkdir_if_missing


class Logger:
    """Stream that writes to the console and to a file.

    When the file can no longer be written (a full disk), a line on the console says so.

    Args:
        fpath: the file; its folder is created. None: console only.
    """

    def __init__(self, fpath: str | None = None):
        self.console = sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(fpath))
            # line by line, so that a killed run leaves its log; appending never destroys one
            self.file = open(fpath, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  see close()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Return the console's attribute (encoding, isatty, fileno, ...)."""
        return getattr(self.__dict__["console"], name)

    def write(self, msg: str) -> int:
        """Write to both."""
        written = self.console.write(msg)
        self._to_file("write", msg)
        return written

    def flush(self) -> None:
        """Flush both."""
        self.console.flush()
        self._to_file("flush")

    def close(self) -> None:
        """Close the file; the console stays open."""
        self._to_file("close")
        self.file = None

    def _to_file(self, action: str, *args: str) -> None:
        """Call a method of the file; close the file if that fails."""
        if self.file is None:
            return
        try:
            getattr(self.file, action)(*args)
        except OSError as error:
            file, self.file = self.file, None
            with contextlib.suppress(OSError):  # closing flushes the rest once more
                file.close()
            self.console.write(f"log file {file.name} can no longer be written: {error}\n")


def setup_logger(output: str | None = None) -> None:
    """Copy standard output to a file from now on.

    Args:
        output: the file (.txt or .log), or the folder for a ``log.txt``. If the file exists,
            the new one has the date and time after its name. None: a no-op.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    sys.stdout = Logger(fpath)
