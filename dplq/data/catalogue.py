"""Catalogue of the registered datasets: by name, and as a table."""

from __future__ import annotations

import textwrap

from tabulate import tabulate

from dplq.data.datasheet import UNKNOWN, Declarations, how_to_get, number_of_classes
from dplq.datasets._engine.base import FolderDataset
from dplq.errors import UserError, printable, suggest


def registered() -> dict[str, type[FolderDataset]]:
    """Return our dataset classes by every name they are registered under."""
    from dassl.data.datasets import DATASET_REGISTRY

    classes = {name: DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()}
    return {name: cls for name, cls in classes.items() if issubclass(cls, FolderDataset)}


def find(name: str, declarations: Declarations) -> str:
    """Return the registered name that equals `name`; case does not count.

    Raises:
        UserError: there is none; with the nearest names.
    """
    if name in declarations:
        return name
    matching = [known for known in declarations if known.casefold() == name.casefold()]
    if not matching:
        raise UserError(f"There is no dataset '{printable(name)}'.{suggest(name, declarations)}")
    return matching[0]


def table(declarations: Declarations) -> str:
    """Return one line per dataset, without all-test variants and further names."""
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


def is_alias(name: str, cls: type[FolderDataset]) -> bool:
    """Return whether `name` is a further name of a dataset."""
    return cls.file_name not in ("", name)


def is_variant(cls: type[FolderDataset], declarations: Declarations) -> bool:
    """Return whether this is the all-test variant of another dataset."""
    return cls.__name__ in {other.v2_name for other in declarations.values()}
