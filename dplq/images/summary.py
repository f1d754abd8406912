"""What the images of a run or a command are, and what was done to them, in counts and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .reader import ImageFacts, beyond_window, unused_range
from .settings import ReadSettings


class Summary:
    """Counts over images that are examined batch by batch.

    Args:
        facts: of the first images.
    """

    def __init__(self, facts: Iterable[ImageFacts] = ()) -> None:
        self.images = 0
        self.kinds, self.steps = Counter[str](), Counter[str]()
        self.most_frames = 1
        self._deep: list[ImageFacts] = []  # of more than 8 bits
        self.update(facts)

    def update(self, facts: Iterable[ImageFacts]) -> None:
        """Count more images."""
        for fact in facts:
            self.images += 1
            self.kinds[fact.kind] += 1
            self.steps.update(fact.steps)
            self.most_frames = max(self.most_frames, fact.frames)
            if fact.most is not None:
                self._deep.append(fact)

    def unused_range(self, settings: ReadSettings) -> str:
        """Return what `reader.unused_range` says of the images; "" if there is nothing wrong."""
        return unused_range(self._deep, settings)

    def beyond_window(self, settings: ReadSettings) -> str:
        """Return what `reader.beyond_window` says of the images."""
        return beyond_window(self._deep, settings)

    def range_warning(self, settings: ReadSettings) -> str:
        """Return both for a trained model's images: those of the training may be like them."""
        problem, with_it = self.unused_range(settings), "without a"
        if not problem:
            problem, with_it = self.beyond_window(settings), "with this"
        if not problem:
            return ""
        return (
            f"{problem} The model was trained {with_it} window: give one only if these images are "
            "stored otherwise than those of the training."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, the largest first, as results.json has them."""
        return {
            "images": self.images,
            "kinds": dict(self.kinds.most_common()),
            "steps": dict(self.steps.most_common()),
            "most_frames": self.most_frames,
        }

    def in_words(self) -> str:
        """Return one line: how many images of each kind, and what was done to how many."""
        counted = [f"{count} {kind}" for kind, count in self.kinds.most_common()]
        counted += [f"{count} x {step}" for step, count in self.steps.most_common()]
        if self.most_frames > 1:
            counted.append(f"up to {self.most_frames} frames in a file")
        return "; ".join(counted)
