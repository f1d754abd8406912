"""``.pt2``: the archive of torch.export."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.export import ExportedProgram

from dplq.io.atomic import atomic_write

RECORD = "dplq.json"  # among the archive's extra files


def write(program: ExportedProgram, path: Path, record: str) -> None:
    """Write a program and its record; `torch.export.load` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        torch.export.save(program, temporary, extra_files={RECORD: record})
