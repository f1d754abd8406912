"""The table of a plan's runs, on a terminal, while they run."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dplq.experiments.progress import Lines, left_behind
from dplq.experiments.schedule import Item, Stage
from dplq.experiments.watch import how_far

EVERY = 1.0  # seconds between two states of the table
OTHER_LINES = 4  # of the terminal: counts, heading, and what is printed below
HINT_LINES = 3  # for the names of files
MOST_FAILED = 5  # failed runs in the table, the last ones; the lines at the end have all


class LiveTable(Lines):
    """A table in place of the lines about runs that start and finish.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(brief=True)
        self._console = console or Console()
        # refreshed by the loop of the plan: a thread would be there when processes are started
        self._live = Live(console=self._console, auto_refresh=False)
        self._failed: list[Item] = []
        self._at = 0.0
        self._hint = ""

    @contextmanager
    def shown(self, items: Sequence[Item]) -> Iterator[object]:
        """Show the table while the block runs."""
        with super().shown(items):
            with self._output(sys.stdout):
                self._live.start()
            try:
                yield self
                self._at = 0.0
                self.refresh()  # the last state stays on the terminal
            finally:
                with self._output(sys.stdout):
                    self._live.stop()

    def refresh(self) -> None:
        """Show the present state, at most once a second."""
        if time.monotonic() - self._at >= EVERY:
            with self._output(sys.stdout):
                self._live.update(self.table(), refresh=True)
            self._at = time.monotonic()

    def started(self, item: Item) -> None:
        """Leave it to the table."""

    def finished_before(self, item: Item) -> None:
        """Count it; leave the rest to the table."""
        self._before += 1

    def finished(self, item: Item) -> None:
        """Leave it to the table."""

    def elsewhere(self, item: Item) -> None:
        """Leave it to the table."""

    def waits(self, items: Sequence[Item]) -> None:
        """Leave it to the table, but for what the user can do."""
        self._hint = left_behind(items)

    def failed(self, item: Item) -> None:
        """Note it for the table."""
        self._failed.append(item)

    def table(self) -> Group:
        """Return the counts, and the rows of what runs and what failed."""
        stages = Counter(item.stage for item in self._items)
        counts = ", ".join(f"{stages[s]:,} {s.value}" for s in Stage if stages[s])
        rows = Table(box=None, pad_edge=False)
        for name in ("", "run", "epoch", "loss", "time"):
            rows.add_column(name, no_wrap=True, overflow="ellipsis")
        failed = self._failed[-MOST_FAILED:]
        active = [i for i in self._items if i.stage in (Stage.RUNNING, Stage.ELSEWHERE)]
        other = OTHER_LINES + HINT_LINES * bool(self._hint)
        room = max(1, self._console.height - other - len(failed))
        for item in active[:room]:
            rows.add_row(*self._active(item))
        whys = [
            Text.assemble(("failed", "red"), ": ", _name(item), f": {item.reason or item.code}")
            for item in failed
        ]
        more = f" ({len(active) - room:,} more than fit here)" if len(active) > room else ""
        head = Text(f"{len(self._items):,} runs: {counts}{more}")
        hints = [Text(self._hint)] * bool(self._hint)
        return Group(head, rows, *map(_one_line, whys), *hints)

    def _active(self, item: Item) -> tuple[Text, ...]:
        epoch, loss = how_far(item.run.folder)
        if item.stage is Stage.ELSEWHERE:
            return Text("elsewhere"), _name(item), Text(epoch), Text(loss), Text(item.reason)
        seconds = int(time.monotonic() - item.since)
        took = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return (
            Text("queued" if item.is_queued else "running"),
            _name(item),
            Text(epoch),
            Text(loss),
            Text(took),
        )


def _one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _name(item: Item) -> Text:
    run = item.run
    return Text(f"{run.trainer}, {run.shots} shots: {run.title}")
