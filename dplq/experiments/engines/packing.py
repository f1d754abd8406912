"""How many runs share a GPU: a given number, or what the measured memory allows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from dplq.experiments.engines.gpus import Gpu, refresh

EVERY = 2.0  # seconds between two measurements
USABLE = 0.9  # of the memory that was free: runs differ a little
MOST = 16  # runs on one GPU

logger = logging.getLogger(__name__)


class Packing:
    """The GPUs, and which jobs run on them.

    Args:
        gpus: at least one.
        per_gpu: runs on each; None: one, and twice as many after each run as long as memory
            allows.

    Attributes:
        per_gpu: runs on each, at present.
    """

    def __init__(self, gpus: Sequence[Gpu], per_gpu: int | None) -> None:
        self.gpus = gpus
        self.per_gpu = per_gpu or 1
        self._measures = per_gpu is None
        self._most = 0.0  # MiB that a run takes, the largest so far
        self._at = 0.0

    @property
    def places(self) -> int:
        """Return how many jobs may be under way, those that are included."""
        if not self._measures or self._most < 1:
            return self.per_gpu * len(self.gpus)
        return sum(len(gpu.jobs) + self._free_places(gpu) for gpu in self.gpus)

    def place(self, job: str) -> Gpu:
        """Return the GPU with the fewest jobs, which has one more from now on."""
        fitting = [gpu for gpu in self.gpus if self._measures and self._free_places(gpu)]
        gpu = min(fitting or self.gpus, key=lambda gpu: len(gpu.jobs))
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

    def remove(self, job: str, *, well: bool) -> None:
        """Note that a job has ended; from then on memory tells how many there may be.

        A small run may come first, such as one that trains nothing, so their number is doubled at
        most.

        Args:
            job: its name.
            well: whether it has done its work: one that failed may have taken less than it needs.
        """
        for gpu in self.gpus:
            gpu.jobs.discard(job)
        if not self._measures or self._most < 1:  # nothing of it was on a GPU
            return
        free = min(gpu.total - gpu.before for gpu in self.gpus)
        most = min(MOST, self.per_gpu * (2 if well else 1))
        number = max(1, min(most, int(USABLE * free / self._most)))
        if number != self.per_gpu:
            self.per_gpu = number
            logger.info(
                "%d run(s) at once on a GPU: one takes up to %s MiB of the %s MiB that were free",
                number,
                f"{self._most:,.0f}",
                f"{free:,}",
            )

    def _free_places(self, gpu: Gpu) -> int:
        """Return how many more jobs a GPU may take: each needs the most that was measured.

        A job that has just begun has taken nothing yet.
        """
        expected = gpu.before + self._most * len(gpu.jobs) if gpu.jobs else 0.0
        used = max(gpu.used, expected)
        fitting = int((gpu.total - used) / self._most) if self._most >= 1 else self.per_gpu
        least = 0 if gpu.jobs else 1  # else nothing would ever be tried
        return max(least, min(self.per_gpu - len(gpu.jobs), fitting))
