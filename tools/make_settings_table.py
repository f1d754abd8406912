"""Table of all config keys: ``python -m tools.make_settings_table`` writes docs/settings.md.

It is made from the methods' settings classes and `dplq.host.config`; a test compares the two.
"""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

import dplq.plugin  # noqa: F401  (registers the trainers)
from dplq.host.config import GENERAL_KEYS, Key, trainer_keys
from dplq.host.dassl import registered_trainers

PATH = Path(__file__).resolve().parents[1] / "docs/settings.md"
INTRODUCTION = """# Settings

Config keys that this project adds to Dassl's, in a YAML file or as `KEY VALUE` at the end of a
command line. `python train.py --trainer NAME --help` prints the same for one trainer.

This page is made by `python -m tools.make_settings_table` from the settings classes in
`dplq/methods/` and from `dplq/host/config.py`; do not edit it.
"""


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION, "## All trainers\n", _table(GENERAL_KEYS)]
    for trainer in sorted(registered_trainers(), key=lambda cls: cls.__name__.lower()):
        parts += [f"## {trainer.__name__}\n", _table(trainer_keys(trainer))]
    return "\n".join(parts)


def _table(keys: list[Key] | tuple[Key, ...]) -> str:
    rows = [[f"`{name}`", f"`{default!r}`", help_text] for name, default, help_text in keys]
    table = tabulate(rows, ["key", "default", "meaning"], tablefmt="github", disable_numparse=True)
    return f"{table}\n"


if __name__ == "__main__":
    PATH.write_text(settings_page(), encoding="utf-8")
    print(PATH)
