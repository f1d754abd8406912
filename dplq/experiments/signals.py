"""Signals that end a plan: the first is noted, a second one interrupts the wait for the runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

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
    """Catch the signals that end a program while the block runs; blocks inside share them."""
    outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(outer, Signals):
        yield outer
        return
    signals = Signals()
    with _handled_by(signals.note):
        yield signals


class Stopped(BaseException):
    """A signal that ends a program; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` on a signal that ends a program while the block runs."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise Stopped(number)

    with _handled_by(stop):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
