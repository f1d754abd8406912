"""Interface of a tracker, and what a run sends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from dplq.errors import UserError

PROJECT = "quaternion-prompt"  # where neither the config nor the environment names one
Values = dict[str, float]  # by name
Epochs = dict[int, Values]  # values of the epochs, by number from 1


class NotSetUp(UserError):
    """Error for a service that the user has to set up before a training."""


@dataclass(frozen=True)
class TrackedRun:
    """Run that is tracked.

    Attributes:
        folder: of the run.
        name: of the run, without a path.
        group: name of the runs that differ from it in their seed alone.
        project: of the services; "" is what their own environment variables say, or `PROJECT`.
        settings: config keys of the run by dotted names, JSON-able.
        earlier: values of the epochs that were finished before.
    """

    folder: Path
    name: str
    group: str
    project: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    earlier: Epochs = field(default_factory=dict)


class Tracker(Protocol):
    """Place that keeps the values of a run.

    A method may raise anything: `Trackers` warns once, and the training goes on.

    Attributes:
        name: as `TRAIN.TRACK` has it.
        is_local: a call that fails does so at once, so that every epoch may try again.
    """

    name: ClassVar[str]
    is_local: ClassVar[bool]

    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with it.

        Raises:
            NotSetUp: the training does not begin.
        """

    def log(self, epoch: int, values: Values) -> None:
        """Keep the values of a finished epoch, counted from 1."""

    def results(self, values: Values) -> None:
        """Keep the results of a test."""

    def close(self, *, failed: bool) -> None:
        """End the run; `failed`: it was stopped, and may be resumed."""
