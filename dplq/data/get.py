"""Bring a dataset to its place: download, unpack aside, look whether it is whole, then move.

Works on a class like `FolderDataset`: it knows the layout, this file the order of events. What is
half done lies in ``ROOT/downloads/NAME`` or in a hidden folder that the next run clears.
"""

from __future__ import annotations

import os
import shutil
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dplq.data.download import fetch
from dplq.data.unpack import BadArchive, is_archive, unpack
from dplq.errors import UserError

TORCHVISION = "torchvision:"


def get(
    declaration: Any,
    root: str,
    problem: Callable[[str], str],
    *,
    archives: Sequence[str] = (),
    keep: bool = False,
) -> Path:
    """Put the data of a dataset where it is looked for under `root`.

    Args:
        declaration: the dataset's class: `find_dataset_dir`, `dataset_dir`, `download`.
        root: absolute `DATASET.ROOT`; it is made.
        problem: given a root, says what keeps the dataset from being loaded, "" if nothing.
        archives: files that were downloaded by hand, in place of the declared `download`.
        keep: keep what was downloaded.

    Returns:
        The folder that was filled.

    Raises:
        UserError: it cannot be got, or there is something in the way. The folder is as before.
    """
    name = declaration.__name__
    target = Path(_folder(declaration, root))
    _refuse_leftovers(name, target)
    downloads = Path(root, "downloads", name)
    staging = Path(root, f".{name}.unpacking")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        staged = Path(_folder(declaration, str(staging)))
        staged.mkdir(parents=True)
        for file in map(Path, archives):
            _add(file.expanduser(), staged)
        for url, checksum, filename in () if archives else declaration.download:
            if url.startswith(TORCHVISION):
                _from_torchvision(url, staged)
            else:
                filename = filename or os.path.basename(urllib.parse.urlsplit(url).path)
                _add_download(fetch(url, downloads / filename, checksum), staged)
        _take_wrapping_off(staged, lambda: not problem(str(staging)))
        _place(staged, target)
    except OSError as error:
        raise UserError(
            f"Cannot put {name} into {target}: {error.strerror or error}. Free space or choose "
            "another --root, then run the same command again."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not keep:
        shutil.rmtree(downloads, ignore_errors=True)
    return target


def _folder(declaration: Any, root: str) -> str:
    """Where the declaration looks for its data under `root`."""
    return declaration.find_dataset_dir(declaration.__new__(declaration), root)


def _refuse_leftovers(name: str, target: Path) -> None:
    """Never mix what is got with images that lie there."""
    inside = list(target.iterdir()) if target.is_dir() else []
    if any(entry.is_dir() and entry.name != "split_fewshot" for entry in inside):
        raise UserError(
            f"{name}: {target} has folders already, but is not complete. `check {name}` says what "
            f"is wrong; or move {target} away to get it anew."
        )


def _add_download(file: Path, staged: Path) -> None:
    """As `_add`; a bad archive is deleted, so that the next run gets another."""
    try:
        _add(file, staged)
    except BadArchive:
        file.unlink()
        raise


def _add(file: Path, staged: Path) -> None:
    """Unpack an archive into the staged folder; copy any other file (lists, labels, splits)."""
    if is_archive(file):
        aside = staged.with_name(f"{staged.name}.one")  # several may fill one folder
        unpack(file, aside)
        if _only_folder(aside) == staged.name:
            _lift(aside, staged.name)
        _merge(aside, staged, file)
    elif file.is_file():
        shutil.copyfile(file, staged / file.name)
    else:
        raise UserError(f"There is no file {file}.")


def _merge(source: Path, target: Path, archive: Path) -> None:
    for entry in sorted(source.iterdir()):
        to = target / entry.name
        if entry.is_dir() and to.is_dir():
            _merge(entry, to, archive)
        elif to.exists():
            raise UserError(f"{archive} and another file of the dataset both hold {to.name}.")
        else:
            entry.rename(to)
    source.rmdir()


def _from_torchvision(url: str, staged: Path) -> None:
    """``torchvision:Class?key=value``: what torchvision's own class downloads and unpacks."""
    from torchvision import datasets

    name, _, query = url.removeprefix(TORCHVISION).partition("?")
    try:
        getattr(datasets, name)(str(staged), download=True, **dict(urllib.parse.parse_qsl(query)))
    except Exception as error:  # network, gdown, md5, a page in place of a file: anything
        raise UserError(
            f"torchvision.datasets.{name} could not be downloaded ({type(error).__name__}: "
            f"{error}). Run the same command again, or get it by hand."
        ) from error
    for path in filter(is_archive, list(staged.rglob("*"))):
        path.unlink()


def _take_wrapping_off(folder: Path, is_found: Callable[[], bool]) -> None:
    """Lift what lies in the only folder, level by level, if the data are found only then.

    Archives of source trees, for one, have a folder around everything.
    """
    lifted: list[tuple[str, list[str]]] = []
    while not is_found():
        name = _only_folder(folder)
        if not name:
            break
        lifted.append((name, _lift(folder, name)))
    else:
        return
    for name, children in reversed(lifted):
        (folder / f".{name}").mkdir()  # hidden for now: a child may have its name
        for child in children:
            (folder / child).rename(folder / f".{name}" / child)
        (folder / f".{name}").rename(folder / name)


def _only_folder(folder: Path) -> str:
    """The name of the one folder in `folder`, "" if there are several; files do not count."""
    inside = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return inside[0] if len(inside) == 1 else ""


def _lift(folder: Path, name: str) -> list[str]:
    """Move what lies in `folder/name` to `folder`; files that are there already stay."""
    aside = folder.with_name(f"{folder.name}.aside")
    (folder / name).rename(aside)
    children = [entry.name for entry in aside.iterdir() if not (folder / entry.name).exists()]
    for child in children:
        (aside / child).rename(folder / child)
    shutil.rmtree(aside)
    return children


def _place(staged: Path, target: Path) -> None:
    """Rename into place; files that lie there already, e.g. a split, stay beside it."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)
        return
    taken = [entry.name for entry in staged.iterdir() if (target / entry.name).exists()]
    if taken:
        raise UserError(f"{target} holds {', '.join(taken)} already. Move it away, then try again.")
    for entry in sorted(staged.iterdir()):
        entry.rename(target / entry.name)
