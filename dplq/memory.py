"""How much of the classes' texts the text tower may run at once."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# Numbers that one token leaves behind in one layer, in multiples of the width: two normalisations,
# queries, keys, values, what attention gave, and the MLP's wide layer twice.
KEPT = 16
SHARE = 0.4  # of the machine's memory may go to the texts


@torch.compiler.assume_constant_result
def total_bytes(device: torch.device) -> int:
    """Memory of a device: what it has, not what is free, so that a run is repeated exactly."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 8 << 30


def blocks_per_chunk(packed: Tensor, batch: int, layers: int) -> int:
    """Blocks of classes to run at once, so that what they leave behind fits into the memory.

    Args:
        packed: all blocks' tokens, (N, L, d).
        batch: images that have texts of their own.
        layers: of the tower.
    """
    kept = KEPT * (layers if torch.is_grad_enabled() else 1)
    needed = batch * packed.numel() * packed.element_size() * kept
    allowed = SHARE * total_bytes(packed.device)
    return len(packed) if needed <= allowed else max(int(len(packed) * allowed / needed), 1)
