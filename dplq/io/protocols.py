"""``configs/protocols.yaml``: which config each trainer uses in each protocol."""

from __future__ import annotations

from collections.abc import Mapping
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
    shape = dict[str, Entry | None] | None
    content: dict[str, Entry | None] | None = read_yaml(path, shape) if is_file(path) else None
    return {name: entry or Entry() for name, entry in (content or {}).items()}
