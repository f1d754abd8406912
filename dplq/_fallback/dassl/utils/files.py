"""Folders, JSON files, images, downloads."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from .errors import InputError


def mkdir_if_missing(dirname: str | os.PathLike) -> None:
    """Create a folder and its parents; a no-op if it exists or the name is empty."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str | os.PathLike) -> bool:
    """Return whether `fpath` is a file; warn if it is not."""
    isfile = os.path.isfile(fpath)
    if not isfile:
        warnings.warn(f"no file at {fpath}", stacklevel=2)
    return isfile


@contextmanager
def atomic_write(fpath: str | os.PathLike) -> Iterator[str]:
    """Yield a temporary path beside `fpath`, renamed to `fpath` if the block succeeds.

    The folder of `fpath` is created if it is missing.
    """
    fpath = os.fspath(fpath)
    mkdir_if_missing(os.path.dirname(fpath))
    temporary = f"{fpath}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, fpath)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read_json(fpath: str | os.PathLike) -> Any:
    """Read a JSON file; InputError names the file if it is not JSON."""
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise InputError(f"{fpath} is not a JSON file: {error}") from error


def write_json(obj: Any, fpath: str | os.PathLike) -> None:
    """Write a JSON file, indented by four, atomically."""
    with atomic_write(fpath) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read an image file as 8-bit RGB, upright; see `dplq.images.reader`."""
    from dplq.images import reader

    return reader.read_image(path)


def listdir_nohidden(path: str | os.PathLike, sort: bool = True) -> list[str]:
    """List the entries of a folder whose names do not start with a dot.

    Args:
        path: the folder.
        sort: accepted as in Dassl, but the list is sorted in any case: it is shuffled with a
            seeded generator, and the result must not depend on the file system.
    """
    return sorted(name for name in os.listdir(path) if not name.startswith("."))


def tolist_if_not(x: Any) -> list:
    """Return `x` if it is a list, else a list that holds it."""
    return x if isinstance(x, list) else [x]


def download_url(url: str, dst: str | os.PathLike) -> None:
    """Download a file, with a progress bar, atomically."""
    print(f"Downloading {url} to {dst}")
    mkdir_if_missing(os.path.dirname(dst))
    torch.hub.download_url_to_file(url, os.fspath(dst))
