"""Default configs of the protocols, and properties of the trainers that plans depend on.

They are data, `configs/protocols.yaml`; neither torch nor Dassl is imported.
"""

from __future__ import annotations

from pathlib import Path

from dplq.errors import UserError, suggest
from dplq.io.protocols import CONFIGS, DEMO, Entry, read_protocols

PROPERTIES = ("any_classes", "trained")


def trainers(configs: Path = CONFIGS) -> list[str]:
    """Return the trainers that have configs: those listed in their order, then the others."""
    there = sorted(path.name for path in (configs / "trainers").iterdir() if path.is_dir())
    listed = [name for name in read_protocols(configs) if name in there]
    return listed + [name for name in there if name not in listed]


def default_config(trainer: str, protocol: str, shots: int, configs: Path = CONFIGS) -> str:
    """Return the name of the config file that a trainer uses, without the ending.

    Args:
        trainer: a folder of ``configs/trainers``.
        protocol: one of `PROTOCOLS`.
        shots: training images per class; -1 for all.
        configs: the folder of all configs.

    Raises:
        UserError: the trainer has several configs and none is named as the default.
    """
    entry = read_protocols(configs).get(trainer, Entry())
    if choice := entry.config(protocol, shots):
        return choice
    files = sorted((configs / "trainers" / trainer).glob("*.yaml"))
    names = [path.stem for path in files if path.stem != DEMO] or [path.stem for path in files]
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"{trainer} has no default config: set CFG to a file of configs/trainers/{trainer}, or "
        f"add it to configs/protocols.yaml.{suggest('', names)}"
    )


def has_property(trainer: str, name: str, configs: Path = CONFIGS) -> bool:
    """Return a property of a trainer, one of `PROPERTIES`."""
    return bool(getattr(read_protocols(configs).get(trainer, Entry()), name))
