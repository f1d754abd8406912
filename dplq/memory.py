"""How many classes the text tower may run at once."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# Numbers that one token leaves behind in one layer, in multiples of the width: two normalisations,
# queries, keys, values, what attention gave, and the MLP's wide layer twice.
KEPT = 16
SHARE = 0.4  # of the memory that is free may go to the texts


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 4 << 30


def classes_per_chunk(own: Tensor, classes: int, batch: int, layers: int) -> int:
    """Classes to run at once, so that what they leave behind fits into the free memory.

    Args:
        own: all the classes' own tokens, (1, S, d).
        classes: K.
        batch: images that have texts of their own.
        layers: of the tower.
    """
    kept = KEPT * (layers if torch.is_grad_enabled() else 1)
    needed = batch * own.numel() * own.element_size() * kept
    if needed < 256 << 20:  # not worth asking
        return classes
    return max(int(classes * min(1.0, SHARE * free_bytes(own.device) / needed)), 1)
