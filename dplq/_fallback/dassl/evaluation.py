"""Evaluators: from model outputs to the result block of the log."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from dassl.utils import InputError, Registry, atomic_write

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: Any) -> EvaluatorBase:
    """Build the evaluator named by ``TEST.EVALUATOR``."""
    announce = "Loading evaluator" if cfg.VERBOSE else ""
    return EVALUATOR_REGISTRY.build(cfg.TEST.EVALUATOR, cfg, announce=announce, **kwargs)


class EvaluatorBase:
    """Base class: `reset`, `process` for each batch, `evaluate`."""

    def __init__(self, cfg: CfgNode):
        self.cfg = cfg

    def reset(self) -> None:
        """Discard all batches."""
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch: model output `mo` and ground truth `gt`."""
        raise NotImplementedError

    def evaluate(self) -> OrderedDict[str, float]:
        """Return the results; the first is what `test` returns."""
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro-F1, all in per cent.

    Args:
        cfg: ``TEST.PER_CLASS_RESULT`` and ``TEST.COMPUTE_CMAT`` enable more.
        lab2cname: label -> class name; needed for per-class results.
        **kwargs: ignored.
    """

    def __init__(self, cfg: CfgNode, lab2cname: Mapping[int, str] | None = None, **kwargs: Any):
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise InputError("TEST.PER_CLASS_RESULT needs the class names (lab2cname)")
        self._lab2cname = {} if lab2cname is None else lab2cname
        self.reset()

    def reset(self) -> None:
        """Discard all batches."""
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Add a batch: scores (B, K) and labels (B,)."""
        self._y_pred += mo.max(dim=1).indices.tolist()
        self._y_true += gt.tolist()

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the result block and return its numbers.

        Raises:
            InputError: no image has been processed.
        """
        from sklearn.metrics import f1_score  # slow to import

        true, pred = np.array(self._y_true), np.array(self._y_pred)
        if not len(true):
            raise InputError("nothing to evaluate: no image has been processed")
        correct = int((true == pred).sum())
        accuracy = 100.0 * correct / len(true)
        macro_f1 = 100.0 * f1_score(true, pred, average="macro", labels=np.unique(true))
        results = OrderedDict(
            accuracy=accuracy, error_rate=100.0 - accuracy, macro_f1=float(macro_f1)
        )
        print("=> result")
        print(f"* total: {len(true):,}")
        print(f"* correct: {correct:,}")
        print(f"* accuracy: {accuracy:.1f}%")
        print(f"* error: {results['error_rate']:.1f}%")
        print(f"* macro_f1: {macro_f1:.1f}%")
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class(true, pred)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusion(true, pred)
        return results

    def _per_class(self, true: np.ndarray, pred: np.ndarray) -> float:
        """Print each class's accuracy and return their mean."""
        print("=> per-class result")
        accuracies = []
        for label in np.unique(true).tolist():
            hits = pred[true == label] == label
            accuracies.append(100.0 * int(hits.sum()) / len(hits))
            print(
                f"* class: {label} ({self._lab2cname[label]})\ttotal: {len(hits):,}\t"
                f"correct: {int(hits.sum()):,}\tacc: {accuracies[-1]:.1f}%"
            )
        mean = float(np.mean(accuracies))
        print(f"* average: {mean:.1f}%")
        return mean

    def _save_confusion(self, true: np.ndarray, pred: np.ndarray) -> None:
        """Save the matrix (rows: true label, sum 1) as a tensor, so that a safe load reads it."""
        from sklearn.metrics import confusion_matrix

        path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
        with atomic_write(path) as temporary:
            torch.save(torch.from_numpy(confusion_matrix(true, pred, normalize="true")), temporary)
        print(f"Confusion matrix is saved to {path}")
