"""Images of ``dplq predict``: files, folders, patterns and tables, each image once."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dplq.errors import UserError, few, printable
from dplq.evaluation.prediction_rows import distinct_names
from dplq.io.spelling import spelling
from dplq.io.table_files import SPREADSHEETS, TABLES
from dplq.io.validation.paths import name_problem, user_path

if TYPE_CHECKING:
    from dplq.datasets._engine.tables import Columns


class InputImage(NamedTuple):
    """One image: its path, and what a table says of it.

    Attributes:
        path: as given, or joined to a folder as given.
        label: text of the table; "" where there is none.
        name: of the class in words, as a run calls it.
        group: patient, scene or site; "" for none.
    """

    path: str
    label: str = ""
    name: str = ""
    group: str = ""


@dataclass
class Inputs:
    """Images in the order given.

    Attributes:
        images: each once.
        repeated: paths that were given again.
        tables: that list images.
        notes: on tables and folders, for the user.
    """

    images: list[InputImage] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_inputs(given: Sequence[str], columns: Columns | None = None) -> Inputs:
    """Return the images that the arguments name.

    Args:
        given: image files, folders (with those below them), patterns, and tables.
        columns: of the tables, where their names are not common ones.

    Raises:
        UserError: one names nothing, or nothing is an image, or a table is not in order.
    """
    found, known, place_of = Inputs(), dict[str, int](), Places()
    for argument in given:
        for image in _named_by(argument, found, columns):
            if problem := name_problem(image.path):
                raise UserError(f"{printable(image.path)}: this name {problem}. Rename it.")
            place = place_of(image.path)
            if place in known:
                found.repeated.append(image.path)
                first = found.images[known[place]]
                found.images[known[place]] = _merged(first, image)
                continue
            known[place] = len(found.images)
            found.images.append(image)
    if not found.images:
        raise UserError(f"There is no image in {few(map(printable, given))}.", *found.notes)
    if columns is not None and any(astuple(columns)) and not found.tables:
        raise UserError("DATASET.COLUMNS is for tables, and none of the IMAGES is one.")
    return found


def _merged(first: InputImage, again: InputImage) -> InputImage:
    """Return an image that was given twice with what either says of it; the first path stays.

    Raises:
        UserError: they say something else.
    """
    for what, one, other in (
        ("label", first.label, again.label),
        ("group", first.group, again.group),
    ):
        if one and other and one != other:
            raise UserError(
                f"{printable(first.path)} is given twice, with the {what} {one!r} and the {what} "
                f"{other!r}: correct one, or leave it out."
            )
    named = first if first.label else again
    return InputImage(first.path, named.label, named.name, first.group or again.group)


class Places:
    """Finds where paths are, so that one image is known by all its paths.

    Links of folders are resolved, each folder once; an image that is a link is its own.

    Args:
        base: folder of relative paths.
    """

    def __init__(self, base: str = "") -> None:
        self._base, self._folders = base, dict[str, str]()

    def __call__(self, path: str) -> str:
        """Return the place of a path."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(os.path.join(self._base, folder))
        return os.path.join(self._folders[folder], name)


def _named_by(argument: str, found: Inputs, columns: Columns | None) -> Iterator[InputImage]:
    path = user_path(argument, "IMAGES")
    if path.is_dir():
        yield from _below(path, found.notes)
    elif path.exists():
        if path.suffix.lower() in TABLES:
            found.tables.append(str(path))
            yield from _listed_in(path, columns, found.notes)
        elif path.suffix.lower() in SPREADSHEETS:
            raise UserError(f"IMAGES: {printable(str(path))}: save the table as CSV (UTF-8) first.")
        else:
            yield InputImage(str(path))
    else:
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(argument) else []
        if not matches:
            what = (
                "no file fits the pattern"
                if glob.has_magic(argument)
                else "there is no file or folder"
            )
            raise UserError(
                f"IMAGES: {what} {printable(argument)}. Give image files, folders, quoted patterns "
                "such as 'scans/*.png', or a CSV table."
            )
        for match in matches:
            if os.path.isfile(match):  # folders that ** matches are given by their files
                yield InputImage(match)


def _below(folder: Path, notes: list[str]) -> Iterator[InputImage]:
    """Yield the images in a folder and below it, sorted; what is left out is noted."""
    from dplq.datasets._engine.layout.folders import list_files
    from dplq.datasets._engine.layout.left_out import left_out
    from dplq.datasets._engine.layout.names import mask_of

    files = list_files(str(folder), nested=True)
    masks = mask_of(files.images)  # a folder of a mask's name may be one of a class
    notes += [f"{folder}: {line}" for line in left_out(str(folder), files.others, list(masks))]
    if tables := _tables_among(files.others):
        notes.append(
            f"{folder}: not read as tables, give one in place of the folder if it lists the "
            f"images: {few(map(printable, tables), 3)}"
        )
    for name in files.images:
        if name not in masks:
            yield InputImage(os.path.join(folder, name))


def _tables_among(names: Sequence[str]) -> list[str]:
    """Return the tables among files, but for outputs of this command."""
    known = set(names)
    tables = (name for name in names if name.lower().endswith(TABLES))
    return [name for name in tables if f"{name}.json" not in known]


def _listed_in(table: Path, columns: Columns | None, notes: list[str]) -> Iterator[InputImage]:
    """Yield the images of a table; names without a folder are searched in its folder and below."""
    from dplq.datasets._engine.tables import read_table

    found = read_table(table, str(table.parent), columns, needs_label=False, anywhere=True)
    notes += [f"{table}: {note}" for note in found.notes]
    folder = "" if table.parent == Path() else table.parent  # no "./" before a path
    for row in found.rows:
        path = os.path.join(folder, row.path)
        yield InputImage(path, row.label, found.prompts.get(row.label, ""), row.group)


class ClassFinder:
    """Finds the class of a model that a table's label means.

    A label that is a class name means this class; else case, spaces, `_` and `-` do not count.

    Args:
        classes: names of the model's classes.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        names = distinct_names(classes)
        self._exact = {name: k for k, name in enumerate(names)}
        self._spelled: dict[str, list[int]] = {}
        for k, name in enumerate(names):
            self._spelled.setdefault(spelling(name), []).append(k)

    def __call__(self, image: InputImage) -> int:
        """Return the index of an image's class; -1: it has no label, or one of no single class."""
        found = self.fitting(image)
        return found[0] if len(found) == 1 else -1

    def fitting(self, image: InputImage) -> list[int]:
        """Return the classes that an image's label may mean."""
        for name in filter(None, (image.label, image.name)):
            if name in self._exact:
                return [self._exact[name]]
            if found := self._spelled.get(spelling(name)):
                return found
        return []


def unused_labels(
    images: Iterable[InputImage], classes: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many images have each label that is no class of the model, or may be several."""
    find, unknown, ambiguous = ClassFinder(classes), Counter[str](), Counter[str]()
    for image in images:
        if image.label and (count := len(find.fitting(image))) != 1:
            (ambiguous if count else unknown)[image.label] += 1
    return dict(unknown), dict(ambiguous)
