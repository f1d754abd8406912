"""The datasheet of a dataset, made from its declaration."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from tabulate import tabulate

from dplq.datasets._engine.base import FolderDataset
from dplq.evaluation.halves import base_count

UNKNOWN = "unknown"
Declarations: TypeAlias = Mapping[str, type[FolderDataset]]
WIDTH = 100


def datasheet(name: str, declarations: Declarations, layout: str, places: str) -> str:
    """Return all declared facts of a dataset.

    Args:
        name: its registered name.
        declarations: all datasets by registered name.
        layout: the tree that is expected.
        places: the folders and patterns that are searched, one a line.
    """
    cls = declarations[name]
    summary, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\n")
    each = cls.images_per_class
    size = "x".join(map(str, cls.image_size or ()))
    count = number_of_classes(cls)
    facts = {
        "domain": cls.domain,
        "modality": cls.modality,
        "images": (f"{cls.total_images:,}" if cls.total_images else UNKNOWN)
        + (f", {each:,} in every class" if isinstance(each, int) else "")
        + (f", {size} pixels" if size else ""),
        "classes": _halves(count, cls.test_only)
        if count
        else f"named in {_where_classes_are(cls)}",
        "home page": cls.homepage,
        "licence": cls.licence,
        "citation": cls.citation,
        "get": "; ".join(url + f" ({digest})" * bool(digest) for url, digest, _ in cls.download)
        or how_to_get(cls),
        "split": split_text(cls),
        "template": cls.template,
        "all as test": cls.v2_name,
        "also called": ", ".join(other for other in cls.also_called if other != name),
    }
    lines = [f"{name}: {summary}", textwrap.indent(rest.strip("\n"), "  "), ""]
    lines += [f"{key:12} {_wrapped(text)}" for key, text in facts.items() if text]
    if layout:
        lines += [
            "",
            "Expected, where DATA is --root:",
            layout,
            "Read in any of these places:",
            places,
        ]
    if cls.class_table:
        lines += ["", _classes(cls)]
    return "\n".join(lines)


def how_to_get(cls: type[FolderDataset]) -> str:
    """Return ``automatic`` or ``manual``, or the source where there is no home page."""
    if cls.download:
        return "automatic"
    on_a_page = cls.homepage == UNKNOWN or "://" in cls.homepage
    return "manual" if on_a_page else cls.homepage


def split_text(cls: type[FolderDataset]) -> str:
    """Return where train, val and test come from."""
    if cls.test_only:
        return "none: every image is a test image"
    files = " or ".join(
        pattern.format(cls.file_name or cls.__name__) for pattern in cls.split_files
    )
    source = f" ({cls.split_url})" * bool(cls.split_url)
    if cls.needs_split:
        return f"the published {files}{source}, beside the data"
    train, val = (round(100 * fraction) for fraction in cls.fractions)
    new = f"made here, {train}/{val}/{100 - train - val} % of every class"
    if cls.list_files:
        new = f"the lists {', '.join(filter(None, cls.list_files))}"
    elif cls.split_folders:
        folders = dict.fromkeys(filter(None, cls.split_folders))
        new = f"the folders {', '.join(folders)}, if they exist"
    return f"{files}{source} if it is beside the data, else {new}" if files else new


def number_of_classes(cls: type[FolderDataset]) -> int:
    """Return how many classes are declared, 0 if the data name them."""
    return len(cls.class_table)


def half_of(label: int, count: int) -> str:
    """Return whether a label is ``base`` or ``new``."""
    return "base" if label < base_count(count) else "new"


def prompt_of(cls: type[FolderDataset], classname: str) -> str:
    """Return the zero-shot prompt of a class."""
    return cls.template.format(classname.replace("_", " "))


def _halves(count: int, test_only: bool) -> str:
    base = base_count(count)
    return str(count) if test_only else f"{count}: {base} base, {count - base} new"


def _where_classes_are(cls: type[FolderDataset]) -> str:
    if cls.class_file:
        return os.fspath(cls.class_file)
    return "the split file" if cls.needs_split else "the data"


def _classes(cls: type[FolderDataset]) -> str:
    count = len(cls.class_table)
    rows = [
        [
            label,
            "" if cls.test_only else half_of(label, count),
            prompt_of(cls, row[0]),
            " | ".join(_distinct(row[1:] or row)),
        ]
        for label, row in enumerate(cls.class_table)
    ]
    return tabulate(rows, ["label", "half", "prompt", "folder (any spelling)"])


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="",
        subsequent_indent=" " * 13,
        break_long_words=False,
        break_on_hyphens=False,
    )
