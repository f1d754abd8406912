"""Rules for what split files, tables and lists say: paths of images, names of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from dplq.errors import UserError, few, printable
from dplq.io.validation.paths import name_problem

from .protocol import Split

ONE_NAME = "Give every class a name of its own"


def check_paths(paths: Iterable[str], source: str, remedy: str) -> None:
    """Raise if a path is not that of a file below the image folder.

    A link inside the folder may lead anywhere; a path may not.

    Args:
        paths: POSIX paths from the image folder on.
        source: the file that names them.
        remedy: what to do with it, the end of a sentence.

    Raises:
        UserError: a path is empty, absolute or leads out, or has signs that no name may have.
    """
    every = list(paths)
    absolute = [path for path in every if path.startswith("/") or re.match("[A-Za-z]:", path)]
    if absolute:
        raise UserError(
            f"{source} names {len(absolute)} image(s) (of {len(every)}) by an absolute path: "
            f"{few(map(printable, absolute), 3)}. They are of another machine: write paths from "
            f"the image folder on, or {remedy}."
        )
    for path in every:
        problem = name_problem(path)
        if not problem and ".." in path.split("/"):
            problem = "leads out of its folder by '..'"
        if problem:
            raise UserError(
                f"{source}: the image path '{printable(path)}' {problem}. Write paths from the "
                f"image folder on, or {remedy}."
            )


def check_class_names(
    names: Sequence[str], source: str, remedy: str = ONE_NAME, same: Collection[str] = ()
) -> None:
    """Raise if the names of classes cannot be told apart, or cannot stand in a prompt.

    Args:
        names: by label.
        source: the file or folder that names them.
        remedy: what to do, the end of a sentence.
        same: names that several classes may have, as in CLIP's list for ImageNet.

    Raises:
        UserError: a name is empty or has signs that no name may have, or two classes have one
            name, but for case, white space and `_`, which CLIP does not tell apart.
    """
    check_names(names, source)
    known: dict[str, int] = {}
    for label, name in enumerate(names):
        other = known.setdefault(in_prompt(name), label)
        if other != label and name not in same:
            raise UserError(
                f"{source}: classes {other} and {label} have one name, '{names[other]}' and "
                f"'{name}' (case, spaces and '_' do not count). {remedy}."
            )


def check_names(names: Iterable[str], source: str) -> None:
    """Raise (UserError) if a name is empty, is not UTF-8 or has control characters."""
    for name in names:
        if problem := name_problem(name):
            raise UserError(
                f"{source}: the name '{printable(name)}' {problem}. Write a name in words."
            )


def in_prompt(name: str) -> str:
    """Return what CLIP makes of a class name."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").lower().split())


def check_labels(split: Split, source: str, remedy: str) -> None:
    """Raise (UserError) if an image has two labels; the same row twice is another matter."""
    labels: dict[str, int] = {}
    several: dict[str, list[int]] = {}
    for item in (item for part in split for item in part):
        first = labels.setdefault(item.path, item.label)
        if first != item.label:
            several.setdefault(item.path, sorted((first, item.label)))
    if several:
        shown = (f"{path} ({one} and {other})" for path, (one, other) in several.items())
        raise UserError(
            f"{source}: {len(several)} image(s) have two labels: {few(shown, 3)}. Keep one of "
            f"them, or {remedy}."
        )


def repeated_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names that several classes have."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(in_prompt(name), []).append(name)
    return frozenset(name for same in by_key.values() if len(same) > 1 for name in same)
