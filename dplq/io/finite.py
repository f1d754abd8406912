"""Search for values that are nan or infinite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return which tensors hold nan or infinite values, and how many: ``ctx (3 of 512 values)``.

    A device is waited for once where all values are finite.
    """
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floats:
        return []
    fine = torch.stack([torch.isfinite(tensor).all() for tensor in floats.values()])
    if fine.all():
        return []
    return [
        f"{name} ({int((~torch.isfinite(tensor)).sum())} of {tensor.numel()} values)"
        for (name, tensor), good in zip(floats.items(), fine.tolist(), strict=True)
        if not good
    ]
