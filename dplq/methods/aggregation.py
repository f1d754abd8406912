"""Averages of the learnable weights over training (PromptSRC, section 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dplq.errors import UserError


class GaussianAverage:
    """Gaussian-weighted prompt aggregation: a running sum of every epoch's weights.

    Args:
        epochs: how many there are.
        mean: the epoch, counted from 1, with the largest weight.
        std: width of the Gaussian in epochs, above 0.

    Attributes:
        weights: of the epochs, of sum 1.
        state: the sum so far, by name.

    Raises:
        UserError: no width.
    """

    def __init__(self, epochs: int, mean: float, std: float) -> None:
        if std <= 0:
            raise UserError(f"GPA_STD is {std}; it must be above 0.")
        steps = torch.arange(1, epochs + 1, dtype=torch.float64)
        # A softmax, because far from its mean all of the Gaussian's values may underflow.
        self.weights = torch.softmax(-((steps - mean) ** 2) / (2 * std**2), dim=0).tolist()
        self.state: dict[str, Tensor] = {}

    def add(self, epoch: int, state: Mapping[str, Tensor]) -> None:
        """Add what the epoch of this number, counted from 0, has ended with."""
        for name, tensor in state.items():
            before = self.state.get(name, torch.zeros(()))  # after a resume, on the CPU
            self.state[name] = before.to(tensor.device) + self.weights[epoch] * tensor
