"""What a terminal shows of a run: not all that is in its log file.

Dassl prints every detail, and `sys.stdout` is then its `Logger`, which also writes ``log.txt``.
After `set_quiet` the details go to that file only where the output is a terminal; piped output has
all of it, as log parsers expect. In a host tree nothing changes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_hidden: list[Any] = []  # Dassl's Logger, while its terminal is left out
_wanted = False


def set_quiet(quiet: bool) -> None:
    """Choose whether a terminal shows the essentials only."""
    global _wanted
    _wanted = quiet


def is_quiet() -> bool:
    """Return whether standard output is a terminal that is to show the essentials only."""
    stream = full_stdout()
    if not _wanted or getattr(stream, "file", None) is None:
        return False
    while hasattr(stream, "console"):  # several runs of one process: a Logger around another
        stream = stream.console
    return bool(stream.isatty())


def full_stdout() -> Any:
    """Return `sys.stdout`, also inside `log_only`: for what must be seen."""
    return _hidden[-1] if _hidden else sys.stdout


@contextmanager
def log_only() -> Iterator[None]:
    """In a terminal, have what is printed in this block go to the log file only."""
    if _hidden or not is_quiet():
        yield
        return
    logger: Any = sys.stdout
    _hidden.append(logger)
    sys.stdout = logger.file
    try:
        yield
    finally:
        sys.stdout = _hidden.pop()


def print_in_terminal(text: str) -> None:
    """Print a line that stands for what only the log file has; nowhere else."""
    if is_quiet():
        print(text, file=full_stdout().console, flush=True)


class LastLine:
    """Stream that passes text on and keeps the last line with a given beginning."""

    def __init__(self, stream: Any, beginning: str) -> None:
        self.stream, self.beginning, self.line = stream, beginning, ""

    def write(self, text: str) -> int:
        """Write to the stream."""
        if text.startswith(self.beginning):
            self.line = text.rstrip("\n")
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        """Return the stream's attribute."""
        return getattr(self.stream, name)


@contextmanager
def last_line_only(beginning: str) -> Iterator[None]:
    """In a terminal, show of what is printed in this block its last line of this beginning."""
    with log_only():
        if not _hidden:
            yield
            return
        sys.stdout = last = LastLine(sys.stdout, beginning)  # type: ignore[assignment]
        yield
    print_in_terminal(last.line)
