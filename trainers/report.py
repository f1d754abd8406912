"""The record of a finished run: what was predicted, and `results.json`."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dplq import __version__
from dplq.checkpoint import write_atomically
from dplq.dassl_compat import which_dassl

FORMAT = 1
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy")


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
        trainer: a `PromptTrainer` that has just tested.
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
            "train": trainer.train_seconds if steps else None,
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
    write_atomically(path, json.dumps(result, indent=1).encode())
    return path


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: allocated on a GPU, resident set size of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def git_commit() -> str | None:
    """Commit of this source tree, with "-dirty" if it was changed; None outside a checkout."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed below somebody else's checkout, this file is not one of theirs.
        git("ls-files", "--error-unmatch", Path(__file__).name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python, this project, the libraries that decide numbers, and which Dassl."""
    found = {"python": platform.python_version(), "dplq": __version__, "dassl": which_dassl()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def plain(node: Any) -> Any:
    """A config as nested dicts and lists, for JSON."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return list(node) if isinstance(node, (list, tuple)) else node
