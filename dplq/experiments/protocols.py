"""Default configs of the protocols: ``python -m dplq.experiments.protocols`` for the scripts.

The choices are data, `configs/protocols.yaml`; neither torch nor Dassl is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from dplq.errors import UserError, suggest
from dplq.io.files import configs_folder
from dplq.io.validation.paths import is_file
from dplq.io.validation.yaml_file import read_yaml

CONFIGS = configs_folder()
PROTOCOLS = ("base2new", "few_shot", "transfer")
PROPERTIES = ("any_classes", "trained")
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


def read_protocols(configs: Path = CONFIGS) -> dict[str, Entry]:
    """Return the entries of ``protocols.yaml`` by trainer; empty where there is no such file.

    Raises:
        UserError: an entry is not as the head of that file explains.
    """
    path = configs / "protocols.yaml"
    shape = dict[str, Entry | None] | None
    content: dict[str, Entry | None] | None = read_yaml(path, shape) if is_file(path) else None
    return {name: entry or Entry() for name, entry in (content or {}).items()}


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
    choice = getattr(entry, protocol) or entry.default
    if isinstance(choice, Mapping):
        choice = choice.get(shots, choice.get("other", ""))
    if choice:
        return str(choice)
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(prog="python -m dplq.experiments.protocols")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("trainers", help="print all trainers, on one line")
    config = actions.add_parser("config", help="print the default config of a trainer")
    config.add_argument("trainer")
    config.add_argument("protocol", choices=PROTOCOLS)
    config.add_argument("shots", type=int)
    check = actions.add_parser("has", help="print yes if a trainer has a property, else no")
    check.add_argument("trainer")
    check.add_argument("property", choices=PROPERTIES)
    args = parser.parse_args(argv)
    try:
        if args.action == "trainers":
            print(" ".join(trainers()))
        elif args.action == "config":
            print(default_config(args.trainer, args.protocol, args.shots))
        else:
            print("yes" if has_property(args.trainer, args.property) else "no")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
