"""Running averages for the log line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch


class AverageMeter:
    """Running average of a number: last value, average, sum and count.

    Of a tensor they are tensors: the device is not synchronised until one of them is printed.

    Args:
        ema: average exponentially, with weight 0.1 on the new value.
    """

    val: Any  # a float or a 0-d tensor, as are avg and sum
    avg: Any
    sum: Any
    count: int

    def __init__(self, ema: bool = False):
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        """Reset to no values."""
        self.val = self.avg = self.sum = self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        """Add a value that stands for `n` samples."""
        # Doubles, as Python's own numbers are; Apple's GPUs lack them.
        if isinstance(val, torch.Tensor) and val.device.type != "mps":
            self.val = val.detach().double().reshape(())
        else:
            self.val = float(val)
        self.sum += self.val * n
        self.count += n
        self.avg = self.avg * 0.9 + self.val * 0.1 if self.ema else self.sum / self.count


class MetricMeter:
    """Running averages by name; its string is "loss 1.2345 (1.3456) acc 50.0000 (40.0000)".

    Args:
        delimiter: between two of them.
    """

    def __init__(self, delimiter: str = " "):
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, float | torch.Tensor] | None) -> None:
        """Add one value per name; None is ignored.

        Raises:
            TypeError: what a trainer's `forward_backward` returned is not a dict.
        """
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError(f"expected a dict of numbers, got {type(input_dict).__name__}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(
            f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items()
        )
