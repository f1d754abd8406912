"""Accuracy of ``dplq predict`` where labels are known, with and without training images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dplq.io.runs.trained_images import (
    TRAIN_IMAGES_FILE,
    TrainedImageFinder,
    read_trained_images,
)
from dplq.io.validation.paths import is_file


@dataclass
class Count:
    """Images with a label, and those of them that are predicted right."""

    labelled: int = 0
    right: int = 0

    def add(self, is_right: bool) -> None:
        """Count one image with a label."""
        self.labelled += 1
        self.right += is_right

    def in_words(self) -> str:
        """Return the accuracy with its images."""
        images = "image" if self.labelled == 1 else "images"
        share = 100 * self.right / self.labelled
        return f"{share:.2f} % ({self.right:,} of {self.labelled:,} {images})"


@dataclass
class Accuracy:
    """Counts right predictions, those of images that the model was trained on apart.

    Attributes:
        trained: finds the training images; None: they are not known.
        every: all images with a label.
        unseen: those of them that the model was not trained on.
    """

    trained: TrainedImageFinder | None
    every: Count = field(default_factory=Count)
    unseen: Count = field(default_factory=Count)

    @classmethod
    def of(cls, checkpoint: Path) -> Accuracy:
        """Return a count of nothing for a checkpoint's model.

        Raises:
            UserError: the record of its training images is damaged.
        """
        record = checkpoint.parent / TRAIN_IMAGES_FILE
        if not is_file(record):
            return cls(None)
        return cls(TrainedImageFinder(read_trained_images(record).train))

    def add(self, paths: Sequence[str], labels: Sequence[int], predictions: Sequence[int]) -> None:
        """Count images by their labels, -1 where unknown, and predictions."""
        for path, label, prediction in zip(paths, labels, predictions, strict=True):
            if label < 0:
                continue
            self.every.add(label == prediction)
            if not self._is_trained(path):
                self.unseen.add(label == prediction)

    def _is_trained(self, path: str) -> bool:
        if self.trained is None or not os.path.isfile(path):  # a row of an image that is gone
            return False
        return bool(self.trained.name_of(path))

    def lines(self) -> list[str]:
        """Return what there is to print, one line or two; nothing without labels."""
        if not self.every.labelled:
            return []
        lines = [f"accuracy: {self.every.in_words()}"]
        if trained := self.every.labelled - self.unseen.labelled:
            rest = f"of the others: {self.unseen.in_words()}" if self.unseen.labelled else ""
            what = "is an image" if trained == 1 else "are images"
            lines.append(
                f"{trained:,} of them {what} that the model was trained on, so this accuracy is "
                f"too high{'; ' if rest else '.'}{rest}"
            )
        return lines
