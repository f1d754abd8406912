"""Means of an epoch's batches, without a wait for the device in each step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class EpochMeans:
    """Collects the numbers of the batches of an epoch."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the numbers of a batch, tensors of one element that stay on their device."""
        for name, value in values.items():
            self.batches.setdefault(name, []).append(value.detach().reshape(()))

    def take(self) -> dict[str, float]:
        """Return the means of the batches since the last call."""
        batches, self.batches = self.batches, {}
        return {
            name: float(torch.stack(values).to("cpu", torch.float64).mean())
            for name, values in batches.items()
        }
