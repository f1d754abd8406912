"""A campaign of mutated inputs: how many, what may come of each, and the count of it.

An input is accepted, and then what it gives is checked by the test, or it is refused by exactly one
user error. Anything else fails the test: another exception (a traceback for the user), more time
than `SECONDS` (a hang), a file that is changed or gone.
"""

from __future__ import annotations

import contextlib
import signal
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings

from dplq.host.dassl import user_error_types

FEW = 1200  # inputs of a usual test run
SECONDS = 30.0  # for one input; hundreds of times what any needs
LONGEST = 6000  # characters of a message: it may name a path twice, and list choices

_inputs = FEW
_how: dict[str, Any] = {
    "deadline": None,  # `outcome` has one
    "database": None,
    "derandomize": True,
    "phases": (Phase.generate, Phase.shrink),
    "print_blob": True,
    "report_multiple_bugs": False,
    "suppress_health_check": list(HealthCheck),
}
tally: dict[str, Counter[str]] = defaultdict(Counter)


def begin(inputs: int | None) -> None:
    """Set how many inputs the tests of this process try; None: a few, always the same ones."""
    global _inputs
    _inputs = inputs or FEW
    _how["derandomize"] = inputs is None


def fuzzed(share: float, few: int = 0, **strategies: Any) -> Callable[[Any], Any]:
    """Return a decorator: run a test on inputs that are drawn from strategies.

    Args:
        share: of all inputs of the campaign.
        few: how many inputs of a usual test run, for a test that is slow; 0: its share.
        **strategies: of the test's arguments.
    """
    inputs = few if few and _how["derandomize"] else max(3, round(share * _inputs))

    def decorate(test: Any) -> Any:
        profile = settings(**_how, max_examples=inputs)
        return profile(given(**strategies)(test))

    return decorate


class Refusal(NamedTuple):
    """Text of the user error in which a refused input ends."""

    message: str

    def __str__(self) -> str:
        return self.message


class Held(SimpleNamespace):
    """What a fixture gives; the report of a failed test does not print it."""

    def __repr__(self) -> str:
        return f"Held({', '.join(vars(self))})"


class Hang(BaseException):
    """Error for an input that takes too long; no `except Exception` hides it."""


@contextlib.contextmanager
def deadline(seconds: float = SECONDS) -> Iterator[None]:
    """Raise `Hang` in what takes longer."""

    def ring(*_: Any) -> None:
        raise Hang(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(kind: str, function: Callable[..., Any], *arguments: Any, lines: int = 1) -> Any:
    """Return what a function returns, or a `Refusal`, whose text is checked.

    Args:
        kind: of the input, for the report.
        function: what takes the input.
        *arguments: its arguments.
        lines: of a message at most.
    """
    count, began = tally[kind], time.perf_counter()
    count["inputs"] += 1
    try:
        with deadline():
            result = function(*arguments)
        count["accepted"] += 1
        return result
    except user_error_types() as error:
        check_message(str(error), lines)
        count["refused"] += 1
        return Refusal(str(error))
    except BaseException as error:
        count["hangs" if isinstance(error, Hang) else "tracebacks"] += 1
        raise
    finally:
        took = round(1000 * (time.perf_counter() - began))
        count["milliseconds"] += took
        count["slowest"] = max(count["slowest"], took)


def check_message(message: str, lines: int = 1) -> None:
    """Require a message that can be printed, on so many lines at most."""
    assert message.strip(), "an empty message"
    message.encode()
    assert len(message.splitlines()) <= lines, message
    assert len(message) < LONGEST, message
    wrong = {c for c in message if unicodedata.category(c) in ("Cc", "Cs")} - {"\n"}
    assert not wrong, f"{wrong!r} in {message!r}"


def contents(*folders: Path) -> dict[str, bytes]:
    """Return the content of every file below some folders, by path."""
    found = (path for folder in folders for path in sorted(folder.rglob("*")))
    return {str(path): path.read_bytes() for path in found if path.is_file()}


@contextlib.contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """Require that no file below some folders is changed or gone afterwards."""
    before = contents(*folders)
    yield
    after = contents(*folders)
    changed = [path for path, content in before.items() if after.get(path) != content]
    assert not changed, f"changed or gone: {changed}"


def report() -> str:
    """Return a table of what came of all inputs; times in seconds."""
    columns = ("inputs", "accepted", "refused", "tracebacks", "hangs")
    rows = [("kind", *columns, "seconds", "slowest")]
    total: Counter[str] = Counter()
    for kind, count in [*sorted(tally.items()), ("all", total)]:
        times = (f"{count[column] / 1000:.2f}" for column in ("milliseconds", "slowest"))
        rows.append((kind, *(str(count[column]) for column in columns), *times))
        if kind != "all":
            slowest = max(total["slowest"], count["slowest"])
            total.update(count)
            total["slowest"] = slowest
    return "\n".join(f"{row[0]:28}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)
