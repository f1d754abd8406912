"""Predictions of a test, kept beside the evaluator that only counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dplq.errors import UserError


class EvaluationRecord:
    """Keeps all labels, predictions and logits that Dassl's evaluator is given.

    Args:
        evaluator: Dassl's; everything else is delegated to it.
        advice: what to do about logits that are nan or infinite, a sentence.
        keep_logits: keep the logits and the paths of the images, too.

    Attributes:
        labels: of the images, in the order of the test.
        predictions: the class of the largest logit.
        paths: of the images; "" where a batch does not say.
    """

    def __init__(self, evaluator: Any, advice: str = "", keep_logits: bool = True) -> None:
        self.evaluator, self.advice, self.keep_logits = evaluator, advice, keep_logits
        self.bad = torch.zeros((), dtype=torch.int64)  # images, on the logits' device
        self.labels: list[int] = []
        self.predictions: list[int] = []
        self.paths: list[str] = []
        self._logits: list[Tensor] = []
        self._announced: Sequence[str] | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "evaluator":
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def reset(self) -> None:
        """Clear all labels, predictions and logits."""
        self.labels, self.predictions, self.paths, self._logits = [], [], [], []
        self.bad = torch.zeros((), dtype=torch.int64)
        self.evaluator.reset()

    def announce(self, paths: Sequence[str] | None) -> None:
        """Give the paths of the batch that is processed next; None: they are not known."""
        self._announced = paths

    def process(self, output: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels (B,)."""
        self.labels += label.tolist()
        self.predictions += output.argmax(dim=1).tolist()
        bad = ~torch.isfinite(output).all(dim=1)
        self.bad = self.bad.to(output.device) + bad.sum()
        if self.keep_logits:
            self._logits.append(output.detach().float().cpu())
            self.paths += self._announced or [""] * len(output)
        self._announced = None
        self.evaluator.process(output, label)

    def logits(self) -> NDArray[np.float32]:
        """Return the logits of all images, float32 (N, K)."""
        found: NDArray[np.float32] = torch.cat(self._logits).numpy()
        return found

    def evaluate(self) -> Any:
        """Return what Dassl's evaluator does, once all logits are found to be finite.

        Raises:
            UserError: some are not; the message has their number.
        """
        if bad := int(self.bad):
            raise UserError(
                f"The logits of {bad} of the {len(self.labels)} tested images are nan or infinite: "
                f"there is no accuracy, and no result is written. {self.advice}"
            )
        return self.evaluator.evaluate()
