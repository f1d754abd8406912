"""``--import MODULE``: modules of a user's own, which register trainers, methods and datasets."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from dplq.errors import UserError, one_line

HELP = "Python module that registers trainers or datasets of your own; may be repeated"
FORM = "Give the dotted name of a module in the current folder or on PYTHONPATH, or FOLDER/MODULE."


def add_import(parser: argparse._ActionsContainer) -> None:
    """Add ``--import``."""
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE", help=HELP
    )


def import_words(names: Iterable[str]) -> list[str]:
    """Return the words of a command line that import modules."""
    return [word for name in names for word in ("--import", name)]


def import_modules(names: Iterable[str]) -> None:
    """Import modules, found as Python finds them, in the current folder, or in their own.

    Args:
        names: dotted names, or ``FOLDER/MODULE``; the folder is searched last.

    Raises:
        UserError: there is no such module, it cannot be imported, or it is another folder's.
    """
    for given in names:
        folder, name = _split(given)
        _append(folder or str(Path.cwd()))
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise UserError(
                f"--import {given}: it cannot be imported ({one_line(error)}). {FORM}"
            ) from error
        _refuse_another(given, _folder_of(module.__spec__, name))


def located(names: Iterable[str]) -> tuple[str, ...]:
    """Return modules as ``FOLDER/MODULE``, for processes that run in other folders.

    Only packages around them are imported.

    Raises:
        UserError: there is no such module.
    """
    return tuple(dict.fromkeys(map(_located, names)))


def _located(given: str) -> str:
    folder, name = _split(given)
    _append(folder or str(Path.cwd()))
    try:
        spec = find_spec(name)
    except Exception as error:
        raise UserError(f"--import {given}: {one_line(error)}. {FORM}") from error
    if spec is None:
        raise UserError(f"--import {given}: there is no such module. {FORM}")
    found = _folder_of(spec, name)
    _refuse_another(given, found)
    return str(Path(found).absolute() / name) if found else name


def _split(given: str) -> tuple[str, str]:
    """Return folder, "" for none, and dotted name of what was given."""
    folder, name = os.path.split(given)
    return os.path.abspath(os.path.expanduser(folder)) if folder else "", name.removesuffix(".py")


def _append(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _refuse_another(given: str, found: str) -> None:
    """Refuse a module that was found in another folder than the one that was given, if any."""
    folder, name = _split(given)
    if folder and os.path.isdir(folder) and found and not os.path.samefile(found, folder):
        raise UserError(
            f"--import {given}: Python finds another module '{name}' first, in {found}. Give "
            "yours another name."
        )


def _folder_of(spec: importlib.machinery.ModuleSpec | None, name: str) -> str:
    """Return the folder in which a dotted name begins; "" for a module without a file."""
    if spec is None:
        return ""
    if spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations)))
    elif spec.origin and spec.has_location:
        path = Path(spec.origin)
    else:
        return ""
    return str(path.parents[name.count(".")])
