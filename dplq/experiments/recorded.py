"""Settings of runs, as ``settings.txt`` records them, compared with those of a plan."""

from __future__ import annotations

import ast
import json
import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dplq.errors import UserError, few
from dplq.io.files import RECORDED, file_digest
from dplq.io.runs.files import MODEL_FOLDER, RESULTS_FILE, SETTINGS_FILE
from dplq.io.runs.folder import recorded_identity
from dplq.io.runs.settings import INDIFFERENT

logger = logging.getLogger(__name__)

CURE = "Give another OUT, or remove that folder to make its run again."
DATA = "data "  # begins the line with the folder of the datasets; nothing follows for built-in ones


def has_results(folder: Path) -> bool:
    """Return whether the results of a finished run lie in a folder, whole.

    Those that may not be read count as whole: what reads them says so.
    """
    try:
        content = (folder / RESULTS_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    except OSError:
        return True
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:  # cut off by a full disk
        return False


def holds_work(folder: Path) -> bool:
    """Return whether a folder has a result or a model, and not logs alone."""
    return any(os.path.lexists(f"{folder}/{name}") for name in (RESULTS_FILE, MODEL_FOLDER))


class RecordedSettings:
    """The settings of runs that have done work, as their folders record them; each read once."""

    def __init__(self) -> None:
        self._of_work = cache(_read)
        self._of_seeds = cache(self._read_seeds)

    def check(self, folder: Path, wanted: list[str], model: Path | None = None) -> None:
        """Refuse a folder, or seeds beside it, made with other settings.

        Args:
            folder: of a run.
            wanted: the lines of its settings.
            model: folder of the training run that it tests, if any.

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
            try:
                _refuse_difference(folder, had, wanted)
            except UserError:
                if model is None or not _tested_checkpoint_is_there(folder, model):
                    raise
                _refuse_difference(folder, had, wanted, but=("model ",))
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


def _tested_checkpoint_is_there(folder: Path, model: Path) -> bool:
    """Return whether a test recorded the checkpoint that a test of its model is of now.

    The model's results, whose checksum is among the settings, may have been made again.
    """
    try:
        identity = recorded_identity(folder)
    except UserError:  # damaged
        return False
    if identity is None or identity.model is None:
        return False
    from dplq.io.checkpoint import find_checkpoint  # imports torch, which planning does not need

    try:
        tested_now = find_checkpoint(model / MODEL_FOLDER, None)
    except UserError:
        return False
    return file_digest(tested_now, RECORDED) == identity.model


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

    Keys that change no result do not count, nor does how a value is written.
    """
    known = set(map(_as_read, others))
    for line in lines:
        key, _, _ = line.partition(" ")
        if _as_read(line) in known or line.startswith(but or "\n") or key in INDIFFERENT:
            continue
        yield f"{where}: {line}"


@cache
def _as_read(line: str) -> str:
    """Return a line with a number, list or text in quotes as Python writes it: 1e-2 as 0.01."""
    key, _, value = line.partition(" ")
    try:
        return f"{key} {ast.literal_eval(value)!r}" if "." in key else line
    except (ValueError, SyntaxError, TypeError):  # a plain word
        return line


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
