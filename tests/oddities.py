"""What may be on a disk in place of a file."""

from __future__ import annotations

import os
from pathlib import Path

KINDS = ("link to itself", "link to nothing", "folder", "pipe")


def make_odd(path: Path, kind: str) -> None:
    """Make one of `KINDS` at a path."""
    if kind == "link to itself":
        path.symlink_to(path.name)
    elif kind == "link to nothing":
        path.symlink_to("nothing-is-here")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
