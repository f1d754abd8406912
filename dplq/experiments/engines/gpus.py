"""The GPUs of this machine, as nvidia-smi lists them: PyTorch takes seconds to import."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field

from dplq.errors import UserError

VARIABLE = "CUDA_VISIBLE_DEVICES"
QUERY = ("--query-gpu=index,uuid,memory.total,memory.used", "--format=csv,noheader,nounits")
PATIENCE = 60  # seconds: it wakes each GPU where no persistence daemon runs


@dataclass
class Gpu:
    """A GPU.

    Attributes:
        name: its entry in ``CUDA_VISIBLE_DEVICES``.
        index: its number for nvidia-smi.
        uuid: its unique name.
        total: its memory in MiB.
        used: how much of it is in use, by whomever.
        jobs: names of the jobs that run on it.
        before: memory in use before the first of them.
    """

    name: str
    index: str
    uuid: str
    total: int
    used: int
    jobs: set[str] = field(default_factory=set)
    before: int = 0


def list_gpus(wanted: str | None = None) -> list[Gpu]:
    """Return the GPUs that may be used; none where nvidia-smi is missing or fails.

    Args:
        wanted: numbers or unique names, separated by commas; None: ``CUDA_VISIBLE_DEVICES``, else
            all.

    Raises:
        UserError: a GPU of `wanted` is not there.
    """
    there = _query()
    given = wanted if wanted is not None else os.environ.get(VARIABLE)
    if given is None:
        return there  # by unique name: CUDA may count otherwise than nvidia-smi
    names = list(filter(None, (name.strip() for name in given.split(","))))
    chosen = [found for name in names if (found := _find(name, there))]
    if wanted is not None and len(chosen) < len(names):
        lost = next(name for name in names if not _find(name, there))
        choices = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in there) or "none"
        raise UserError(f"gpus: there is no GPU {lost}. nvidia-smi lists: {choices}.")
    return chosen


def refresh(gpus: Iterable[Gpu]) -> None:
    """Note how much memory is in use now."""
    used = {gpu.uuid: gpu.used for gpu in _query()}
    for gpu in gpus:
        gpu.used = used.get(gpu.uuid, gpu.used)


def _find(name: str, there: Iterable[Gpu]) -> Gpu | None:
    for gpu in there:
        if name == gpu.index or (not name.isdigit() and gpu.uuid.startswith(name)):
            gpu.name = name
            return gpu
    return None


def _query() -> list[Gpu]:
    try:
        done = subprocess.run(
            ["nvidia-smi", *QUERY], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        rows = [[word.strip() for word in row.split(",")] for row in done.stdout.splitlines()]
        return [Gpu(uuid, index, uuid, int(total), int(used)) for index, uuid, total, used in rows]
    except (OSError, subprocess.SubprocessError, ValueError):  # no driver, or "[N/A]"
        return []
