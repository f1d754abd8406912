"""What ``dplq predict`` writes for each image: to a CSV file, or to the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from dplq.evaluation.prediction_rows import CellParser, Record, number_cells
from dplq.evaluation.prediction_table import PredictionWriter
from dplq.evaluation.row_writer import Known, RowWriter
from dplq.io.validation.schema import InvalidContent
from dplq.methods.prediction import probabilities, ranking

from .inputs import InputImage


class Output(Protocol):
    """Where predictions go."""

    done: list[str]  # paths of the images that are there already
    known: list[Known]  # what is written of them
    has_groups: bool  # whether groups are written

    def add(self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor) -> None:
        """Write a batch: B images, the index of each one's class or -1, and logits (B, K)."""

    def close(self) -> None:
        """Finish writing."""


class AllClasses(PredictionWriter):
    """A CSV file in the form of a run's ``predictions.csv``."""

    has_groups = True

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


class TopClasses(RowWriter):
    """A CSV file of the most probable classes, continued where it was cut.

    Args:
        path: the file.
        classes: names, K.
        topk: how many are written.

    Raises:
        UserError: the file cannot be written, or holds something else.
    """

    has_groups = False

    def __init__(self, path: Path, classes: Sequence[str], topk: int) -> None:
        self.topk = topk
        columns = ["path", "label"]
        for place in range(1, topk + 1):
            columns += [f"prediction_{place}", f"probability_{place}"]
        super().__init__(path, classes, columns)

    def parser_of(self, header: Record, where: str) -> CellParser:
        """Return the parser of a file that is there, which has the same columns."""
        if header.cells != self.columns:
            remedy = "Give another --out, or --overwrite."
            raise InvalidContent(where, "it has other columns", remedy)
        return CellParser(header, where, self.classes)

    def add(self, images: Sequence[InputImage], labels: Sequence[int], logits: Tensor) -> None:
        """Write a batch."""
        names = [*self.classes, ""]  # the last is that of -1
        rows = [
            [image.path, names[label], *cells]
            for image, label, cells in zip(
                images, labels, top_cells(logits, names, self.topk), strict=True
            )
        ]
        self.add_rows(rows)


class Printed:
    """A table on stdout: path, then classes with their probabilities.

    Args:
        images: all that may be written, for the widths.
        classes: names, K.
        topk: how many are printed.
    """

    has_groups = False

    def __init__(self, images: Sequence[InputImage], classes: Sequence[str], topk: int) -> None:
        self.classes, self.topk = list(classes), topk
        self.done: list[str] = []
        self.known: list[Known] = []
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
