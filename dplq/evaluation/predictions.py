"""Predictions of a test, kept beside the evaluator that only counts them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError


class EvaluationRecord:
    """Keeps all labels and predictions that Dassl's evaluator is given.

    Args:
        evaluator: Dassl's; everything else is delegated to it.
        advice: what to do about logits that are nan or infinite, a sentence.
    """

    def __init__(self, evaluator: Any, advice: str = "") -> None:
        self.evaluator, self.advice = evaluator, advice
        self.bad = torch.zeros((), dtype=torch.int64)  # images, on the logits' device
        self.labels: list[int] = []
        self.predictions: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if name == "evaluator":
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def reset(self) -> None:
        """Clear all labels and predictions."""
        self.labels, self.predictions = [], []
        self.bad = torch.zeros((), dtype=torch.int64)
        self.evaluator.reset()

    def process(self, output: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels (B,)."""
        self.labels += label.tolist()
        self.predictions += output.argmax(dim=1).tolist()
        bad = ~torch.isfinite(output).all(dim=1)
        self.bad = self.bad.to(output.device) + bad.sum()
        self.evaluator.process(output, label)

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
