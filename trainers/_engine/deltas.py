"""Base of the trainers of weight deltas: a number of steps instead of epochs."""

from __future__ import annotations

import math

from .base import PromptTrainer


class DeltaTrainer(PromptTrainer):
    """Base of the trainers whose originals count steps for each image of a class."""

    def epochs(self) -> int:
        """Return the epochs that ITERATIONS steps for each image of a class take, rounded up."""
        if not self.keys.ITERATIONS:
            return super().epochs()
        images = math.ceil(len(self.dm.dataset.train_x) / self.num_classes)
        steps, length = self.keys.ITERATIONS * images, len(self.train_loader_x)
        epochs = math.ceil(steps / max(length, 1))
        print(
            f"Epochs: {epochs} of {length} steps, for {self.keys.ITERATIONS} steps for each of "
            f"{images} images of a class (TRAINER.{self.node}.ITERATIONS); OPTIM.MAX_EPOCH "
            f"{self.cfg.OPTIM.MAX_EPOCH} is not used"
        )
        return epochs
