"""Default configs of the protocols, and properties of the trainers that plans depend on.

They are data, `configs/protocols.yaml`; neither torch nor Dassl is imported. `folders` are those of
config files, in place of `dplq.io.protocols.config_folders`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dplq.errors import UserError, suggest
from dplq.io.protocols import DEMO, Entry, config_files, config_folders, read_protocols

PROPERTIES = ("any_classes", "trained")


def trainers(folders: Sequence[Path] = ()) -> list[str]:
    """Return the trainers that have configs: those listed in their order, then the others."""
    paths = [path for one in folders or config_folders() for path in (one / "trainers").glob("*")]
    there = sorted({path.name for path in paths if path.is_dir()})
    listed = [name for name in read_protocols(folders) if name in there]
    return listed + [name for name in there if name not in listed]


def default_config(trainer: str, protocol: str, shots: int, folders: Sequence[Path] = ()) -> str:
    """Return the name of the config file that a trainer uses, without the ending.

    Args:
        trainer: a folder of ``configs/trainers``.
        protocol: one of `PROTOCOLS`.
        shots: training images per class; -1 for all.
        folders: of config files.

    Raises:
        UserError: the trainer has several configs and none is named as the default.
    """
    entry = read_protocols(folders).get(trainer, Entry())
    if choice := entry.config(protocol, shots):
        return choice
    files = list(config_files(f"trainers/{trainer}", folders))
    names = [name for name in files if name != DEMO] or files
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{trainer} has no default config: set CFG to a file of configs/trainers/{trainer}, or "
        f"add it to configs/protocols.yaml.{suggest('', names)}"
    )


def has_property(trainer: str, name: str) -> bool:
    """Return a property of a trainer, one of `PROPERTIES`."""
    return bool(getattr(read_protocols().get(trainer, Entry()), name))
