"""``metrics.csv``: a line per epoch of a training.

It is written with and without a tracking service. The line of an epoch comes before its resume
file: a run that is killed in between repeats the epoch, and its line.
"""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from dplq.errors import few, one_line, printable
from dplq.io.atomic import write_bytes_atomically
from dplq.io.runs.files import EPOCHS_FILE

from .base import Epochs, TrackedRun, Values

COLUMNS = ("loss", "lr", "seconds", "val_accuracy", "train_accuracy")  # after the epoch

logger = logging.getLogger(__name__)


def read_epochs(folder: Path) -> Epochs:
    """Return the values of a run's epochs; a line that is damaged is left out, with a warning."""
    path = folder / EPOCHS_FILE
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("%s cannot be read (%s).", printable(str(path)), one_line(error))
        return {}
    found: Epochs = {}
    damaged = []
    for number, line in enumerate(lines, 2):
        try:
            epoch, values = _parsed(line, header.split(","))
            found[epoch] = values
        except (csv.Error, KeyError, ValueError):
            damaged.append(number)
    if damaged:
        logger.warning("%s: damaged lines are left out: %s.", printable(str(path)), few(damaged))
    return found


def _parsed(line: str, header: Sequence[str]) -> tuple[int, Values]:
    """Return the epoch and the values of a line; each alone, as a quote may be left open.

    Raises:
        csv.Error, KeyError, ValueError: it is damaged.
    """
    (fields,) = csv.reader([line], strict=True)
    row = dict(zip(header, fields, strict=True))
    epoch = int(row["epoch"])
    values = {name: float(row[name]) for name in COLUMNS if row.get(name)}
    if epoch < 1 or not all(map(math.isfinite, values.values())):
        raise ValueError(line)
    return epoch, values


class EpochTable:
    """Tracker that writes ``metrics.csv``: whole, each time, so that a failed write loses none."""

    name: ClassVar[str] = "csv"
    is_local: ClassVar[bool] = True

    def start(self, run: TrackedRun) -> None:
        """Begin the table with the epochs that were finished before."""
        self.path, self.epochs = run.folder / EPOCHS_FILE, dict(run.earlier)
        if self.epochs or self.path.is_file():
            self._write()

    def log(self, epoch: int, values: Values) -> None:
        """Add the line of an epoch."""
        self.epochs[epoch] = values
        self._write()

    def results(self, values: Values) -> None:
        """Keep nothing: ``results.json`` has them."""

    def close(self, *, failed: bool) -> None:
        """Do nothing: every line is written."""

    def _write(self) -> None:
        lines = [",".join(("epoch", *COLUMNS))]
        lines += [_line(epoch, self.epochs[epoch]) for epoch in sorted(self.epochs)]
        write_bytes_atomically(self.path, "".join(f"{line}\n" for line in lines).encode())


def _line(epoch: int, values: Values) -> str:
    known = (f"{values[name]:.8g}" if name in values else "" for name in COLUMNS)
    return ",".join((str(epoch), *known))
