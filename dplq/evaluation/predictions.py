"""Predictions of a test, kept beside the evaluator that only counts them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class EvaluationRecord:
    """Keeps all labels and predictions that Dassl's evaluator is given.

    Args:
        evaluator: Dassl's; everything else is delegated to it.
    """

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator
        self.labels: list[int] = []
        self.predictions: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if name == "evaluator":
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def reset(self) -> None:
        """Clear all labels and predictions."""
        self.labels, self.predictions = [], []
        self.evaluator.reset()

    def process(self, output: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels (B,)."""
        self.labels += label.tolist()
        self.predictions += output.argmax(dim=1).tolist()
        self.evaluator.process(output, label)
