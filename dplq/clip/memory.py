"""How much of the classes' texts the text tower may run at once."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# Numbers that one token leaves behind in one layer, in multiples of the width: two normalisations,
# queries, keys, values, what attention gave, and the MLP's wide layer twice.
KEPT = 16
SHARE = 0.4  # of the machine's memory may go to the texts


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 8 << 30


MACHINE = _machine_bytes()  # read once: torch.compile cannot follow the call


def total_bytes(device: torch.device) -> int:
    """Memory of a device: what it has, not what is free, so that a run is repeated exactly."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return MACHINE


def blocks_per_chunk(own: Tensor, length: int, batch: int, layers: int) -> int:
    """Blocks of classes to run at once, so that what they leave behind fits into the memory.

    Args:
        own: the tokens of the classes of N blocks, (N, T, d).
        length: of a block with what all classes begin with.
        batch: images that have texts of their own.
        layers: of the tower.
    """
    kept = KEPT * (layers if torch.is_grad_enabled() else 1)
    count, _, width = own.shape
    needed = batch * count * length * width * own.element_size() * kept
    allowed = SHARE * total_bytes(own.device)
    return count if needed <= allowed else max(int(count * allowed / needed), 1)
