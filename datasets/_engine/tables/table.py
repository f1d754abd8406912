"""A table as the dataset: one row per image, with label, part, group and prompt.

`labels.csv` with the columns `path` and `label` is enough. Delimiter, names and order of the
columns, and how a path is written, are found out (`delimited.py`, `columns.py`, `image_index.py`);
what is not certain is an error that names the row.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from dplq.errors import UserError, few, printable
from dplq.images.reader import EXTENSIONS
from dplq.io.spelling import spelling
from dplq.io.table_files import TABLES
from dplq.io.validation.paths import is_file, name_problem

from ..layout.folders import extensions_text, in_words
from ..layout.names import in_order, number_of
from .columns import Columns, Found, accepted_parts, find_columns, part_of
from .delimited import Record, quoted, read_records
from .image_index import ImageIndex

__all__ = [
    "Columns",
    "Row",
    "Table",
    "find_table",
    "is_table",
    "read_table",
    "table_warnings",
]
NAMES = ("labels", "split")  # of the tables that are read without being named
KEYS = "DATASET.COLUMNS.PATH and .LABEL"
UNWRITABLE = "line breaks or control characters"
NO_VALUE = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "<na>", "?"})


class Row(NamedTuple):
    """One image.

    Attributes:
        path: POSIX path relative to the image folder.
        label: text of the label column.
        split: `train`, `val`, `test`, or "" in a table without a split column.
        group: text of the group column, or "".
        prompt: text of the prompt column, or "".
    """

    path: str
    label: str
    split: str = ""
    group: str = ""
    prompt: str = ""


class Table(NamedTuple):
    """The content of a table.

    Attributes:
        rows: one per image, in the order of the file.
        image_dir: absolute folder that the paths are relative to.
        classes: label texts in label order: as numbers if all are, else by code point.
        prompts: name of the class in a prompt, by label text.
        groups: group by path; empty without a group column.
        has_split: whether the table has a split column.
        group_column: the column with the groups, in words; "" without one.
        notes: for the log: how columns were chosen, and which images are not in the table.
    """

    rows: list[Row]
    image_dir: str
    classes: list[str]
    prompts: dict[str, str]
    groups: dict[str, str]
    has_split: bool
    group_column: str = ""
    notes: tuple[str, ...] = ()


def is_table(path: Path | None) -> bool:
    """Return whether a file that was named or found is a table, by its extension."""
    return path is not None and path.suffix.lower() in TABLES


def find_table(dataset_dir: str, alone: bool = True) -> Path | None:
    """Return the table in a data folder, if any.

    Args:
        dataset_dir: the data folder.
        alone: without `labels` and `split`, take the only table of any name.

    Returns:
        `labels.csv`, `split.csv` (or `.tsv`), else the only table.

    Raises:
        UserError: there are several, so one must be named; or what has their name is no file.
    """
    names = sorted(name for name in os.listdir(dataset_dir) if not name.startswith("."))
    tables = [name for name in names if name.lower().endswith(TABLES)]
    named = [name for name in tables if os.path.splitext(name)[0].lower() in NAMES]
    named = [name for name in named if is_file(os.path.join(dataset_dir, name))]
    others = [name for name in tables if os.path.isfile(os.path.join(dataset_dir, name))]
    found = named or (others if alone else [])
    if len(found) > 1:
        parts = {part_of(os.path.splitext(name)[0]) for name in found}
        more = (
            " If each is a part, put them into one table with a column split." if all(parts) else ""
        )
        raise UserError(
            f"{dataset_dir} has {len(found)} tables: {few(found)}. Set DATASET.SPLIT_FILE to the "
            f"one that lists the images.{more}"
        )
    return Path(dataset_dir, found[0]) if found else None


def read_table(
    path: Path,
    dataset_dir: str,
    columns: Columns | None = None,
    extensions: Sequence[str] = EXTENSIONS,
    needs_label: bool = True,
    anywhere: bool = False,
) -> Table:
    """Read a table of images.

    Args:
        path: the CSV or TSV file.
        dataset_dir: the data folder; images are searched in it and below.
        columns: names of the columns, where they are not common ones.
        extensions: of images, in lower case with the dot.
        needs_label: False: a table may have no label column, and rows may have no label, group or
            prompt, as of images that are to be predicted; these are then empty.
        anywhere: paths may lead out of the data folder, and to hidden folders.

    Raises:
        UserError: the file is no such table, a cell is empty or has no meaning, or images are
            missing, ambiguous or listed twice. Rows are counted as lines of the file.
    """
    index = ImageIndex(os.path.abspath(dataset_dir), extensions, anywhere)
    found = find_columns(read_records(path), columns or Columns(), index, path, needs_label)
    if not found.records:
        raise UserError(f"{path} has a header, but no row. Expected one row per image.")
    reader = _Rows(path, found)
    parts = reader.parts(needs_label)
    labels = reader.labels(needs_label)
    groups = reader.groups(needs_label)
    prompts = reader.cells(found.prompt, "write the name of the class", needs_label)
    images = reader.images(index)
    rows = list(map(Row, images, labels, parts, groups, prompts))
    classes = in_order(set(labels) - {""})
    # Of a table that lies anywhere, other images are no one's mistake.
    unlisted = [] if anywhere else sorted(set(index.paths) - set(images))
    notes = list(found.notes)
    for what, column, cells in (("label", found.label, labels), ("group", found.group, groups)):
        without = cells.count("")
        if column is not None and 0 < without < len(rows):
            notes.append(f"{without} of {len(rows)} rows {_have(without)} no {what}")
    if unlisted:
        notes.append(
            f"{len(unlisted)} images are not in the table and not used: {few(unlisted, 3)}"
        )
    return Table(
        rows,
        index.folder,
        classes,
        reader.prompts(classes, labels, prompts) if classes else {},
        {row.path: row.group for row in rows if row.group},
        found.split is not None,
        "" if found.group is None else found.title(found.group),
        tuple(notes),
    )


def table_warnings(table: Table) -> list[str]:
    """Return what the user should know of a table: its notes, and groups in two parts."""
    parts: dict[str, dict[str, None]] = {}
    for row in table.rows:
        if row.group:
            parts.setdefault(row.group, {})[row.split] = None
    torn = {group: found for group, found in parts.items() if len(found) > 1}
    notes = [*table.notes, *_spelled_apart(parts)]
    joined = [label for label in table.classes if _joins(label, table.classes)]
    if joined:
        names = few((label[:200] for label in joined), 3)
        notes.append(
            f"{len(joined)} labels join others and are classes of their own: {names}; images that "
            "show several classes cannot be used, so leave their rows out"
        )
    if torn:
        examples = (f"{group[:200]} in {' and '.join(found)}" for group, found in torn.items())
        notes.append(
            f"{len(torn)} of {len(parts)} groups are in more than one part ({few(examples, 3)}): "
            "the split column is kept, so test images are not independent of training"
        )
    return notes


def _spelled_apart(groups: Mapping[str, Collection[str]]) -> list[str]:
    """Return a line about groups that may be one, but are written in several ways.

    Args:
        groups: the parts that each is in; "" where there are none yet.
    """
    written: dict[str | Decimal, list[str]] = {}
    for group in groups:
        written.setdefault(_sense(group, _joined), []).append(group)
    alike = [
        " and ".join(name[:200] for name in names)
        for names in written.values()
        if names[1:] and _may_tear(names, groups)
    ]
    if not alike:
        return []
    return [
        "groups that are one number, or differ in case, spaces, '_' or '-' only, are kept apart "
        f"({few(alike, 3)}): if they are one patient or scene, write it in one way, or its images "
        "may be in train and in test"
    ]


def _may_tear(names: Iterable[str], groups: Mapping[str, Collection[str]]) -> bool:
    """Return whether groups are, or may get, into several parts."""
    parts = {part for name in names for part in groups[name]}
    return len(parts) > 1 or "" in parts


def _sense(text: str, spelled: Callable[[str], str] = spelling) -> str | Decimal:
    """Return what texts have in common that differ in spelling only."""
    return spelled(text) if number_of(text) is None else Decimal(text)  # exact, as ids are long


def _joined(name: str) -> str:
    """Return a group's name without what spellings may differ in.

    Between two digits a separator stays: 1_11 is not 11_1.
    """
    return spelling(re.sub(r"(?<=\d)[\s_-]+(?=\d)", "/", name))


def _joins(label: str, labels: Sequence[str]) -> bool:
    """Return whether a label is several labels with a sign between them, such as `a|b`.

    Of a name with `|` one known part is enough: no class has that sign in its name.
    """
    bars = [step.strip() for step in label.split("|")]
    if len(bars) > 1 and set(bars) & set(labels):
        return True
    steps = [step.strip() for step in re.split(r"[|;,+&/]", label)]
    return len(steps) > 1 and set(steps) <= set(labels)


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _is_unwritable(cell: str) -> bool:
    return bool(name_problem(cell))


class _Rows:
    """The rows of a table, column by column; every problem is reported with its rows."""

    def __init__(self, path: Path, found: Found) -> None:
        self.path = path
        self.found = found

    def cells(self, column: int | None, cure: str, is_needed: bool = True) -> list[str]:
        """Return the cells of a column.

        Args:
            column: None: all are empty texts.
            cure: for a row without a value.
            is_needed: refuse such rows; else they are empty texts.
        """
        if column is None:
            return [""] * len(self.found.records)
        if is_needed:
            self._refuse(column, "no value", lambda cell: not cell, cure)
        self._refuse(column, UNWRITABLE, lambda cell: bool(cell) and _is_unwritable(cell), cure)
        return [record.cells[column] for record in self.found.records]

    def _said(self, column: int | None, what: str, cure: str, is_needed: bool) -> list[str]:
        """Return the cells of a column of which `NO_VALUE` are no values where they are needed."""
        cells = self.cells(column, cure, is_needed)
        if column is not None and is_needed:
            self._refuse(column, f"no {what}", lambda cell: cell.lower() in NO_VALUE, cure)
        return cells

    def labels(self, is_needed: bool) -> list[str]:
        """Return the label of every row."""
        cure = "write a label, or remove the row"
        labels = self._said(self.found.label, "label", cure, is_needed)
        spelled: dict[str | Decimal, str] = {}
        for label in sorted(set(labels) - {""}):
            other = spelled.setdefault(_sense(label), label)
            if other != label:
                rows = [self.found.records[labels.index(text)].line for text in (other, label)]
                raise UserError(
                    f"{self.path}: labels {quoted(other)} (row {rows[0]}) and {quoted(label)} "
                    f"(row {rows[1]}) are one number, or differ in case, spaces, '_' or '-' only. "
                    "Write the label of a class in one way."
                )
        return labels

    def groups(self, is_needed: bool) -> list[str]:
        """Return the group of every row."""
        cure = (
            "write the group, any text of its own for a single image, or set DATASET.COLUMNS.GROUP "
            "none to have no groups"
        )
        return self._said(self.found.group, "group", cure, is_needed)

    def parts(self, is_needed: bool) -> list[str]:
        """Return the part of every row."""
        column = self.found.split
        cells = self.cells(column, "write train, val or test", is_needed)
        if column is not None and is_needed:
            cure = (
                f"write one of {accepted_parts()}; if the column means something else, set "
                "DATASET.COLUMNS.SPLIT none"
            )
            self._refuse(column, "no part of a split", lambda cell: not part_of(cell), cure)
        return list(map(part_of, cells))

    def images(self, index: ImageIndex) -> list[str]:
        """Return the image of every row, no image twice."""
        values = self.cells(self.found.path, "write the path of the image, or remove the row")
        base = _best_base(values, index, self.path)
        matches = [[at] if (at := index.at(v, base)) else index.find(v) for v in values]
        self._require_images(values, matches, index)
        images = [found[0] for found in matches]
        self._refuse_repeats(images)
        return images

    def prompts(
        self, classes: Sequence[str], labels: Sequence[str], prompts: Sequence[str]
    ) -> dict[str, str]:
        """Return the prompt name by label: one for each, no two alike."""
        known: dict[str, tuple[str, Record]] = {}
        for label, prompt, record in zip(labels, prompts, self.found.records, strict=True):
            if not (label and (prompt or self.found.prompt is None)):
                continue
            first, where = known.setdefault(label, (prompt, record))
            if first != prompt:
                raise UserError(
                    f"{self.path}: label {quoted(label)} has two prompts, {quoted(first)} (row "
                    f"{where.line}) and {quoted(prompt)} (row {record.line}). Write one, or set "
                    "DATASET.COLUMNS.PROMPT none if the column is no class name."
                )
        said = {label: prompt for label, (prompt, _) in known.items()}
        names = {label: said.get(label) or in_words(label) for label in classes}
        for name, count in Counter(names.values()).items():
            if count > 1:
                same = few([quoted(label) for label in classes if names[label] == name])
                raise UserError(
                    f"{self.path}: labels {same} have one prompt, {quoted(name)}. Give every class "
                    "a prompt of its own."
                )
        return names

    def _refuse(self, column: int, what: str, bad: Callable[[str], bool], cure: str) -> None:
        """Raise if any cell of a column is bad, with the count and the first rows."""
        rows = [
            f"row {record.line}"
            + (f" '{printable(cell)[:80]}'" if (cell := record.cells[column]) else "")
            for record in self.found.records
            if bad(record.cells[column])
        ]
        if rows:
            title = self.found.title(column)
            raise UserError(
                f"{self.path}: {title} has {what} in {len(rows)} of {len(self.found.records)} "
                f"rows: {few(rows, 3)}. In these, {cure}."
            )

    def _require_images(
        self, values: Sequence[str], matches: Sequence[list[str]], index: ImageIndex
    ) -> None:
        """Raise if values name no image, or more than one."""
        rows = list(zip(self.found.records, values, matches, strict=True))
        absent = [f"row {r.line} {quoted(value)}" for r, value, found in rows if not found]
        title = self.found.title(self.found.path)
        start = f"{self.path}: {title}:"
        if absent:
            other = [v[:200] for _, v, found in rows if not found and index.is_other_file(v)]
            hint = f" Not read as images, by extension: {few(other, 3)}." if other else ""
            missing = [value for _, value, found in rows if not found][:3]
            alike = [found[0] for value in missing if len(found := index.alike(value)) == 1]
            if alike:
                hint += (
                    f" There is {few(alike, 3)}: if that is meant, write these paths, or the file "
                    "names alone, in the case of the files."
                )
            _, first, images = rows[0]
            if not (self.found.header or images or index.is_image_name(first) or absent[1:]):
                hint = f" If that is a header, set {KEYS} to what it calls them."
            raise UserError(
                f"{start} {len(absent)} of {len(rows)} images are not in {index.folder}: "
                f"{few(absent, 3)}.{hint} Paths may be relative to the folder of the table, to the "
                "data folder or to any folder in it, with or without extension; images end in "
                f"{extensions_text()}."
            )
        several = [
            f"row {r.line} {quoted(value)} ({few(found, 2)})"
            for r, value, found in rows
            if found[1:]
        ]
        if several:
            raise UserError(
                f"{start} {len(several)} of {len(rows)} values fit more than one image: "
                f"{few(several, 3)}. Write the path from {index.folder} on."
            )

    def _refuse_repeats(self, images: Sequence[str]) -> None:
        """Raise if an image is in two rows."""
        first: dict[str, Record] = {}
        repeats = []
        conflicts = 0
        for image, record in zip(images, self.found.records, strict=True):
            other = first.setdefault(image, record)
            if other is not record:
                column = self.found.label
                labels = ["" if column is None else r.cells[column] for r in (other, record)]
                differ = labels[0] != labels[1]
                conflicts += differ
                said = f" as {quoted(labels[0])} and {quoted(labels[1])}" if differ else ""
                repeats.append(f"{image} in rows {other.line} and {record.line}{said}")
        if repeats:
            cure = "Keep one row per image"
            if conflicts:
                cure += "; images with several labels cannot be used"
            raise UserError(
                f"{self.path}: {len(repeats)} rows name an image again, {conflicts} of them with "
                f"another label: {few(repeats, 3)}. {cure}."
            )


def _best_base(values: Sequence[str], index: ImageIndex, table: Path) -> str:
    """Return the folder that most paths are relative to: the table's, or the data folder."""
    bases = [os.path.abspath(table.parent), index.folder]
    return max(bases, key=lambda base: sum(bool(index.at(value, base)) for value in values))
