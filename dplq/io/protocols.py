"""Folders of config files, and ``protocols.yaml``: which config a trainer uses in a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from dplq.errors import UserError
from dplq.io.files import configs_folder
from dplq.io.validation.paths import is_file
from dplq.io.validation.yaml_file import read_yaml

CONFIGS = configs_folder()
PROTOCOLS = ("base2new", "few_shot", "transfer")
DEMO = "demo"  # config for the built-in datasets
ENDING = ".yaml"
_own: list[Path] = []  # folders that a user has added, the first of which takes precedence


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What ``protocols.yaml`` says of one trainer; the keys are explained there."""

    default: str = ""
    base2new: str = ""
    few_shot: str | dict[int | Literal["other"], str] = ""
    transfer: str = ""
    trained: bool = True
    any_classes: bool = True
    variants: list[str] = msgspec.field(default_factory=list)
    node: str = ""
    depth: dict[str, int] = msgspec.field(default_factory=dict)

    def config(self, protocol: str, shots: int) -> str:
        """Return the config of one of `PROTOCOLS`; "" where none is named."""
        choice = getattr(self, protocol) or self.default
        if isinstance(choice, Mapping):
            choice = choice.get(shots, choice.get("other", ""))
        return str(choice)


def add_configs(folder: Path) -> None:
    """Have the files of a folder laid out as ``configs/`` take precedence over the project's.

    Args:
        folder: with ``datasets/*.yaml``, ``trainers/TRAINER/*.yaml`` or ``protocols.yaml``.

    Raises:
        UserError: it has none of them.
    """
    parts = ("datasets", "trainers", "protocols.yaml")
    if not any((folder / part).exists() for part in parts):
        raise UserError(
            f"{folder} is no folder of configs: give one with datasets/DATASET.yaml or "
            "trainers/TRAINER/CONFIG.yaml in it, as configs/ has."
        )
    if folder not in config_folders():
        _own.append(folder)


def config_folders() -> tuple[Path, ...]:
    """Return the folders of config files in the order in which they are searched."""
    return (*_own, CONFIGS)


def config_files(kind: str, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """Return the config files of a kind by name, without the ending, sorted.

    Args:
        kind: a folder below ``configs/``: "datasets" or "trainers/TRAINER".
        folders: that are searched, in place of `config_folders`.
    """
    searched = reversed(folders or config_folders())
    found = {path.stem: path for one in searched for path in (one / kind).glob(f"*{ENDING}")}
    return dict(sorted(found.items()))


def config_file(kind: str, name: str) -> Path:
    """Return the path of a config file; that of the project where there is none.

    Args:
        kind: as for `config_files`.
        name: without the ending.
    """
    place = Path(kind, f"{name}{ENDING}")
    return next(filter(is_file, (folder / place for folder in _own)), CONFIGS / place)


def is_built_in(dataset: str) -> bool:
    """Return whether a file of ``configs/datasets`` is of a dataset without a data folder."""
    kind = "datasets"
    return dataset.startswith(f"{DEMO}_") and config_file(kind, dataset).is_relative_to(CONFIGS)


def read_protocols(folders: Sequence[Path] = ()) -> dict[str, Entry]:
    """Return the entries of ``protocols.yaml`` by trainer; empty where there is no such file.

    Args:
        folders: with such a file, in place of `config_folders`; the first takes precedence.

    Raises:
        UserError: an entry is not as the head of that file explains.
    """
    found: dict[str, Entry] = {}
    for folder in folders or config_folders():
        path = folder / "protocols.yaml"
        if is_file(path):
            status = path.stat()
            read = _read(path, status.st_mtime_ns, status.st_size)
            found |= {name: entry for name, entry in read.items() if name not in found}
    return found


@cache
def _read(path: Path, modified: int, size: int) -> dict[str, Entry]:
    """Return the entries of a file; a large plan wants them thousands of times."""
    content: dict[str, Entry | None] | None = read_yaml(path, dict[str, Entry | None] | None)
    return {name: entry or Entry() for name, entry in (content or {}).items()}
