"""Processes of one run: today exactly one."""

from __future__ import annotations

import os

from dplq.errors import UserError


def refuse_distributed() -> None:
    """Refuse to run as one of several processes: each would train all.

    Raises:
        UserError: `WORLD_SIZE`, which torchrun and clusters set, is not 1.
    """
    size = os.environ.get("WORLD_SIZE", "").strip() or "1"
    if size != "1":
        raise UserError(
            f"WORLD_SIZE is {size}, but a run is one process: training over several is not "
            "supported. Start train.py without torchrun, or unset WORLD_SIZE; several runs may go "
            "on side by side, each with its own --output-dir."
        )
