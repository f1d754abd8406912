"""All trackers of a run: which there are, and that none of them stops a training."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from dplq.errors import few, one_line, shown, suggest

from .base import NotSetUp, TrackedRun, Tracker, Values
from .epochs import EpochTable

# Names of TRAIN.TRACK, which are those of their packages: module here and class of the tracker.
SERVICES = {
    "wandb": ("wandb_tracker", "WandbTracker"),
    "mlflow": ("mlflow_tracker", "MLflowTracker"),
}
AT_THE_END = "metrics.csv has the values of all epochs."

logger = logging.getLogger(__name__)


def services(track: str) -> list[str]:
    """Return the services that ``TRAIN.TRACK`` names, each once: ``"wandb, mlflow"``."""
    return list(dict.fromkeys(name.strip() for name in track.split(",") if name.strip()))


def check_services(value: Any) -> str:
    """Check a value of ``TRAIN.TRACK``: known names, whose packages are installed."""
    if not isinstance(value, str):
        return f" is {shown(value)}; it must be names of services, such as 'wandb,mlflow'."
    names = services(value)
    for name in names:
        if name not in SERVICES:
            return f" '{name[:100]}' is unknown.{suggest(name[:100], SERVICES)}"
    if missing := [name for name in names if not _is_installed(name)]:
        return f" needs {few(missing)}: pip install {' '.join(missing)}."
    return ""


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name has none


def open_trackers(track: str, *, with_table: bool = True) -> Trackers:
    """Return the trackers of a run: the table, and the services that ``TRAIN.TRACK`` names.

    Args:
        track: value of ``TRAIN.TRACK``.
        with_table: False for a test alone, which may be in the folder of a training.
    """
    tables = [EpochTable()] if with_table else []
    return Trackers([*tables, *map(_service, services(track))])


def _service(name: str) -> Tracker:
    module, tracker = SERVICES[name]
    found: Tracker = getattr(importlib.import_module(f"{__package__}.{module}"), tracker)()
    return found


class Trackers:
    """Trackers of one run. One that fails warns once, and never stops the training.

    Values that it could not keep are sent again: at the next epoch if it is local, else when the
    results are there, because a server that does not answer takes its time each time.

    Args:
        trackers: of the run.
    """

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self.trackers = list(trackers)
        self.pending: dict[str, list[tuple[int, Values]]] = {}
        self.warned: set[str] = set()

    def start(self, run: TrackedRun) -> None:
        """Begin the run everywhere; a tracker that cannot is left out.

        Raises:
            NotSetUp: the user has to set up a service first.
        """
        begun: list[Tracker] = []
        for tracker in self.trackers:
            try:
                tracker.start(run)
            except NotSetUp:
                self.trackers = begun
                self.close(failed=True)  # else a service goes on to show a run
                raise
            except Exception as error:
                self._warn(tracker, error, "This training is not tracked there.")
            else:
                begun.append(tracker)
        self.trackers = begun

    def log(self, epoch: int, values: Values) -> None:
        """Keep the values of a finished epoch, counted from 1."""
        for tracker in self.trackers:
            waiting = self.pending.setdefault(tracker.name, [])
            waiting.append((epoch, values))
            if tracker.is_local or tracker.name not in self.warned:
                self._send_pending(tracker, waiting)

    def results(self, values: Values) -> None:
        """Keep the results of a test."""
        for tracker in self.trackers:
            if self._send_pending(tracker, self.pending.get(tracker.name, [])):
                self._try(tracker, partial(tracker.results, values), AT_THE_END)

    def close(self, *, failed: bool = False) -> None:
        """End the run everywhere; a second time nothing is done."""
        trackers, self.trackers = self.trackers, []
        for tracker in trackers:
            if failed or self._send_pending(tracker, self.pending.get(tracker.name, [])):
                self._try(tracker, partial(tracker.close, failed=failed), AT_THE_END)

    def _send_pending(self, tracker: Tracker, waiting: list[tuple[int, Values]]) -> bool:
        """Send a tracker its pending values; return whether it kept them all."""
        again = "at the next epoch" if tracker.is_local else "when the results are there"
        then = f"The training goes on; it is tried again {again}."
        while waiting and self._try(tracker, partial(tracker.log, *waiting[0]), then):
            waiting.pop(0)
        return not waiting

    def _try(self, tracker: Tracker, call: Callable[[], None], then: str) -> bool:
        """Return whether a call succeeded; else warn, with what comes `then`."""
        try:
            call()
        except Exception as error:
            self._warn(tracker, error, then)
            return False
        return True

    def _warn(self, tracker: Tracker, error: Exception, then: str) -> None:
        if tracker.name not in self.warned:
            self.warned.add(tracker.name)
            logger.warning("Tracking by %s failed (%s). %s", tracker.name, one_line(error), then)
