"""Form of ``predictions.csv``: header, and rows as records of text.

UTF-8, comma, RFC 4180 quotes, one line feed at the end of every row. Columns: path, label,
prediction, group, then the probability of each class, ``p:CLASS``. Label and prediction are class
names; an unknown label and an absent group are empty.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from dplq.errors import printable, shown, suggest
from dplq.io.validation.paths import is_file, name_problem
from dplq.io.validation.schema import InvalidContent

PREFIX = "p:"
FIXED = ("path", "label", "prediction", "group")
SUM_TOLERANCE = 1e-3  # of the probabilities of a row, whose sum is 1
MAX_LINE = 1 << 24  # bytes: a row of a million classes
REMEDY = "Repair it, or write it again by another test of the run."


class Row(NamedTuple):
    """One image; label and prediction are indices, -1 for an unknown label."""

    path: str
    label: int
    prediction: int
    group: str
    probabilities: list[float]


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        line: of the file, from 1 on, in which it begins.
        cells: its content.
        end: position of the first byte after it.
        is_whole: whether it ends in a line feed, outside quotes.
    """

    line: int
    cells: list[str]
    end: int
    is_whole: bool


def column_names(classes: Sequence[str]) -> list[str]:
    """Return the names of all columns.

    Raises:
        ValueError: two classes have one name.
    """
    if len(set(classes)) < len(classes):
        raise ValueError("the columns of two classes would have one name; see distinct_names")
    return [*FIXED, *(f"{PREFIX}{name}" for name in classes)]


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return class names of which no two are equal: the second "crane" becomes "crane (2)".

    ImageNet's list has such names; all others stay as they are.
    """
    taken, found = set(names), []
    seen: set[str] = set()
    for name in names:
        other, number = name, 1
        while other in seen or (number > 1 and other in taken):
            number += 1
            other = f"{name} ({number})"
        seen.add(other)
        found.append(other)
    return found


def names_before(names: Sequence[str]) -> list[str]:
    """Return class names that `distinct_names` makes these of: "crane (2)" after "crane" is one.

    Names that it cannot have made stay as they are.
    """
    found: list[str] = []
    for name in names:
        start, space, number = name.rpartition(" ")
        is_repeat = start in found and re.fullmatch(r"\([1-9]\d*\)", number)
        found.append(start if space and is_repeat else name)
    return found if distinct_names(found) == list(names) else list(names)


def encoded(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows of cells as the bytes of a file; all cells are UTF-8."""
    data = io.BytesIO()
    text = io.TextIOWrapper(data, encoding="utf-8", newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:  # before 3.13 Python quotes no carriage return, which would end the line
        (quoted if "\r" in "".join(row) else plain).writerow(row)
    text.flush()
    return data.getvalue()


def number_cells(probabilities: NDArray[np.float32]) -> list[list[str]]:
    """Return probabilities (N, K) as the shortest texts that read back as the same float32."""
    cells: list[list[str]] = probabilities.astype(np.float32, copy=False).astype(str).tolist()
    return cells


def records(file: BinaryIO, where: str) -> Iterator[Record]:
    """Yield the records of a file, the last one even where it is cut.

    Args:
        file: opened in binary mode, at its start.
        where: its name, for messages.

    Raises:
        InvalidContent: it is not CSV in UTF-8.
    """
    end, unfinished = 0, False

    def lines() -> Iterator[str]:
        nonlocal end, unfinished
        while line := file.readline(MAX_LINE):
            end += len(line)
            if len(line) == MAX_LINE:
                raise InvalidContent(where, f"a line has {MAX_LINE:,} bytes or more", REMEDY)
            unfinished = not line.endswith(b"\n")
            # the end of a cut file may lie inside a letter
            errors = "replace" if unfinished else "strict"
            yield line.decode("utf-8-sig" if end == len(line) else "utf-8", errors)

    reader = csv.reader(lines(), strict=True)
    begins = 1
    try:
        for cells in reader:
            yield Record(begins, cells, end, not unfinished)
            begins = reader.line_num + 1
    except csv.Error as error:
        # A quote that nobody closes on an earlier line is no cut, and what follows is not lost.
        if reader.line_num == begins and unfinished:
            yield Record(begins, [], end, False)
            return
        raise InvalidContent(where, f"line {begins}: {error}", REMEDY) from error
    except UnicodeDecodeError as error:
        raise InvalidContent(where, f"line {reader.line_num + 1} is not UTF-8", REMEDY) from error


class CellParser:
    """Checks the records of a file whose columns begin with path, label and prediction.

    Args:
        header: first record of the file.
        where: name of the file, for messages.
        classes: names that label and prediction may have.
    """

    def __init__(self, header: Record, where: str, classes: Sequence[str]) -> None:
        self.where, self.columns, self.classes = where, header.cells, list(classes)
        self._index = {name: index for index, name in enumerate(self.classes)}

    def refused(self, line: int, problem: str) -> InvalidContent:
        """Return the error of a line."""
        return InvalidContent(self.where, f"line {line}: {problem}", REMEDY)

    def parse(self, record: Record) -> Row:
        """Return a record as a row, without group and probabilities.

        Raises:
            InvalidContent: it is cut, has too few or too many cells, or an unknown class.
        """
        if not record.is_whole:
            raise self.refused(record.line, "it is cut: the file does not end in a line feed")
        if len(record.cells) != len(self.columns):
            counts = f"{len(record.cells)} cells, and the header {len(self.columns)}"
            raise self.refused(record.line, f"it has {counts}")
        path, label, prediction = record.cells[:3]
        if not path:
            raise self.refused(record.line, "the path is empty")
        return Row(
            path,
            self._class(label, self.columns[1], record.line) if label else -1,
            self._class(prediction, self.columns[2], record.line),
            "",
            [],
        )

    def _class(self, name: str, column: str, line: int) -> int:
        index = self._index.get(name)
        if index is None:
            hint = suggest(name, self.classes[:50]).rstrip(".")
            raise self.refused(line, f"the {column} {shown(name)} is no class.{hint}")
        return index


class RowParser(CellParser):
    """Checks the header of a ``predictions.csv`` once, then parses its records.

    Args:
        header: first record of the file.
        where: name of the file, for messages.

    Raises:
        InvalidContent: the header is not one of predictions; a column is named.
    """

    def __init__(self, header: Record, where: str) -> None:
        others = header.cells[len(FIXED) :]
        super().__init__(header, where, [name.removeprefix(PREFIX) for name in others])
        expected = f"expected {','.join(FIXED)} and then a column {PREFIX}CLASS for every class"
        for name in FIXED:
            if name not in self.columns:
                raise self.refused(1, f"the column '{name}' is missing; {expected}")
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice:
            raise self.refused(1, f"the column '{printable(twice[0])}' is there twice; {expected}")
        if tuple(self.columns[: len(FIXED)]) != FIXED:
            raise self.refused(1, f"the columns are in another order; {expected}")
        foreign = [name for name in others if not name.startswith(PREFIX)]
        if foreign or not others:
            which = f"the column {shown(foreign[0])} is unknown" if foreign else "no class is there"
            raise self.refused(1, f"{which}; {expected}")
        for name in self.classes:
            if problem := name_problem(name):
                raise self.refused(1, f"the class name '{printable(name)}' {problem}")

    def parse(self, record: Record) -> Row:
        """Return a record as a row.

        Raises:
            InvalidContent: as there, or its probabilities are none.
        """
        path, label, prediction, _, _ = super().parse(record)
        group, *numbers = record.cells[3:]
        return Row(path, label, prediction, group, self._probabilities(numbers, record.line))

    def _probabilities(self, cells: Sequence[str], line: int) -> list[float]:
        try:
            numbers = [float(cell) for cell in cells]
        except ValueError:
            numbers = [_number(cell) for cell in cells]
        for name, cell, number in zip(self.classes, cells, numbers, strict=True):
            if not 0 <= number <= 1:  # nan is not, either
                what = f"the probability of '{printable(name)}' is {shown(cell)}"
                raise self.refused(line, f"{what}; expected a number from 0 to 1")
        total = math.fsum(numbers)
        if abs(total - 1) > SUM_TOLERANCE:
            raise self.refused(line, f"its probabilities have the sum {total:.6g}; expected 1")
        return numbers


def _number(cell: str) -> float:
    """Return a cell as a number, nan where it is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


Parser = TypeVar("Parser", bound=CellParser)


@contextlib.contextmanager
def opened_rows(
    path: str | os.PathLike[str], parser_of: Callable[[Record, str], Parser]
) -> Iterator[tuple[Parser, Iterator[Record], int]]:
    """Yield what parses the rows of a file, its records, and the position after the header.

    Args:
        path: the file.
        parser_of: called with the header and the name of the file.

    Raises:
        InvalidContent: it cannot be read, or is empty.
    """
    where = printable(str(path))
    if not is_file(path):
        raise InvalidContent(where, "there is no such file", REMEDY)
    try:
        with open(path, "rb") as file:
            found = records(file, where)
            header = next(found, None)
            if header is None or not header.cells:
                raise InvalidContent(where, "it is empty", REMEDY)
            yield parser_of(header, where), found, header.end
    except OSError as error:
        raise InvalidContent(where, error.strerror or str(error), REMEDY) from error
