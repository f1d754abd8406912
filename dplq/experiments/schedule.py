"""Order of a plan's runs: which may start, and what a failure keeps from starting."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dplq.experiments.plan import Run


class Stage(Enum):
    """Where a run of a plan is."""

    WAITING = "waiting"  # for its model, or for a place to run
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"  # another process holds its folder
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"  # its model failed


@dataclass
class Item:
    """A run of a plan, and how far it is.

    Attributes:
        run: it.
        index: its place in the plan.
        stage: where it is.
        reason: why it failed, was skipped, or who else runs it.
        note: file that keeps its folder in use, of a process on another machine.
        code: exit code of a failed one.
        log: file of its output; None: the terminal.
        log_size: of the log before it started, in bytes.
        since: when it started, in seconds of `time.monotonic`.
        refused: how often its process found the folder in use.
        recheck: it has results, and its own process is to find out whether they are of its data.
    """

    run: Run
    index: int
    stage: Stage = Stage.WAITING
    reason: str = ""
    note: Path | None = None
    code: int = 0
    log: Path | None = None
    log_size: int = 0
    since: float = 0.0
    refused: int = 0
    recheck: bool = False
    tests: list[Item] = field(default_factory=list, repr=False)  # those that need its model

    @property
    def is_queued(self) -> bool:
        """Return whether its engine has it, and its process has written nothing yet."""
        if self.stage is not Stage.RUNNING or self.log is None:
            return False
        try:
            return self.log.stat().st_size <= self.log_size
        except OSError:
            return True


class Schedule:
    """The runs of a plan in their order, each ready once its model is trained.

    Args:
        runs: of the plan; a run tests the model of the run whose folder is its `model`.

    Attributes:
        items: of all runs.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        once = dict.fromkeys(runs)  # what is given twice is run once
        self.items = [Item(run, index) for index, run in enumerate(once)]
        self._by_folder = {item.run.folder: item for item in self.items}
        self._ready: list[int] = []
        for item in self.items:
            if (model := self.model(item)) is None:
                heapq.heappush(self._ready, item.index)
            else:
                model.tests.append(item)

    def model(self, item: Item) -> Item | None:
        """Return the training run of this plan whose model a run tests."""
        return self._by_folder.get(item.run.model) if item.run.model else None

    def next(self) -> Item | None:
        """Return the first run that may start, which is then no longer ready; None: none may."""
        while self._ready:
            item = self.items[heapq.heappop(self._ready)]
            if item.stage is Stage.WAITING:
                return item
        return None

    def put_back(self, item: Item) -> None:
        """Make a run ready again."""
        item.stage = Stage.WAITING
        heapq.heappush(self._ready, item.index)

    def finish(self, item: Item) -> None:
        """Note that the results of a run are there; the tests of its model are ready."""
        item.stage, item.reason = Stage.FINISHED, ""
        for test in item.tests:
            heapq.heappush(self._ready, test.index)

    def fail(self, item: Item, code: int, reason: str) -> None:
        """Note that a run failed, and skip what needs its model."""
        item.stage, item.code, item.reason = Stage.FAILED, code, reason
        for test in item.tests:
            if test.stage is Stage.WAITING:
                test.stage, test.reason = Stage.SKIPPED, f"its model failed: {item.run.folder}"

    def at(self, stage: Stage) -> list[Item]:
        """Return the runs that are at a stage."""
        return [item for item in self.items if item.stage is stage]
