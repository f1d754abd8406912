"""Which column of a table is what: by the user's word, by common names, by content."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from dplq.errors import UserError, few, suggest
from dplq.io.spelling import spelling

from .delimited import Record, quoted
from .image_index import ImageIndex

NOT_USED = "none"
PART_NAMES = {
    "train": ("train", "training", "tr", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev"),
    "test": ("test", "testing", "tst", "te", "holdout", "hold-out"),
}
_PARTS = {spelling(name): part for part, names in PART_NAMES.items() for name in names}
# Names by role, in order of preference; case, spaces, "_" and "-" do not count.
COMMON_NAMES = {
    "path": (
        *("path", "filepath", "imagepath", "imgpath", "relativepath", "file", "filename"),
        *("imagefile", "imagefilename", "imagename", "imgname", "image", "images", "img"),
        *("imageindex", "imageid", "imgid", "isicid", "idcode", "picture", "photo", "name", "id"),
    ),
    "label": (
        *("label", "labels", "class", "target", "category", "diagnosis", "diagnostic", "dx"),
        *("finding", "findings", "findinglabels", "findinglabel", "disease", "grade", "level"),
        *("y", "classid", "labelid", "species", "landcover"),
    ),
    "split": ("split", "set", "part", "partition", "subset", "fold", "phase", "usage"),
    "group": (
        *("group", "groupid", "patient", "patientid", "subject", "subjectid", "person"),
        *("personid", "case", "caseid", "participant", "participantid", "study", "studyid"),
        *("patientno", "patientnumber", "mrn"),
        *("series", "seriesid", "lesion", "lesionid", "scene", "sceneid", "site", "siteid"),
    ),
    "prompt": (
        *("prompt", "classname", "classnames", "labelname", "categoryname", "text", "caption"),
        "description",
    ),
}
OPTIONAL = ("split", "group", "prompt")
CLASS_NAMES = ("classname", "labelname", "categoryname")  # the label where there is no other
CURE = (
    "Add a first row with the names of the columns (path, label, split, group, prompt), or set "
    "DATASET.COLUMNS.PATH and .LABEL to what the first row calls them (where there is no such row: "
    "column1, column2, ...)."
)
# These names are common for other things too: such a column is used only if its values fit.
ONLY_IF_PARTS = ("fold", "phase", "usage")
# In this order, these are the label only where no other column is: y may be one of a box.
LAST_LABELS = ("y", "findinglabel")


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; "" is found by common names, `none` is not used.

    `column1`, `column2`, ... count the columns, for tables without a header.
    """

    path: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    prompt: str = ""


@dataclass(frozen=True)
class Found:
    """The column of every role, counted from 0, None if there is none.

    Attributes:
        header: names of the columns; none in a table without a header.
        records: rows of data.
        notes: what was decided, for the log.
    """

    header: list[str]
    records: list[Record]
    path: int
    label: int | None
    split: int | None
    group: int | None
    prompt: int | None
    notes: tuple[str, ...] = ()

    def title(self, column: int) -> str:
        """Return how messages call a column."""
        return f"column {quoted(self.header[column])}" if self.header else f"column {column + 1}"


def part_of(value: str) -> str:
    """Return `train`, `val` or `test` for any of their names, "" for another text."""
    return _PARTS.get(spelling(value), "")


def _position(name: str) -> int:
    """Return 2 for `column2` (or `2`), 0 for another text."""
    match = re.fullmatch(r"(?:column)?([0-9]+)", spelling(name))
    return int(match[1]) if match else 0


def accepted_parts() -> str:
    """Return the accepted names of the parts, for messages."""
    return "; ".join(", ".join(names) for names in PART_NAMES.values())


def find_columns(
    records: Sequence[Record],
    columns: Columns,
    index: ImageIndex,
    path: Path,
    needs_label: bool = True,
) -> Found:
    """Return which column is what.

    The first row is a header if it has a common or given name and names no image.

    Args:
        records: rows of the table, one or more.
        columns: names given by the user.
        index: images that the table may name.
        path: of the table, for messages.
        needs_label: whether a table without a label column is an error.

    Raises:
        UserError: a given column is absent, or path or label is not found or not unique.
    """
    first = records[0].cells
    given = {f.name: str(getattr(columns, f.name)).strip() for f in fields(columns)}
    known = {spelling(name) for names in COMMON_NAMES.values() for name in names}
    known |= {spelling(name) for name in given.values() if name and not _position(name)}
    named = any(spelling(cell) in known for cell in first)
    data = any(index.is_image_name(cell) and index.find(cell) for cell in first)
    if named and not data:
        return _by_name(_Header(first, list(records[1:]), path), given, index, needs_label)
    return _by_content(records, given, index, path, needs_label)


class _Header:
    """A header, what is below it, and which columns have been given a role."""

    def __init__(self, names: list[str], records: list[Record], path: Path) -> None:
        self.names = names
        self.records = records
        self.path = path
        self.chosen: dict[str, int | None] = {}
        self.notes: list[str] = []

    def given(self, role: str, name: str) -> int:
        """Return the column that the user named for a role."""
        same = [i for i, title in enumerate(self.names) if title == name]
        same = same or [i for i, t in enumerate(self.names) if spelling(t) == spelling(name)]
        position = _position(name)
        if not same and 1 <= position <= len(self.names):
            same = [position - 1]
        if len(same) != 1:
            state = "no column" if not same else f"{len(same)} columns"
            raise UserError(
                f"{self.path} has {state} {quoted(name)} (DATASET.COLUMNS.{role.upper()})."
                f"{suggest(name, (title[:200] for title in self.names if title))}"
            )
        return same[0]

    def candidates(self, role: str) -> list[int]:
        """Return the free columns with a common name of a role, the preferred one first."""
        spelled = [spelling(title) for title in self.names]
        names = [spelling(name) for name in COMMON_NAMES[role]]
        found = [i for name in names for i, title in enumerate(spelled) if title == name]
        return [i for i in dict.fromkeys(found) if i not in self.chosen.values()]

    def values(self, column: int) -> list[str]:
        """Return the cells of a column."""
        return [record.cells[column] for record in self.records]

    def only(self, role: str, found: Sequence[int]) -> int:
        """Return the only candidate.

        Raises:
            UserError: there is none, or there are several.
        """
        if len(found) == 1:
            return found[0]
        titles = few([quoted(self.names[i]) for i in found or range(len(self.names))], 8)
        state = f"several columns for the {role}" if found else f"no column for the {role}"
        raise UserError(
            f"{self.path} has {state}: {titles}. Set DATASET.COLUMNS.{role.upper()} to one of "
            f"them, or call one of them {COMMON_NAMES[role][0]}."
        )


def _by_name(table: _Header, given: dict[str, str], index: ImageIndex, needs_label: bool) -> Found:
    for role, name in given.items():
        if name and not _is_left_out(role, name, needs_label):
            table.chosen[role] = table.given(role, name)
    find: dict[str, Callable[[], int | None]] = {
        "path": lambda: _path_column(table, index),
        "label": lambda: _label_column(table, needs_label),
        "prompt": lambda: next(iter(table.candidates("prompt")), None),
        "split": lambda: _split_column(table),
        "group": lambda: _group_column(table),
    }
    for role, column in find.items():
        if not given[role]:
            table.chosen[role] = column()
    return _found(table.names, table.records, table.chosen, table.notes)


def _is_left_out(role: str, name: str, needs_label: bool) -> bool:
    """Return whether a column is not to be used, although it is there."""
    optional = OPTIONAL if needs_label else (*OPTIONAL, "label")
    return name.lower() == NOT_USED and role in optional


def _found(
    header: list[str], records: list[Record], chosen: dict[str, int | None], notes: list[str]
) -> Found:
    path, label = chosen["path"], chosen.get("label")
    assert path is not None
    split, group, prompt = (chosen.get(role) for role in OPTIONAL)
    return Found(header, records, path, label, split, group, prompt, tuple(notes))


def _path_column(table: _Header, index: ImageIndex) -> int:
    found = table.candidates("path")
    naming = [i for i in found if any(index.find(value) for value in table.values(i))]
    if len(naming) > 1:  # ids may be stems of other files by chance
        full = [i for i in naming if any(index.is_image_name(v) for v in table.values(i))]
        naming = full or naming
    if _alike(table, naming, index):
        naming = naming[:1]
    return table.only("path", naming or found[:1])


def _alike(table: _Header, columns: Sequence[int], index: ImageIndex) -> bool:
    """Return whether columns name the same images."""
    rows = zip(*(map(index.find, table.values(i)) for i in columns), strict=True)
    return len(columns) > 1 and all(len({tuple(paths) for paths in row}) == 1 for row in rows)


def _label_column(table: _Header, is_needed: bool) -> int | None:
    named = table.candidates("label")
    classnames = [i for i in table.candidates("prompt") if spelling(table.names[i]) in CLASS_NAMES]
    if not (named or classnames):
        if not is_needed:
            return None
        _refuse_one_hot(table)
    clear = named
    for last in LAST_LABELS:
        clear = [i for i in clear if spelling(table.names[i]) != last] or clear
    if len(clear) == 1 < len(named):
        others = few([quoted(table.names[i]) for i in named if i not in clear])
        table.notes.append(
            f"labels are those of column {quoted(table.names[clear[0]])}, not {others} "
            "(DATASET.COLUMNS.LABEL)"
        )
    return table.only("label", clear or classnames)


def _refuse_one_hot(table: _Header) -> None:
    """Raise if a column per class says 0 or 1: one of them as the label would be two classes."""
    free = [i for i in range(len(table.names)) if i not in table.chosen.values()]
    flags = [i for i in free if {_flag(value) for value in table.values(i)} == {0.0, 1.0}]
    if len(flags) > 1:
        names = few([quoted(table.names[i]) for i in flags], 8)
        raise UserError(
            f"{table.path} has no column for the label, but {len(flags)} columns of 0 and 1: "
            f"{names}. If these are the classes, write the name of the one that is 1 into a column "
            "'label' (pandas: table[columns].idxmax(axis=1)); images with several cannot be used."
        )


def _flag(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _split_column(table: _Header) -> int | None:
    fitting = []
    for column in table.candidates("split"):
        weak = spelling(table.names[column]) in ONLY_IF_PARTS
        if weak and not all(map(part_of, table.values(column))):
            title = quoted(table.names[column])
            table.notes.append(f"column {title} is not used: its values are not train, val, test")
        else:
            fitting.append(column)
    return table.only("split", fitting) if fitting else None


def _group_column(table: _Header) -> int | None:
    found = table.candidates("group")
    if len(found) > 1:
        others = few([quoted(table.names[i]) for i in found[1:]])
        table.notes.append(
            f"groups are those of column {quoted(table.names[found[0]])}, not {others} "
            "(DATASET.COLUMNS.GROUP)"
        )
    return found[0] if found else None


def _by_content(
    records: Sequence[Record],
    given: dict[str, str],
    index: ImageIndex,
    path: Path,
    needs_label: bool,
) -> Found:
    width = len(records[0].cells)
    first = few(cell[:200] for cell in records[0].cells)
    start = f"{path}: its first row ({first}) has no known column name, and "
    chosen: dict[str, int | None] = {}
    for role, name in given.items():
        if not name or _is_left_out(role, name, needs_label):
            continue
        if not 1 <= (position := _position(name)) <= width:
            key = f"DATASET.COLUMNS.{role.upper()}"
            raise UserError(
                f"{start}{key} is {quoted(name)}, which it does not have either. {CURE}"
            )
        chosen[role] = position - 1

    def free() -> dict[int, list[str]]:
        used = chosen.values()
        return {i: [r.cells[i] for r in records] for i in range(width) if i not in used}

    if "path" not in chosen:
        chosen["path"] = _paths_by_content(free(), index, start)
    if not given["split"]:
        parts = [i for i, values in free().items() if all(map(part_of, values))]
        chosen["split"] = parts[0] if len(parts) == 1 else None
    if "label" not in chosen and not given["label"]:
        left = list(free())
        if not (left or needs_label):
            return _found([], list(records), {**chosen, "label": None}, [])
        if len(left) != 1:
            state = (
                f"columns {few(i + 1 for i in left)} may be" if left else "no column is left for"
            )
            raise UserError(f"{start}{state} the label. {CURE}")
        chosen["label"] = left[0]
    roles = (f"{role} {i + 1}" for role, i in chosen.items() if i is not None)
    note = f"no header; columns by content: {', '.join(roles)}"
    return _found([], list(records), chosen, [note])


def _paths_by_content(columns: dict[int, list[str]], index: ImageIndex, start: str) -> int:
    """Return the column of which most values are images; file names are preferred to stems."""
    full = {
        i: values for i, values in columns.items() if any(index.is_image_name(v) for v in values)
    }
    best = [
        i
        for i, values in (full or columns).items()
        if 2 * sum(bool(index.find(value)) for value in values) > len(values)
    ]
    if len(best) != 1:
        state = f"columns {few(i + 1 for i in best)} name" if best else "no column names"
        raise UserError(f"{start}{state} images below {index.folder}. {CURE}")
    return best[0]
