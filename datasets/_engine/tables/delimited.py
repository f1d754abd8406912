"""Read delimited text (CSV, TSV): encoding, delimiter, quotes; nothing is skipped in silence."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from dplq.errors import UserError, shown
from dplq.io.validation.schema import MAX_BYTES

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
SAMPLE = 50  # records that decide which delimiter it is


class Record(NamedTuple):
    """One record: the line of the file it begins in (from 1), and its cells without margins."""

    line: int
    cells: list[str]


def quoted(cell: str) -> str:
    """Return a cell as messages show it: in quotes, the start of a long one."""
    return shown(cell, 200)


def read_records(path: Path) -> list[Record]:
    """Return the records of a delimited text file; blank ones are left out.

    The delimiter is the one of `DELIMITERS` that cuts the first records into equally many cells,
    most of them; a first line `sep=;`, as Excel writes it, decides.

    Raises:
        UserError: it cannot be read, is not UTF-8 text, has a faulty quote or no record, or the
            records differ in length.
    """
    text = _decoded(path)
    first, _, rest = text.partition("\n")
    chosen = re.fullmatch(r'"?sep=(.)"?\r?', first, re.I)
    if chosen:
        records = _parse("\n" + rest, chosen[1], path)  # line numbers stay those of the file
    else:
        records = _parse(text, _find_delimiter(text), path)
    if not records:
        raise UserError(f"{path} is empty. Expected a table with the columns path and label.")
    width = len(records[0].cells)
    for record in records:
        while len(record.cells) > width and not record.cells[-1]:
            record.cells.pop()
        if len(record.cells) != width:
            raise UserError(
                f"{path}: row {record.line} has {len(record.cells)} cells, row {records[0].line} "
                f"has {width}. Put quotes around a cell that contains the delimiter, or add what "
                "is missing."
            )
    return records


def _decoded(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"The table {path} has {size:,} bytes, more than {MAX_BYTES:,}: remove the columns "
                "that are not needed."
            )
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"The table {path} cannot be read: {error.strerror}.") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16 text. {_cure('UTF-16', path)}")
    if b"\0" in raw or raw[:2] == b"PK":
        raise UserError(
            f"{path} is no text file, perhaps a spreadsheet. Save it as CSV (Excel: 'CSV UTF-8')."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8 text: byte 0x{raw[error.start]:02x} in line {line}. "
            f"{_cure('LATIN1', path)}"
        ) from error
    return unicodedata.normalize("NFC", text)  # "é" is one letter, whichever system wrote it


def _cure(encoding: str, path: Path) -> str:
    name = f"{path.stem}_utf8{path.suffix}"
    return (
        "Save it as UTF-8 (Excel: 'CSV UTF-8'), or convert it: "
        f"iconv -f {encoding} -t UTF-8 {path.name} > {name}"
    )


def _find_delimiter(text: str) -> str:
    def score(delimiter: str) -> tuple[bool, int]:
        widths = []
        try:
            for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                widths += [len(cells)] if any(cells) else []
                if len(widths) == SAMPLE:
                    break
        except csv.Error:
            return False, 0
        alike = len(set(widths)) == 1 and widths[0] > 1
        return alike, widths[0] if widths else 0

    return max(DELIMITERS, key=score)


def _parse(text: str, delimiter: str, path: Path) -> list[Record]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    records: list[Record] = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append(Record(line, [cell.strip() for cell in cells]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}: row {line} cannot be read: {error}. Write a quote inside quotes twice, and "
            "close every quote."
        ) from error
    return records
