"""State of runs on disk: which are finished, can be continued, failed early or are being made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from dplq.errors import UserError
from dplq.experiments.plan import Run
from dplq.experiments.recorded import has_results
from dplq.io.runs.files import MODEL_FOLDER, PREVIOUS_RESUME_FILE, RESULTS_FILE, RESUME_FILE
from dplq.io.runs.folder import recorded_identity
from dplq.io.runs.labels import digest_now, have_changed
from dplq.io.runs.lock import OWNER_FILE, Owner, holder


class State(Enum):
    """What lies in the folder of a run."""

    FINISHED = "finished"
    CHANGED = "label file changed"  # since it finished; the run itself finds out whether labels did
    HELD = "running"  # by a process, here or elsewhere
    UNFINISHED = "unfinished"  # the same command goes on from its last epoch
    BROKEN = "failed early"  # begun, and no epoch was saved
    ABSENT = "not begun"


@dataclass(frozen=True)
class Found:
    """State of a run, and the process that holds its folder."""

    state: State
    holder: Owner | None = None


def scan(runs: Iterable[Run]) -> list[Found]:
    """Return the states of runs, in their order.

    Args:
        runs: of one plan, or several; those in one folder are looked up together.
    """
    folders = cache(_names)  # one listing for all seeds beside each other
    digest_of = cache(digest_now)
    found = []
    for run in runs:
        here = run.folder.name in folders(run.folder.parent)
        state = state_of(run.folder) if here else NOT_BEGUN
        if state is FINISHED and _has_other_labels(run, digest_of):
            state = Found(State.CHANGED)
        found.append(state)
    return found


def _has_other_labels(run: Run, digest_of: Callable[[str], str]) -> bool:
    """Return whether the files with labels that a run recorded have changed."""
    if run.data is None:
        return False
    try:
        identity = recorded_identity(run.folder)
    except UserError:  # damaged: the run says so
        return True
    return identity is not None and have_changed(identity.labels, run.data, digest_of)


def state_of(folder: Path) -> Found:
    """Return the state of the run in a folder."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry for entry in entries}
            if RESULTS_FILE in found and has_results(folder):
                return FINISHED
    except (FileNotFoundError, NotADirectoryError):
        return NOT_BEGUN
    if OWNER_FILE in found and (owner := holder(folder)):
        return Found(State.HELD, owner)
    resume = (RESUME_FILE, PREVIOUS_RESUME_FILE)
    if MODEL_FOLDER in found and any((folder / MODEL_FOLDER / name).is_file() for name in resume):
        return UNFINISHED
    return BROKEN if found else NOT_BEGUN


NOT_BEGUN, BROKEN = Found(State.ABSENT), Found(State.BROKEN)
UNFINISHED, FINISHED = Found(State.UNFINISHED), Found(State.FINISHED)


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
