"""Predictions of a test with their probabilities: ``predictions.csv`` as arrays."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dplq.errors import UserError, few, printable
from dplq.evaluation.prediction_rows import (
    REMEDY,
    Record,
    RowParser,
    column_names,
    encoded,
    number_cells,
    records,
)
from dplq.io.atomic import write_blocks_atomically
from dplq.io.validation.paths import is_file
from dplq.io.validation.schema import InvalidContent

BLOCK = 1000  # rows that are converted to text at once


@dataclass
class PredictionTable:
    """Labels, predictions and probabilities of N images and K classes.

    Attributes:
        classes: their names, K, no two equal.
        paths: of the images, N: relative to DATASET.ROOT, or absolute.
        labels: true classes, int64 (N,); -1 where unknown.
        predictions: predicted classes, int64 (N,).
        groups: of the images, N: patient, scene or site; "" for none.
        probabilities: float32 (N, K).

    Raises:
        ValueError: the lengths do not agree, two classes have one name, or an index is none.
    """

    classes: list[str]
    paths: list[str]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    groups: list[str]
    probabilities: NDArray[np.float32]

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels, dtype=np.int64)
        self.predictions = np.asarray(self.predictions, dtype=np.int64)
        self.probabilities = np.asarray(self.probabilities, dtype=np.float32)
        images, classes = len(self.paths), len(self.classes)
        column_names(self.classes)
        if self.probabilities.shape != (images, classes):
            shape = self.probabilities.shape
            raise ValueError(f"probabilities are {shape}, expected ({images}, {classes})")
        for name in ("labels", "predictions", "groups"):
            if len(getattr(self, name)) != images:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, not {images}")
        for name, least in (("labels", -1), ("predictions", 0)):
            values = getattr(self, name)
            if images and (values.min() < least or values.max() >= classes):
                raise ValueError(f"{name} must be from {least} to {classes - 1}")

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PredictionTable:
        """Return the content of a ``predictions.csv``, checked whole.

        Raises:
            UserError: it cannot be read, is cut, or holds something else; file, line and what is
                expected are named.
        """
        with _opened(path) as (parser, found, _):
            paths: list[str] = []
            groups: list[str] = []
            labels, predictions, numbers = array("q"), array("q"), array("f")
            for record in found:
                row = parser.parse(record)
                paths.append(row.path)
                groups.append(row.group)
                labels.append(row.label)
                predictions.append(row.prediction)
                numbers.extend(row.probabilities)
        return cls(
            parser.classes,
            paths,
            np.array(labels, dtype=np.int64),
            np.array(predictions, dtype=np.int64),
            groups,
            np.array(numbers, dtype=np.float32).reshape(len(paths), len(parser.classes)),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table, in one step.

        Raises:
            UserError: the file cannot be written, or a path is not UTF-8.
        """
        write_blocks_atomically(path, self._blocks())

    def _blocks(self) -> Iterator[bytes]:
        """Yield the file in parts: the cells of all rows at once take 15 times the file's size."""
        yield encoded([column_names(self.classes)])
        for start in range(0, len(self), BLOCK):
            part = slice(start, start + BLOCK)
            rows = _rows(
                self.classes,
                self.paths[part],
                self.probabilities[part],
                labels=self.labels[part],
                predictions=self.predictions[part],
                groups=self.groups[part],
            )
            yield encoded(rows)


class PredictionWriter:
    """Writes a ``predictions.csv`` batch by batch, and continues one that was cut.

    Rows are on disk when `add` returns, so that a process that is killed loses its last batch at
    most. A context manager.

    Args:
        path: the file. Finished rows that are there stay; a cut last line is removed.
        classes: names, K.

    Attributes:
        done: paths of the rows that were there, in their order.

    Raises:
        UserError: a file is there that holds something else, or other classes; or it cannot be
            written.
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str]) -> None:
        self.path, self.classes = Path(path), list(classes)
        header = encoded([column_names(self.classes)])
        end, self.done = self._finished(header)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            mode = "r+b" if self.path.exists() else "wb"
            self._file = open(self.path, mode)  # noqa: SIM115  see close()
            self._file.truncate(end)
            self._file.seek(end)
        except OSError as error:
            raise self._unwritable(error) from error
        if not end:
            self._write(header)

    def _finished(self, header: bytes) -> tuple[int, list[str]]:
        """Return the position after the last finished row, and the paths of all."""
        if not is_file(self.path):
            return 0, []
        with open(self.path, "rb") as file:
            start = file.read(len(header))
        if len(start) < len(header) and header.startswith(start):  # cut in the header
            return 0, []
        with _opened(self.path) as (parser, found, end):
            if parser.classes != self.classes:
                raise InvalidContent(
                    printable(str(self.path)),
                    f"it has the classes {few(parser.classes)}, not {few(self.classes)}",
                    "Give another file, or delete it.",
                )
            done = []
            for record in found:
                if not record.is_whole:
                    break
                done.append(parser.parse(record).path)
                end = record.end
        return end, done

    def add(
        self,
        paths: Sequence[str],
        probabilities: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        predictions: ArrayLike | None = None,
        groups: Sequence[str] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            paths: of the images, B.
            probabilities: (B, K).
            labels: true classes, (B,), -1 where unknown; None: of no image known.
            predictions: (B,); None: the most probable class.
            groups: B, "" for none; None: no image has one.

        Raises:
            UserError: the file cannot be written, or a path is not UTF-8.
        """
        numbers = np.asarray(probabilities, dtype=np.float32)
        rows = _rows(
            self.classes,
            paths,
            numbers,
            labels=np.full(len(paths), -1) if labels is None else np.asarray(labels),
            predictions=numbers.argmax(1) if predictions is None else np.asarray(predictions),
            groups=[""] * len(paths) if groups is None else groups,
        )
        self._write(encoded(rows))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"Cannot write {self.path}: {error.strerror or error}. Free some space or give another "
            "file, then run the same command again: it continues."
        )

    def close(self) -> None:
        """Flush to disk and close the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # a pipe or a device has nothing to flush
                os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike[str],
) -> Iterator[tuple[RowParser, Iterator[Record], int]]:
    """Yield what parses the rows of a file, its records, and the position after the header."""
    where = printable(str(path))
    if not is_file(path):
        raise InvalidContent(where, "there is no such file", REMEDY)
    try:
        with open(path, "rb") as file:
            found = records(file, where)
            header = next(found, None)
            if header is None or not header.cells:
                raise InvalidContent(where, "it is empty", REMEDY)
            yield RowParser(header, where), found, header.end
    except OSError as error:
        raise InvalidContent(where, error.strerror or str(error), REMEDY) from error


def _rows(
    classes: Sequence[str],
    paths: Sequence[str],
    probabilities: NDArray[np.float32],
    *,
    labels: NDArray[np.int64],
    predictions: NDArray[np.int64],
    groups: Sequence[str],
) -> Iterator[list[str]]:
    """Yield the cells of every row; raise UserError for a name that is not UTF-8."""
    for name in (*paths, *groups):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{printable(name)} is not UTF-8: rename it.") from error
    names = [*classes, ""]  # the last is that of -1
    columns = (paths, labels.tolist(), predictions.tolist(), groups, number_cells(probabilities))
    for path, label, prediction, group, numbers in zip(*columns, strict=True):
        yield [path, names[label], names[prediction], group, *numbers]
