"""Signals that end a plan: the first is noted, a second one interrupts the wait for the runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


class Signals:
    """What signals have come.

    Attributes:
        number: of the first; 0 for none.
        stopping: whether the runs are being ended, so that a further one is urgent.
    """

    def __init__(self) -> None:
        self.number = 0
        self.stopping = False

    def note(self, number: int, frame: Any) -> None:
        """Note a signal, as its handler.

        Raises:
            KeyboardInterrupt: a further one.
        """
        if self.number and self.stopping:
            self.stopping = False
            raise KeyboardInterrupt
        self.number = self.number or number


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catch the signals that end a program while the block runs."""
    signals = Signals()
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, signals.note) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
