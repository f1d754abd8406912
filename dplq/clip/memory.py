"""Memory budget of the text tower: packed blocks, or texts, per chunk."""

from __future__ import annotations

import os

import torch
from torch import Tensor

# Activations that one token leaves for the backward pass in one layer, in multiples of the width:
# two normalisations, queries, keys, values, attention output, and the MLP's wide layer twice.
ACTIVATIONS_PER_LAYER = 16
TEXT_FRACTION = 0.4  # of a device's memory that the texts may occupy


def _host_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return 8 << 30


HOST_BYTES = _host_bytes()  # at import: torch.compile cannot trace the call


def total_bytes(device: torch.device) -> int:
    """Return a device's memory; the total, not what is free, so that runs are reproducible."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return HOST_BYTES


def blocks_per_chunk(packed: Tensor, length: int, batch: int, layers: int) -> int:
    """Return how many packed blocks fit into memory at once.

    Args:
        packed: the classes' own tokens in N blocks, (N, T, d).
        length: tokens of a block, the shared prefix included.
        batch: images with texts of their own.
        layers: of the tower.

    Returns:
        1 to N.
    """
    return _fitting(packed, batch * length, layers)


def texts_per_chunk(embeddings: Tensor, layers: int) -> int:
    """Return how many embedded texts (N, L, d_t) fit into memory at once, 1 to N."""
    return _fitting(embeddings, embeddings.shape[1], layers)


def _fitting(items: Tensor, tokens: int, layers: int) -> int:
    """Return how many of N items (N, ..., d) fit, each of which needs so many tokens."""
    kept = ACTIVATIONS_PER_LAYER * (layers if torch.is_grad_enabled() else 1)
    count = len(items)
    needed = count * tokens * items.shape[-1] * items.element_size() * kept
    allowed = TEXT_FRACTION * total_bytes(items.device)
    return count if needed <= allowed else max(int(count * allowed / needed), 1)
