"""Signals that end a plan: the first is noted, a second one interrupts the wait for the runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from dplq.io.exit_code import until_closed

STOPPED = "stopped; to go on, give the same command again"
CLOSED = getattr(signal, "SIGPIPE", signal.SIGTERM)  # stands for an output that nobody reads
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

    def note_closed(self) -> None:
        """Note that nobody reads the output any more, unless a signal came before."""
        self.number = self.number or CLOSED


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catch the signals that end a program while the block runs; blocks inside share them."""
    for number in _numbers():
        outer = getattr(signal.getsignal(number), "__self__", None)
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


def run_until_stopped(command: Callable[[], int]) -> int:
    """Run a command; return its exit code, or on a signal 128 and its number, with a line."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise Stopped(number)

    try:
        with _handled_by(stop):
            return command()
    except Stopped as stopped:
        say_stopped()
        return 128 + stopped.number


def say_stopped() -> None:
    """Say that the program was stopped, if the terminal is still there."""
    with until_closed(sys.stderr):
        print(STOPPED, file=sys.stderr)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    # One that is ignored stays so: by nohup, or in the background of a script.
    numbers = [number for number in _numbers() if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _numbers() -> list[int]:
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
