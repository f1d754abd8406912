"""The record of a finished run: what was predicted, and `results.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.io.atomic import write_bytes_atomically

from .surroundings import device_name, git_commit, peak_memory_mib, versions

FORMAT = 1


class EvaluationRecord:
    """Dassl's evaluator, with all labels and predictions kept at hand."""

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator
        self.labels: list[int] = []
        self.predictions: list[int] = []

    def __getattr__(self, name: str) -> Any:
        if name == "evaluator":
            raise AttributeError(name)
        return getattr(self.evaluator, name)

    def reset(self) -> None:
        self.labels, self.predictions = [], []
        self.evaluator.reset()

    def process(self, output: Tensor, label: Tensor) -> None:
        self.labels += label.tolist()
        self.predictions += output.argmax(dim=1).tolist()
        self.evaluator.process(output, label)


def scores(labels: list[int], predictions: list[int], names: dict[int, str]) -> dict[str, Any]:
    """Accuracy, error rate and macro-F1 in percent, per-class accuracy, and counts.

    Args:
        labels: true labels.
        predictions: predicted labels.
        names: class name of each label.
    """
    from sklearn.metrics import f1_score

    present = sorted(set(labels))
    hits = [label == guess for label, guess in zip(labels, predictions, strict=True)]
    per_class = {}
    for label in present:
        of_class = [hit for hit, true in zip(hits, labels, strict=True) if true == label]
        per_class[names[label]] = 100.0 * sum(of_class) / len(of_class)
    accuracy = 100.0 * sum(hits) / len(hits)
    macro_f1 = f1_score(labels, predictions, average="macro", labels=present, zero_division=0)
    return {
        "accuracy": accuracy,
        "error_rate": 100.0 - accuracy,
        "macro_f1": 100.0 * float(macro_f1),
        "per_class_accuracy": per_class,
        "total": len(hits),
        "correct": sum(hits),
    }


def write_results(trainer: Any, seconds: float) -> Path:
    """Write ``results.json`` into the run's folder, in one step.

    Args:
        trainer: a `FrozenTrainer` that has just tested.
        seconds: how long the test took.
    """
    cfg, record = trainer.cfg, trainer.evaluator
    saved = sorted(trainer.model_dir(cfg.OUTPUT_DIR).glob("model-*.safetensors"))
    steps = trainer.train_steps
    result = {
        "format": FORMAT,
        "trainer": cfg.TRAINER.NAME,
        "dataset": cfg.DATASET.NAME,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "split": "test" if trainer.val_loader is None else cfg.TEST.SPLIT,
        "shots": cfg.DATASET.NUM_SHOTS,
        "seed": cfg.SEED,
        **scores(record.labels, record.predictions, trainer.lab2cname),
        "learnable_parameters": trainer.learnable_parameters,
        "checkpoint_bytes": saved[-1].stat().st_size if saved else None,
        "epochs": trainer.tested_epoch,
        "seconds": {
            "train": trainer.train_seconds or None,
            "test": seconds,
            "step": trainer.train_seconds / steps if steps else None,
        },
        "peak_memory_mib": peak_memory_mib(trainer.device),
        "precision": trainer.precision.name,
        "device": device_name(trainer.device),
        "git_commit": git_commit(),
        "versions": versions(),
        "config": plain(cfg),
    }
    path = Path(cfg.OUTPUT_DIR) / "results.json"
    write_bytes_atomically(path, json.dumps(result, indent=1).encode())
    return path


def plain(node: Any) -> Any:
    """A config as nested dicts and lists, for JSON."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return list(node) if isinstance(node, (list, tuple)) else node
