"""Timer of training steps that does not wait for a GPU after each."""

from __future__ import annotations

import time
from typing import Any

import torch


class StepTimer:
    """Adds up the seconds of steps on a device.

    Args:
        device: where they run; on a GPU the time between two events of its stream counts.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.steps: list[tuple[Any, Any]] = []

    def mark(self) -> Any:
        """Return a timestamp: seconds, or a CUDA event."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, began: Any) -> None:
        """Add the step that began at that mark and ends now."""
        self.steps.append((began, self.mark()))

    def seconds(self) -> float:
        """Return the seconds of all steps since the last call; wait for the device."""
        steps, self.steps = self.steps, []
        if not self.on_gpu:
            return sum(end - began for began, end in steps)
        torch.cuda.synchronize()
        return sum(began.elapsed_time(end) for began, end in steps) / 1000
