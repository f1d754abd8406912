"""``configs/protocols.yaml``: which config each trainer uses in each protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from dplq.io.files import configs_folder
from dplq.io.validation.paths import is_file
from dplq.io.validation.yaml_file import read_yaml

CONFIGS = configs_folder()
PROTOCOLS = ("base2new", "few_shot", "transfer")
DEMO = "demo"  # config for the built-in datasets


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


def read_protocols(configs: Path = CONFIGS) -> dict[str, Entry]:
    """Return the entries of ``protocols.yaml`` by trainer; empty where there is no such file.

    Raises:
        UserError: an entry is not as the head of that file explains.
    """
    path = configs / "protocols.yaml"
    if not is_file(path):
        return {}
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@cache
def _read(path: Path, modified: int, size: int) -> dict[str, Entry]:
    """Return the entries of a file; a large plan wants them thousands of times."""
    content: dict[str, Entry | None] | None = read_yaml(path, dict[str, Entry | None] | None)
    return {name: entry or Entry() for name, entry in (content or {}).items()}
