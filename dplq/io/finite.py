"""Search for values that are nan or infinite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return which tensors hold nan or infinite values, and how many: ``ctx (3 of 512 values)``.

    They may be on several devices (Adam counts its steps on the CPU); each is waited for once where
    all values are finite.
    """
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    fine: dict[torch.device, list[Tensor]] = {}
    for tensor in floats.values():
        fine.setdefault(tensor.device, []).append(torch.isfinite(tensor).all())
    if all(bool(torch.stack(of_device).all()) for of_device in fine.values()):
        return []
    wrong = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in floats.items()}
    return [
        f"{name} ({count} of {floats[name].numel()} values)"
        for name, count in wrong.items()
        if count
    ]
