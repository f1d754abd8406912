"""What command lines and scripts give for a request: words, numbers and paths, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dplq.errors import UserError
from dplq.io.validation.paths import user_path

WHOLE_NUMBER = re.compile("0|[1-9][0-9]*")
SHOTS = re.compile("-1|[1-9][0-9]*")


def split(text: str, name: str) -> list[str]:
    """Return the words of a text, separated by white space of any kind.

    Raises:
        UserError: there is none; `name` is what the text is of.
    """
    words = text.split()
    if not words:
        raise UserError(f"{name} holds white space only: name at least one, or unset it")
    return words


def seeds(words: Iterable[str]) -> tuple[int, ...]:
    """Return seeds, each once.

    Raises:
        UserError: a word is no whole number.
    """
    found: dict[int, None] = {}
    for given in words:
        for word in given.split() or [given]:
            if not WHOLE_NUMBER.fullmatch(word):
                word = re.sub(r"\s", " ", word)
                raise UserError(
                    f"'{word}' is no seed (a whole number; several: 1 2 3); KEY VALUE settings "
                    "come after --"
                )
            found[int(word)] = None
    return tuple(found)


def shots(words: Iterable[str], name: str) -> tuple[int, ...]:
    """Return numbers of shots, each once.

    Raises:
        UserError: a word is none; `name` is what they are given by.
    """
    found: dict[int, None] = {}
    for word in words:
        if not SHOTS.fullmatch(word):
            raise UserError(f"{name} is '{word}': give a whole number above 0, or -1")
        found[int(word)] = None
    return tuple(found)


def folder(text: str, name: str, caller: Path) -> Path:
    """Return a path as an absolute one, relative to the caller's folder.

    Raises:
        UserError: it cannot be used; `name` is what it is given by.
    """
    if "\n" in text:
        raise UserError(f"{name} has a line break in it: ${text!r}")
    return caller / user_path(text, name)


def data_folder(text: str, name: str, caller: Path) -> Path:
    """Return the folder of the datasets by one canonical path, which settings.txt records."""
    path = folder(text, name, caller)
    return Path(os.path.abspath(path)) if path.is_dir() else path
