"""How many runs share a GPU: a given number, or what the measured memory allows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dplq.experiments.engines.gpus import Gpu, refresh

EVERY = 2.0  # seconds between two measurements
USABLE = 0.9  # of the memory that was free: runs differ a little
MOST = 16  # runs on one GPU


class Packing:
    """The GPUs, and which jobs run on them.

    Args:
        gpus: at least one.
        per_gpu: runs on each; None: one, and after the first run as many as memory allows.

    Attributes:
        per_gpu: runs on each, at present.
    """

    def __init__(self, gpus: Sequence[Gpu], per_gpu: int | None) -> None:
        self.gpus = gpus
        self.per_gpu = per_gpu or 1
        self._measures = per_gpu is None
        self._most = 0.0  # MiB that a run takes, the largest so far
        self._at = 0.0

    def place(self, job: str) -> Gpu:
        """Return the GPU with the fewest jobs, which has one more from now on."""
        gpu = min(self.gpus, key=lambda gpu: len(gpu.jobs))
        if self._measures and not gpu.jobs:
            refresh([gpu])
            gpu.before = gpu.used
        gpu.jobs.add(job)
        return gpu

    def measure(self) -> None:
        """Note how much memory the runs take, every other second."""
        if not self._measures or time.monotonic() - self._at < EVERY:
            return
        refresh(self.gpus)
        self._at = time.monotonic()
        for gpu in self.gpus:
            if gpu.jobs:
                self._most = max(self._most, (gpu.used - gpu.before) / len(gpu.jobs))

    def remove(self, job: str) -> None:
        """Note that a job has ended; from then on memory tells how many there may be."""
        for gpu in self.gpus:
            gpu.jobs.discard(job)
        if not self._measures or self._most < 1:  # nothing of it was on a GPU
            return
        free = min(gpu.total - gpu.before for gpu in self.gpus)
        number = max(1, min(MOST, int(USABLE * free / self._most)))
        if number != self.per_gpu:
            self.per_gpu = number
            print(
                f"{number} run(s) at once on a GPU: one takes up to {self._most:,.0f} MiB of the "
                f"{free:,} MiB that were free",
                flush=True,
            )
