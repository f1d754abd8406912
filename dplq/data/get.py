"""Installation of a dataset: download, unpack into a staging folder, validate, then move.

The declaration has the layout, this file the order of events. Downloads are kept in
``ROOT/downloads/NAME`` until the end; the staging folder is hidden and cleared by the next run. A
hidden lock file, ``ROOT/.FOLDER.lock``, makes two processes wait for each other.
"""

from __future__ import annotations

import logging
import os
import shutil
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

from dplq.data.unpack import BadArchive, is_archive, unpack
from dplq.datasets._engine.base import FolderDataset
from dplq.datasets._engine.layout.folders import FEWSHOT_DIR
from dplq.errors import UserError
from dplq.io.download import fetch
from dplq.io.lock import exclusive

logger = logging.getLogger(__name__)

TORCHVISION = "torchvision:"


def get(
    declaration: type[FolderDataset],
    root: str,
    problem: Callable[[str], str],
    *,
    archives: Sequence[str] = (),
    keep: bool = False,
) -> Path:
    """Install the data of a dataset in its folder under `root`.

    Args:
        declaration: the dataset's class.
        root: absolute `DATASET.ROOT`; it is made.
        problem: returns why the dataset cannot be loaded from a root, "" if it can.
        archives: files that were downloaded by hand, in place of the declared `download`.
        keep: keep what was downloaded.

    Returns:
        The folder that was filled.

    Raises:
        UserError: a download or archive fails, or the folder has data already that cannot be used.
            It is left unchanged then.
    """
    name = declaration.__name__
    target = Path(declaration.folder_under(root))
    try:
        os.makedirs(root, exist_ok=True)
        with exclusive(_lock_of(target, root), f"fills {target}"):
            if problem(root):
                _install(declaration, root, problem, archives, keep)
            else:
                logger.warning("%s is in %s already: another process has got it", name, target)
    except OSError as error:
        raise UserError(
            f"Cannot put {name} into {target}: {error.strerror or error}. Free space or choose "
            "another --root, then run the same command again."
        ) from error
    return target


def _lock_of(target: Path, root: str) -> Path:
    """Return the lock of a folder: variants of a dataset share the folder."""
    return Path(root, f".{'-'.join(target.relative_to(root).parts) or 'root'}.lock")


def _install(
    declaration: type[FolderDataset],
    root: str,
    problem: Callable[[str], str],
    archives: Sequence[str],
    keep: bool,
) -> None:
    name = declaration.__name__
    target = Path(declaration.folder_under(root))
    _refuse_existing_data(name, target)
    downloads = Path(root, "downloads", name)
    staging = Path(root, f".{name}.unpacking")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed
        staged = Path(declaration.folder_under(str(staging)))
        staged.mkdir(parents=True)
        for file in map(Path, archives):
            _add(file.expanduser(), staged)
        for url, checksum, filename in () if archives else declaration.download:
            if url.startswith(TORCHVISION):
                _from_torchvision(url, staged)
            else:
                filename = filename or os.path.basename(urllib.parse.urlsplit(url).path)
                _add_download(fetch(url, downloads / filename, checksum), staged)
        _strip_outer_folders(staged, lambda: not problem(str(staging)))
        _move_into_place(staged, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not keep:
        shutil.rmtree(downloads, ignore_errors=True)


def _refuse_existing_data(name: str, target: Path) -> None:
    """Raise rather than mix the new data with images that exist already."""
    inside = list(target.iterdir()) if target.is_dir() else []
    if any(entry.is_dir() and entry.name != FEWSHOT_DIR for entry in inside):
        raise UserError(
            f"{name}: {target} has folders already, but is not complete. `check {name}` says what "
            f"is wrong; or move {target} away to get it anew."
        )


def _add_download(file: Path, staged: Path) -> None:
    """Add a download; a bad archive is deleted, so that the next run downloads it anew."""
    try:
        _add(file, staged)
    except BadArchive:
        file.unlink()
        raise


def _add(file: Path, staged: Path) -> None:
    """Unpack an archive into the staged folder; copy any other file (lists, labels, splits)."""
    if is_archive(file):
        temporary = staged.with_name(f"{staged.name}.one")  # several may fill one folder
        unpack(file, temporary)
        if _only_folder(temporary) == staged.name:
            _move_up(temporary, staged.name)
        _merge(temporary, staged, file)
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
    """Download and unpack with a class of torchvision: ``torchvision:Class?key=value``."""
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


def _strip_outer_folders(folder: Path, is_found: Callable[[], bool]) -> None:
    """Strip single outer folders, level by level, if the data are found only then.

    Archives of source trees, for one, have a folder around everything. If the data are found at no
    level, the folders are restored.
    """
    stripped: list[tuple[str, list[str]]] = []
    while not is_found():
        name = _only_folder(folder)
        if not name:
            break
        stripped.append((name, _move_up(folder, name)))
    else:
        return
    for name, children in reversed(stripped):
        (folder / f".{name}").mkdir()  # hidden for now: a child may have its name
        for child in children:
            (folder / child).rename(folder / f".{name}" / child)
        (folder / f".{name}").rename(folder / name)


def _only_folder(folder: Path) -> str:
    """Return the name of the only folder in `folder`, "" if there are several."""
    inside = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    return inside[0] if len(inside) == 1 else ""


def _move_up(folder: Path, name: str) -> list[str]:
    """Move the content of `folder/name` to `folder`; return the names; existing files stay."""
    temporary = folder.with_name(f"{folder.name}.temporary")
    (folder / name).rename(temporary)
    children = [entry.name for entry in temporary.iterdir() if not (folder / entry.name).exists()]
    for child in children:
        (temporary / child).rename(folder / child)
    shutil.rmtree(temporary)
    return children


def _move_into_place(staged: Path, target: Path) -> None:
    """Rename into place; existing files, e.g. a split, stay beside the data."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)
        return
    taken = [entry.name for entry in staged.iterdir() if (target / entry.name).exists()]
    if taken:
        raise UserError(f"{target} holds {', '.join(taken)} already. Move it away, then try again.")
    for entry in sorted(staged.iterdir()):
        entry.rename(target / entry.name)
