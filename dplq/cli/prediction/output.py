"""What ``dplq predict`` writes for each image: to a CSV file, or to the terminal."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from dplq.errors import UserError
from dplq.evaluation.prediction_rows import encoded, number_cells, records
from dplq.evaluation.prediction_table import PredictionWriter
from dplq.methods.prediction import probabilities, ranking

from .inputs import InputImage


class Output(Protocol):
    """Where predictions go."""

    @property
    def done(self) -> Sequence[str]:
        """Return the paths of images that are there already."""

    def add(self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor) -> None:
        """Write a batch: B images, the index of each one's class or -1, and logits (B, K)."""

    def close(self) -> None:
        """Finish writing."""


class AllClasses(PredictionWriter):
    """A CSV file in the form of a run's ``predictions.csv``."""

    def add(  # type: ignore[override]  # of images, not of columns
        self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor
    ) -> None:
        """Write a batch."""
        super().add(
            [image.path for image in images],
            probabilities(logits).numpy(),
            labels=labels,
            predictions=ranking(logits, 1)[:, 0].numpy(),
            groups=[image.group for image in images],
        )


class TopClasses:
    """A CSV file of the most probable classes, continued where it was cut.

    Args:
        path: the file.
        classes: names, K.
        topk: how many are written.

    Raises:
        UserError: the file cannot be written, or holds something else.
    """

    def __init__(self, path: Path, classes: Sequence[str], topk: int) -> None:
        self.path, self.classes, self.topk = path, list(classes), topk
        self.header = ["path", "label"]
        for place in range(1, topk + 1):
            self.header += [f"prediction_{place}", f"probability_{place}"]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115  closed by close()
            self._file.seek(0)
            end, self.done = self._finished()
            self._file.truncate(end)
        except OSError as error:
            raise self._unwritable(error) from error
        if not end:
            self._write(encoded([self.header]))

    def _finished(self) -> tuple[int, list[str]]:
        """Return the position after the last whole row, and the paths of all."""
        end, done = 0, []
        for record in records(self._file, str(self.path)):
            if not record.is_whole:
                break
            if record.line > 1:
                done.append(record.cells[0])
            elif record.cells != self.header:
                raise UserError(
                    f"{self.path} has other columns. Give another --out, or --overwrite."
                )
            end = record.end
        return end, done

    def add(self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor) -> None:
        """Write a batch."""
        names = [*self.classes, ""]  # the last is that of -1
        rows = [
            [image.path, names[label], *cells]
            for image, label, cells in zip(
                images, labels, top_cells(logits, names, self.topk), strict=True
            )
        ]
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
            "--out, then run the same command again: it continues."
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Printed:
    """A table on stdout: path, then classes with their probabilities.

    Args:
        images: all that may be written, for the widths.
        classes: names, K.
        topk: how many are printed.
    """

    done: Sequence[str] = ()

    def __init__(self, images: Sequence[InputImage], classes: Sequence[str], topk: int) -> None:
        self.classes, self.topk = list(classes), topk
        self.width = min(max(len(image.path) for image in images), 60)
        self.name_width = max(map(len, classes))

    def add(self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor) -> None:
        """Print a batch."""
        order = ranking(logits, self.topk).tolist()
        for image, best, shares in zip(images, order, probabilities(logits).tolist(), strict=True):
            cells = (f"{self.classes[k]:<{self.name_width}}  {shares[k]:.3f}" for k in best)
            print(f"{image.path:<{self.width}}", *cells, sep="  ")
        sys.stdout.flush()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def top_cells(logits: Tensor, names: Sequence[str], topk: int) -> list[list[str]]:
    """Return class and probability of the best classes, one after the other, for each image."""
    order = ranking(logits, topk)
    shares = number_cells(probabilities(logits).gather(1, order).numpy())
    return [
        [cell for k, share in zip(best, own, strict=True) for cell in (names[k], share)]
        for best, own in zip(order.tolist(), shares, strict=True)
    ]


def count_hits(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return how many images of an output file have a label, and how many of them are right."""
    labelled = right = 0
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)  # the header; the prediction follows the label
        for _, label, prediction, *_ in rows:
            labelled += bool(label)
            right += bool(label) and label == prediction
    return labelled, right
