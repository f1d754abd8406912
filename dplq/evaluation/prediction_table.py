"""Predictions of a test with their probabilities: ``predictions.csv`` as arrays."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dplq.errors import UserError, few, printable
from dplq.evaluation.prediction_rows import (
    Record,
    RowParser,
    column_names,
    encoded,
    number_cells,
    opened_rows,
)
from dplq.evaluation.row_writer import RowWriter
from dplq.io.atomic import write_blocks_atomically
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

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> PredictionTable:
        """Return the table of some images, by their indices."""
        return PredictionTable(
            self.classes,
            [self.paths[row] for row in rows],
            self.labels[rows],
            self.predictions[rows],
            [self.groups[row] for row in rows],
            self.probabilities[rows],
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> PredictionTable:
        """Return the content of a ``predictions.csv``, checked whole.

        Raises:
            UserError: it cannot be read, is cut, or holds something else; file, line and what is
                expected are named.
        """
        with opened_rows(path, RowParser) as (parser, found, _):
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


class PredictionWriter(RowWriter):
    """Writes a ``predictions.csv`` batch by batch, and continues one that was cut.

    Args:
        path: the file.
        classes: names, K.

    Raises:
        UserError: a file is there that holds something else, or other classes; or it cannot be
            written.
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str]) -> None:
        super().__init__(path, classes, column_names(classes))

    def parser_of(self, header: Record, where: str) -> RowParser:
        """Return the parser of a file that is there, which has the same classes."""
        parser = RowParser(header, where)
        if parser.classes != self.classes:
            raise InvalidContent(
                where,
                f"it has the classes {few(parser.classes)}, not {few(self.classes)}",
                "Give another file, or delete it.",
            )
        return parser

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
        known = np.full(len(paths), -1) if labels is None else np.asarray(labels)
        guesses = numbers.argmax(1) if predictions is None else np.asarray(predictions)
        rows = _rows(
            self.classes,
            paths,
            numbers,
            labels=known,
            predictions=guesses,
            groups=[""] * len(paths) if groups is None else groups,
        )
        self.add_rows(rows)


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
