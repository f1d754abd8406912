"""What the user sees of a plan that is carried out: a line for each event."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TextIO

from dplq.errors import few
from dplq.experiments.schedule import Item, Stage
from dplq.io.exit_code import until_closed

AGAIN = "To go on, fix the cause and give the same command again; finished runs are kept."
MOST = 20  # failed runs, and skipped ones, that the last lines name


class Lines:
    """One line an event, for logs and pipes, and where the output of the runs is on the terminal.

    Args:
        brief: count what was finished before instead of naming it, and report what ends: for runs
            at once, whose output is elsewhere.

    Attributes:
        closed: whether nobody reads the output any more.
    """

    def __init__(self, brief: bool = False) -> None:
        self._brief = brief
        self._items: Sequence[Item] = ()
        self._before = 0
        self._waits = False
        self.closed = False

    def shown(self, items: Sequence[Item]) -> AbstractContextManager[object]:
        """Return a context in which the runs of these items go on."""
        self._items = items
        if self._brief and self._before:
            self._say(f"already finished: {self._before:,} of {len(items):,} runs")
        return nullcontext()

    def refresh(self) -> None:
        """Show the present state, where it is shown all the time."""

    def finished_before(self, item: Item) -> None:
        """Report a run whose results were there."""
        self._before += 1
        if self._items or not self._brief:
            self._say(f"already finished: {item.run.folder}")

    def started(self, item: Item) -> None:
        """Report a run that starts."""
        self._say(f"== {item.run.title}: {item.run.folder}")

    def finished(self, item: Item) -> None:
        """Report a run that has ended with results."""
        if self._brief:
            took = f" ({time.monotonic() - item.since:.0f} s)" if item.since else ""
            self._say(f"finished{took}: {item.run.folder}{self._count()}")

    def failed(self, item: Item) -> None:
        """Report a run that failed."""
        self._say(f"error: {failure(item)}", sys.stderr)

    def elsewhere(self, item: Item) -> None:
        """Report a run that another process makes."""
        self._say(f"running elsewhere ({item.reason}): {item.run.folder}")

    def waits(self, items: Sequence[Item]) -> None:
        """Report, once, that only runs of other processes are left."""
        if not self._waits:
            self._waits = True
            who = few(sorted({item.reason for item in items}))
            self._say(
                f"waiting for {len(items):,} run(s) of other processes ({who}); what they leave "
                "unfinished is run here"
            )
            if hint := left_behind(items):
                self._say(hint)

    def stops(self, number: int) -> None:
        """Report that the runs under way are being ended.

        Args:
            number: of runs.
        """
        if self._brief:
            self._say(f"stopping {number:,} run(s); a second signal kills them", sys.stderr)

    def end(self) -> None:
        """Report what failed and what was skipped."""
        failed = [item for item in self._items if item.stage is Stage.FAILED]
        skipped = [item for item in self._items if item.stage is Stage.SKIPPED]
        if not failed:
            return
        lines = [AGAIN]
        if len(failed) + len(skipped) > 1:
            count = f"error: {len(failed):,} of {len(self._items):,} runs failed"
            also = f", {len(skipped):,} skipped" if skipped else ""
            texts = [f"  {failure(item)}" for item in failed]
            whys = [f"  skipped: {item.run.title} ({item.reason})" for item in skipped]
            lines = [f"{count}{also}:", *_first(texts), *_first(whys), AGAIN]
        self._say("\n".join(lines), sys.stderr)

    def _say(self, text: str, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        with self._output(stream):
            print(text, file=stream)

    def _output(self, stream: TextIO) -> AbstractContextManager[None]:
        return until_closed(stream, self._note_closed)

    def _note_closed(self) -> None:
        self.closed = True

    def _count(self) -> str:
        done = sum(item.stage is Stage.FINISHED for item in self._items)
        return f" [{done:,} of {len(self._items):,}]"


Progress = Lines


def failure(item: Item) -> str:
    """Return on one line which run failed, why, and where to look."""
    why = f": {item.reason}" if item.reason else ""
    where = f"Its log: {item.log}" if item.log else f"Its folder: {item.run.folder}"
    ends = why.endswith((".", "?", "!"))
    return f"failed (exit code {item.code}): {item.run.title}{why}{'' if ends else '.'} {where}"


def left_behind(items: Iterable[Item]) -> str:
    """Return what to do about processes of other machines that were killed; "" for none."""
    notes = [item.note for item in items if item.note]
    return f"If one of them does not run any more, delete its file: {few(notes)}" if notes else ""


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - MOST:,} more"] if len(lines) > MOST else []
    return [*lines[:MOST], *more]
