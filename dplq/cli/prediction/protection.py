"""Files that ``dplq predict`` must not write to: what it reads, and those of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dplq.errors import UserError
from dplq.io.runs.files import MODEL_FOLDER, is_written_by_run

from .features import part_of
from .identity import identity_file, lock_file
from .inputs import Inputs


def run_of(given: str, checkpoint: Path) -> Path | None:
    """Return the folder of the run that a checkpoint is from, if it is from one.

    Args:
        given: the command's argument: the folder, or the file.
        checkpoint: the file.
    """
    if checkpoint.parent.name == MODEL_FOLDER:
        return checkpoint.parent.parent
    folder = Path(given).expanduser()
    return folder if folder.is_dir() else None


def protect(
    out: Path | None,
    features: Path | None,
    inputs: Inputs,
    read: Mapping[str, Path],
    run: Path | None,
) -> None:
    """Refuse (UserError) to write to a file that is read, the run's, or written twice.

    Args:
        out: the CSV file.
        features: the file of features.
        inputs: the images, and their tables.
        read: other files that are read, by what they are.
        run: folder of the run.
    """
    written: dict[str, str] = {}
    for flag, path in (("--out", out), ("--features", features)):
        if path is None:
            continue
        beside = (identity_file(path), lock_file(path)) if flag == "--out" else (part_of(path),)
        for file in (path, *beside):
            what = f"{flag} {path}" if file == path else f"{flag} {path} writes {file}, which"
            place = os.path.realpath(file)
            if place in written:
                raise UserError(f"{what} is a file of {written[place]}, too. Give another path.")
            written[place] = flag
            if reason := _taken(file, place, inputs, read, run):
                raise UserError(f"{what} is {reason}. Give another path.")


def _taken(
    file: Path, place: str, inputs: Inputs, read: Mapping[str, Path], run: Path | None
) -> str:
    """Return what a file is that must stay; "" for none."""
    for what, path in read.items():
        if _is_same(file, path):
            return what
    if run is not None:
        name = os.path.relpath(place, os.path.realpath(run)).replace(os.sep, "/")
        if is_written_by_run(name):
            return "a file of the run"
    if not file.exists():
        return ""
    images = (image.path for image in inputs.images)
    return "one of the IMAGES" if _is_any(file, inputs.tables, images) else ""


def _is_any(file: Path, tables: Iterable[str], images: Iterable[str]) -> bool:
    """Return whether a file is a table or an image; of a million images few have its name."""
    name = file.name.casefold()
    alike = (path for path in images if os.path.basename(path).casefold() == name)
    return any(_is_same(file, path) for paths in (tables, alike) for path in paths)


def _is_same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)  # another link, or spelling, of one file
    except OSError:
        return False
