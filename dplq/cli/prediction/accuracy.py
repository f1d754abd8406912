"""Accuracy of ``dplq predict`` where labels are known, with and without training images."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dplq.errors import UserError
from dplq.io.runs.trained_images import (
    TRAIN_IMAGES_FILE,
    TrainedImageFinder,
    read_trained_images,
)
from dplq.io.validation.paths import is_file

logger = logging.getLogger(__name__)


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
        record: the file with the training images; it is read once there is a label.
        every: all images with a label.
        trained: those of them that the model was trained on.
        unseen: those of them that it was not trained on; of images that are gone it is not known.
    """

    record: Path
    every: Count = field(default_factory=Count)
    trained: Count = field(default_factory=Count)
    unseen: Count = field(default_factory=Count)

    def add(self, paths: Sequence[str], labels: Sequence[int], predictions: Sequence[int]) -> None:
        """Count images by their labels, -1 where unknown, and predictions."""
        for path, label, prediction in zip(paths, labels, predictions, strict=True):
            if label < 0:
                continue
            self.every.add(label == prediction)
            if self._finder is not None and os.path.isfile(path):
                is_trained = bool(self._finder.name_of(path))
                (self.trained if is_trained else self.unseen).add(label == prediction)

    @cached_property
    def _finder(self) -> TrainedImageFinder | None:
        """Finds the training images; None where they are not known."""
        if not is_file(self.record):
            return None
        try:
            return TrainedImageFinder(read_trained_images(self.record).train)
        except UserError as error:
            logger.warning("%s Which images were trained on is not known.", error)
            return None

    def lines(self) -> list[str]:
        """Return what there is to print, one line or two; nothing without labels."""
        if not self.every.labelled:
            return []
        lines = [f"accuracy: {self.every.in_words()}"]
        if count := self.trained.labelled:
            rest = f"; of the others: {self.unseen.in_words()}" if self.unseen.labelled else "."
            what = "is an image" if count == 1 else "are images"
            lines.append(
                f"{count:,} of them {what} that the model was trained on, so this accuracy may be "
                f"too high{rest}"
            )
        return lines


def accuracy_of(checkpoint: Path) -> Accuracy:
    """Return a count of nothing yet, for a checkpoint's model."""
    return Accuracy(checkpoint.parent / TRAIN_IMAGES_FILE)
