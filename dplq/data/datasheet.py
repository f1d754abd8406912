"""What the declarations say of the datasets: the table of all, and the datasheet of one."""

from __future__ import annotations

import inspect
import math
import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from tabulate import tabulate

UNKNOWN = "unknown"
WIDTH = 100


def table(declarations: Mapping[str, Any]) -> str:
    """One line per dataset; variants of all images and further names go without."""
    rows = [
        [
            name,
            cls.domain,
            number_of_classes(cls) or "?",
            f"{cls.total_images:,}" if cls.total_images else "?",
            textwrap.shorten(cls.licence, 40, placeholder=" ..."),
            how_to_get(cls),
            cls.v2_name,
        ]
        for name, cls in declarations.items()
        if not is_alias(name, cls) and not is_variant(cls, declarations)
    ]
    rows.sort(key=lambda row: (row[1] in (UNKNOWN, ""), row[1].lower(), row[0].lower()))
    headers = ["name", "domain", "classes", "images", "licence", "get", "all as test"]
    align = ("left", "left", "right", "right", "left", "left", "left")
    return tabulate(rows, headers, disable_numparse=True, colalign=align)


def datasheet(name: str, declarations: Mapping[str, Any], layout: str, places: str) -> str:
    """All that is declared of a dataset.

    Args:
        name: its registered name.
        declarations: all datasets by registered name.
        layout: the tree that is expected.
        places: the folders and patterns that are looked at, one a line.
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


def how_to_get(cls: Any) -> str:
    """``automatic`` or ``manual``; for what is on no page, where it comes from."""
    if cls.download:
        return "automatic"
    on_a_page = cls.homepage == UNKNOWN or "://" in cls.homepage
    return "manual" if on_a_page else cls.homepage


def split_text(cls: Any) -> str:
    """Where train, val and test come from."""
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
        new = f"the folders {', '.join(dict.fromkeys(filter(None, cls.split_folders)))}, if so laid"
    return f"{files}{source} if it lies beside the data, else {new}" if files else new


def number_of_classes(cls: Any) -> int:
    """How many classes are declared, 0 if the data name them."""
    return len(cls.class_table)


def is_alias(name: str, cls: Any) -> bool:
    """Whether `name` is a further name of a dataset."""
    return cls.file_name not in ("", name)


def is_variant(cls: Any, declarations: Mapping[str, Any]) -> bool:
    """Whether another dataset names this one as its variant of all images."""
    return cls.__name__ in {other.v2_name for other in declarations.values()}


def half_of(label: int, count: int) -> str:
    """``base`` or ``new``: the first ceil(n/2) labels are base."""
    return "base" if label < math.ceil(count / 2) else "new"


def prompt_of(cls: Any, classname: str) -> str:
    """The zero-shot prompt of a class."""
    return cls.template.format(classname.replace("_", " "))


def _halves(count: int, test_only: bool) -> str:
    base = math.ceil(count / 2)
    return str(count) if test_only else f"{count}: {base} base, {count - base} new"


def _where_classes_are(cls: Any) -> str:
    if cls.class_file:
        return os.fspath(cls.class_file)
    return "the split file" if cls.needs_split else "the data"


def _classes(cls: Any) -> str:
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
