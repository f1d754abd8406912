"""Why a run failed: in one line, from the end of its output."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

from dplq.errors import printable

TAIL = 1 << 14  # bytes of a log that are read
LONGEST = 300  # characters of a reason
ERROR = "error: "  # how the messages of our commands begin


def reason(code: int, log: Path | None, start: int = 0) -> str:
    """Return why a run failed; "" where nothing is known but its exit code.

    Args:
        code: its exit code as a shell gives it.
        log: file of its output; None: it went to the terminal.
        start: size of the log when the run began, in bytes.
    """
    lines = list(_last_lines(log, start)) if log else []
    errors = [line for line in lines if line.startswith(ERROR)]
    said = (errors or lines or [""])[-1].removeprefix(ERROR)
    text = printable(said if len(said) <= LONGEST else f"{said[:LONGEST]}...")
    return (
        f"{_signal(code)}; last output: {text}" if text and _signal(code) else _signal(code) or text
    )


def _signal(code: int) -> str:
    """Return which signal ended a process; "" for none."""
    try:
        name = signal.Signals(code - 128).name if code > 128 else ""
    except ValueError:  # a program's own code
        return ""
    hint = ", as for want of memory" if name == "SIGKILL" else ""
    return f"ended by {name}{hint}" if name else ""


def _last_lines(log: Path, start: int) -> Iterator[str]:
    """Yield the last lines of a log that are not empty."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - TAIL))
            text = file.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return
    for line in text.splitlines():
        if line.strip():
            yield line.strip()
