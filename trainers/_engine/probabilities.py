"""Probabilities of a test: the table of predictions, and the metrics made from it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dplq.errors import UserError
from dplq.evaluation.calibration import (
    fit_temperature,
    log_loss_of_logits,
    reliability,
    softmax,
)
from dplq.evaluation.prediction_rows import distinct_names
from dplq.evaluation.prediction_table import PredictionTable
from dplq.evaluation.summary import short_line, summarise
from dplq.io.runs.files import MOST_NUMBERS, PREDICTIONS, RESULTS

from .val_images import check_val_images

logger = logging.getLogger(__name__)
KEY = "TEST.TEMPERATURE"
FROM_VAL = "val"


class Outcome(NamedTuple):
    """Predictions of a test with their probabilities, and the metrics of them."""

    table: PredictionTable
    metrics: dict[str, Any]


def keeps_probabilities(cfg: Any) -> bool:
    """Return whether the config asks for predictions.csv and the metrics made from it."""
    return bool(cfg.TEST.get("PREDICTIONS", True))


def uses_temperature(cfg: Any) -> bool:
    """Return whether the config asks for temperature scaling."""
    return bool(cfg.TEST.get("TEMPERATURE", "none") == FROM_VAL)


def check_temperature(trainer: Any) -> None:
    """Refuse (UserError) a temperature where there are no val images to fit it on."""
    cfg = trainer.cfg
    if not uses_temperature(cfg):
        return
    cure = f"Set {KEY} none, or test with a split that has val images of its own."
    if not keeps_probabilities(cfg):
        raise UserError(f"{KEY} {FROM_VAL} needs TEST.PREDICTIONS True, or set {KEY} none.")
    data = trainer.dm.dataset
    tested = data.val if cfg.TEST.SPLIT == "val" else data.test
    harm = "probabilities that are fitted on them are too good"
    check_val_images(trainer, tested, f"{KEY} {FROM_VAL}", harm, cure)


def outcome_of(trainer: Any) -> Outcome | None:
    """Return what a trainer has just tested, and print a line of it; None without logits.

    Args:
        trainer: a `FrozenTrainer`.
    """
    record = trainer.evaluator
    if not record.keep_logits:
        return None
    logits, divisor = record.logits(), 1.0
    scaling = None
    if uses_temperature(trainer.cfg):
        val_logits, val_labels = _val_logits(trainer)
        divisor = _temperature(val_logits, val_labels)
        labels = np.array(record.labels)
        scaling = {
            "value": divisor,
            "val_images": len(val_labels),
            "ece_before": _ece(logits, labels, 1.0),
            "ece_after": _ece(logits, labels, divisor),
            "log_loss_before": log_loss_of_logits(logits, labels),
            "log_loss_after": log_loss_of_logits(logits, labels, divisor),
        }
    table = PredictionTable(
        distinct_names(list(trainer.dm.dataset.classnames)),
        _names(trainer, record.paths),
        np.array(record.labels),
        np.array(record.predictions),
        _groups(trainer, record.paths),
        softmax(logits, divisor),
    )
    metrics = {**summarise(table), "temperature": scaling}
    print(short_line(metrics))
    if scaling:
        before, after = scaling["ece_before"], scaling["ece_after"]
        print(f"* temperature: {divisor:.3f} (ECE: {before:.3f} before, {after:.3f} after)")
    return Outcome(table, metrics)


def write_predictions(table: PredictionTable | None, results: Path) -> None:
    """Write the predictions beside the file for the results of a test.

    Args:
        table: None: there are none to write; those of an earlier test are deleted.
        results: the file for the results.

    Raises:
        UserError: the file cannot be written.
    """
    path = predictions_beside(results)
    if table is None or table.probabilities.size > MOST_NUMBERS:
        path.unlink(missing_ok=True)
    if table is None:
        return
    if table.probabilities.size > MOST_NUMBERS:
        logger.warning(
            "%s is not written: %d images of %d classes are more than %d probabilities.",
            path.name,
            len(table),
            len(table.classes),
            MOST_NUMBERS,
        )
        return
    table.write(path)


def predictions_beside(results: Path) -> Path:
    """Return the file of the predictions that belongs to a file of results."""
    return results.with_name(PREDICTIONS + results.stem.removeprefix(RESULTS) + ".csv")


@torch.no_grad()
def _val_logits(trainer: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits (N, K) and labels (N,) of the val images; the model has just been tested."""
    logits, labels = [], []
    for batch in trainer.val_loader:
        images, label = trainer.parse_batch_test(batch)
        logits.append(trainer.model_inference(images).float().cpu())
        labels.append(label.cpu())
    found = torch.cat(logits)
    if not torch.isfinite(found).all():
        raise UserError(f"{KEY} {FROM_VAL}: logits of val images are nan or infinite. Set it none.")
    return found.numpy(), torch.cat(labels).numpy().astype(np.int64)


def _temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the fitted temperature; 1 where every val image is right, and none can be fitted."""
    if (logits.argmax(axis=1) == labels).all():
        logger.warning(
            "%s %s: all %d val images are classified right, so the lowest log loss is that of "
            "probabilities of 1. The temperature stays 1.",
            KEY,
            FROM_VAL,
            len(labels),
        )
        return 1.0
    return fit_temperature(logits, labels)


def _ece(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    probabilities = softmax(logits, temperature).astype(np.float64)
    guess = logits.argmax(axis=1)
    return reliability(probabilities[np.arange(len(labels)), guess], guess == labels).ece


def _names(trainer: Any, paths: list[str]) -> list[str]:
    """Return paths below DATASET.ROOT from there on, with forward slashes; others absolute."""
    root = os.path.abspath(os.path.expanduser(trainer.cfg.DATASET.ROOT or "."))
    names = []
    for index, path in enumerate(paths):
        whole = os.path.abspath(path) if path else f"image {index}"
        inside = whole.startswith(os.path.join(root, ""))
        names.append((os.path.relpath(whole, root) if inside else whole).replace(os.sep, "/"))
    return names


def _groups(trainer: Any, paths: list[str]) -> list[str]:
    """Return the group of every image, "" where there is none, or a host's dataset knows none."""
    groups = getattr(trainer.dm.dataset, "groups", None) or {}
    folder = getattr(trainer.dm.dataset, "image_dir", "")
    by_file = {os.path.join(folder, path): group for path, group in groups.items()}
    return [by_file.get(path, "") for path in paths]
