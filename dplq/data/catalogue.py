"""The registered datasets of this project, by name."""

from __future__ import annotations

import os
from typing import Any

from dplq.datasets._engine.base import FolderDataset
from dplq.datasets._engine.folders import ClassTable
from dplq.errors import UserError, suggest


def registered() -> dict[str, Any]:
    """The classes of our datasets, by every name that they are registered under."""
    from dassl.data.datasets import DATASET_REGISTRY

    classes = {name: DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()}
    return {name: cls for name, cls in classes.items() if issubclass(cls, FolderDataset)}


def find(name: str, declarations: dict[str, Any]) -> str:
    """The registered name that is `name` but for capitals.

    Raises:
        UserError: there is none; with the nearest names.
    """
    if name in declarations:
        return name
    matching = [known for known in declarations if known.casefold() == name.casefold()]
    if not matching:
        raise UserError(f"There is no dataset '{name}'.{suggest(name, declarations)}")
    return matching[0]


def bare(cls: Any, root: str) -> Any:
    """An instance that knows its folder and declared classes, whether or not the data are there."""
    dataset = cls.__new__(cls)
    dataset.name = cls.__name__
    dataset.dataset_dir = os.path.join(root, cls.dataset_dir)
    dataset.table = ClassTable(cls.class_table)
    return dataset
