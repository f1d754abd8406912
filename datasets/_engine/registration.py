"""Registration of a dataset, its all-test variant, and its other names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from dplq.host.dassl import register_dataset

if TYPE_CHECKING:
    from .base import FolderDataset

T = TypeVar("T", bound="type[FolderDataset]")
DECLARED: dict[str, type[FolderDataset]] = {}


def declare(cls: T) -> T:
    """Register a dataset with Dassl, and its variant and other names (a class decorator).

    * `v2_name`: a variant for domain generalisation, in which every image is test;
    * `also_called`: further names of both, for configs of other projects. They are the same
      dataset: the names of files follow the class.
    """
    family: list[tuple[type[FolderDataset], str]] = [(cls, "")]
    if cls.v2_name:
        family.append((_variant(cls), "v2"))
    for member, suffix in family:
        DECLARED[member.__name__] = member
        for name in (member.__name__, *(other + suffix for other in cls.also_called)):
            alias = {"file_name": member.file_name or member.__name__, "also_called": ()}
            register_dataset(member if name == member.__name__ else _derive(member, name, alias))
    return cls


def _variant(cls: type[FolderDataset]) -> type[FolderDataset]:
    """Return the all-test variant: the authors' loaders whose names end in v2."""
    prompts = cls.reference_v2_prompts
    changes = {
        "__doc__": f"All of {cls.__name__} as test images. Data as for {cls.__name__}.",
        "test_only": True,
        "v2_name": "",
        "also_called": (),
        "reference_prompts": cls.reference_prompts if prompts is None else prompts,
    }
    return _derive(cls, cls.v2_name, changes)


def _derive(cls: type[FolderDataset], name: str, changes: dict[str, Any]) -> type[FolderDataset]:
    """Return a subclass with other attributes."""
    attributes = {"__module__": cls.__module__, "__doc__": cls.__doc__, **changes}
    derived: Any = type(name, (cls,), attributes)
    return derived
