"""Default configs of the protocols: ``python -m dplq.experiments.protocols`` for the scripts.

The choices are data, `configs/protocols.yaml`; neither torch nor Dassl is imported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dplq.errors import UserError, suggest
from dplq.io.protocols import CONFIGS, DEMO, PROTOCOLS, Entry, read_protocols

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
