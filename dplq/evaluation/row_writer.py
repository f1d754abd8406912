"""A CSV file of predictions that is written batch by batch, and continued where it was cut."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dplq.errors import UserError
from dplq.evaluation.prediction_rows import CellParser, Record, encoded, opened_rows
from dplq.io.validation.paths import is_file

if TYPE_CHECKING:
    from typing_extensions import Self


class Known(NamedTuple):
    """What a row says of an image: index of the label or -1, that of the prediction, group."""

    label: int
    prediction: int
    group: str


class RowWriter(ABC):
    """Writes rows that begin with path, label and prediction.

    Rows are on disk when `add_rows` returns, so that a process that is killed loses its last batch
    at most. A context manager.

    Args:
        path: the file. Finished rows that are there stay; a cut last line is removed.
        classes: names, K.
        columns: names of the columns.

    Attributes:
        done: paths of the rows that were there, in their order.
        known: what these rows say of their images.

    Raises:
        UserError: a file is there that holds something else; or it cannot be written.
    """

    _has_failed = False

    def __init__(
        self, path: str | os.PathLike[str], classes: Sequence[str], columns: Sequence[str]
    ) -> None:
        self.path, self.classes, self.columns = Path(path), list(classes), list(columns)
        self.done: list[str] = []
        self.known: list[Known] = []
        header = encoded([self.columns])
        end = self._read_finished(header)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mode = "r+b" if self.path.exists() else "wb"
            self._file = open(self.path, mode)  # noqa: SIM115  see close()
            if self._file.seek(0, os.SEEK_END) > end:  # else the file's time stays what it was
                self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise self._unwritable(error) from error
        if not end:
            self._write(header)

    @abstractmethod
    def parser_of(self, header: Record, where: str) -> CellParser:
        """Return the parser of a file that is there; refuse (UserError) one of something else."""

    def _read_finished(self, header: bytes) -> int:
        """Read the finished rows; return the position after the last one."""
        if not is_file(self.path):
            return 0
        with open(self.path, "rb") as file:
            start = file.read(len(header))
        if len(start) < len(header) and header.startswith(start):  # cut in the header
            return 0
        shared: dict[Known, Known] = {}  # few differ, and there may be a million rows
        with opened_rows(self.path, self.parser_of) as (parser, found, end):
            for record in found:
                if not record.is_whole:
                    break
                row = parser.parse(record)
                known = Known(row.label, row.prediction, row.group)
                self.done.append(row.path)
                self.known.append(shared.setdefault(known, known))
                end = record.end
        return end

    def add_rows(self, rows: Iterable[Sequence[str]]) -> None:
        """Write a batch, given as the cells of its rows."""
        self._write(encoded(rows))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        self._has_failed = True
        return UserError(
            f"Cannot write {self.path}: {error.strerror or error}. Free some space or give another "
            "file, then run the same command again: it continues."
        )

    def close(self) -> None:
        """Flush to disk and close the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # a pipe or a device has nothing to flush
                os.fsync(self._file.fileno())
            try:
                self._file.close()
            except OSError as error:  # what could not be written is tried once more
                if not self._has_failed:
                    raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
