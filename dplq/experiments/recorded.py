"""Settings of runs, as ``settings.txt`` records them, compared with those of a plan."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dplq.errors import UserError, few
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, SETTINGS_FILE
from dplq.io.runs.settings import INDIFFERENT

logger = logging.getLogger(__name__)

CURE = "Give another OUT, or remove that folder to make its run again."
DATA = "data "  # begins the line with the folder of the datasets; nothing follows for built-in ones


def holds_work(folder: Path) -> bool:
    """Return whether a folder has a result or a model, and not logs alone."""
    return any(os.path.lexists(f"{folder}/{name}") for name in (RESULTS_FILE, MODEL_FOLDER))


class RecordedSettings:
    """The settings of runs that have done work, as their folders record them; each read once."""

    def __init__(self) -> None:
        self._of_work = cache(_read)
        self._of_seeds = cache(self._read_seeds)

    def check(self, folder: Path, wanted: list[str]) -> None:
        """Refuse a folder, or seeds beside it, made with other settings.

        Args:
            folder: of a run.
            wanted: the lines of its settings.

        Raises:
            UserError: they were.
        """
        had = self._of_work(folder)
        if had is not None:
            if not had:
                raise UserError(
                    f"{folder} holds files but no {SETTINGS_FILE}: how they were made is "
                    f"unknown. {CURE}"
                )
            _refuse_difference(folder, had, wanted)
        for other, settings in self._of_seeds(folder.parent):  # seeds are averaged
            _refuse_difference(other, settings, wanted, but=("seed ", "model "))

    def _read_seeds(self, folder: Path) -> list[tuple[Path, list[str]]]:
        """Return the folders of seeds in a folder that hold work, and their settings."""
        try:
            names = sorted(name for name in os.listdir(folder) if name.startswith("seed"))
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [(folder / name, self._of_work(folder / name)) for name in names]
        return [(path, settings) for path, settings in found if settings]


def _read(folder: Path) -> list[str] | None:
    """Return the lines of a folder's ``settings.txt``, [] without; None where no work is done."""
    if not holds_work(folder):
        return None
    try:
        text = (folder / SETTINGS_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.rstrip("\n").splitlines()


def _refuse_difference(
    folder: Path, had: list[str], wanted: list[str], but: tuple[str, ...] = ()
) -> None:
    if _same_data(_data_of(had), _data_of(wanted)):
        but = (*but, DATA)
    changed = [*_without(had, wanted, but, "there"), *_without(wanted, had, but, "now")]
    if changed:
        raise UserError(f"{folder} was made with other settings ({few(changed)}). {CURE}")


def _without(
    lines: list[str], others: list[str], but: tuple[str, ...], where: str
) -> Iterator[str]:
    """Yield the lines that are not among the others, marked with where they are.

    Keys that change no result do not count.
    """
    for line in lines:
        key, _, _ = line.partition(" ")
        if line not in others and not line.startswith(but or "\n") and key not in INDIFFERENT:
            yield f"{where}: {line}"


def _data_of(lines: list[str]) -> str | None:
    """Return the folder of the datasets; "" for built-in ones, None where no line has it."""
    return next((line.removeprefix(DATA) for line in lines if line.startswith(DATA)), None)


@cache
def _same_data(had: str | None, wanted: str | None) -> bool:
    """Return whether two data folders may be taken for one: the first is gone, or no matter.

    Built-in datasets lie in none, though one was recorded once.
    """
    if had is None or wanted is None or had == wanted:
        return False
    if wanted and not os.path.exists(had):
        logger.warning(
            "The data folder %s is gone: what was made with it counts as made with %s.",
            *(had, wanted),
        )
        return True
    return not wanted
