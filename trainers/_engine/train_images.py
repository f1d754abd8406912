"""The training images of a run: what the log says of them, and their class weights."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError
from dplq.methods.heads.fitting import balanced_weights

logger = logging.getLogger(__name__)
IMBALANCE = 3  # images of the largest class for each of the smallest, from which on it is said
CLASS_SAMPLER = "RandomClassSampler"


def refuse_test_only(trainer: Any) -> None:
    """Refuse to train on a dataset whose training images are its test images.

    Raises:
        UserError: the dataset has test images only.
    """
    given = trainer.cfg.DATASET
    if getattr(given, "ALL_TEST", False):
        raise UserError(
            f"DATASET.ALL_TEST is True, so all images of {given.NAME} are test images: test a "
            "trained model with --eval-only --model-dir FOLDER, or train without the key."
        )
    if getattr(trainer.dm.dataset, "test_only", False):
        raise UserError(
            f"{given.NAME} has test images only: test a trained model with --eval-only "
            "--model-dir FOLDER."
        )


def report_imbalance(trainer: Any, *, by_batches: bool) -> None:
    """Print a line where a class has many times the images of another, and what helps.

    Args:
        trainer: a `FrozenTrainer` that is about to train.
        by_batches: whether it draws batches, so that a sampler can help.
    """
    cfg, counts = trainer.cfg, Counter(item.label for item in trainer.dm.dataset.train_x)
    (largest, most), (smallest, least) = counts.most_common(1)[0], counts.most_common()[-1]
    if most < IMBALANCE * least:
        return
    name = trainer.lab2cname
    text = f"Training classes are unbalanced: '{name[largest]}' has {most} images, "
    text += f"'{name[smallest]}' {least}"
    sampled = by_batches and cfg.DATALOADER.TRAIN_X.SAMPLER == CLASS_SAMPLER
    if cfg.TRAIN.CLASS_WEIGHTS or sampled:
        used = [f"TRAIN.CLASS_WEIGHTS {cfg.TRAIN.CLASS_WEIGHTS}"] if cfg.TRAIN.CLASS_WEIGHTS else []
        used += [f"DATALOADER.TRAIN_X.SAMPLER {CLASS_SAMPLER}"] if sampled else []
        print(f"{text}. In use against it: {' and '.join(used)}.")
        if len(used) > 1:
            logger.warning("Both together count rare classes more than once: use one of them.")
        return
    cure = "TRAIN.CLASS_WEIGHTS balanced"
    if by_batches:
        size = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        # so many that a batch has no more classes than there are
        images = size // (len(counts) + 1) + 1
        cure += f", or DATALOADER.TRAIN_X.SAMPLER {CLASS_SAMPLER} DATALOADER.TRAIN_X.N_INS {images}"
    print(f"{text}. What helps: {cure}.")


def report_left_out(trainer: Any) -> None:
    """Print a line where an epoch does not use all training images."""
    train_x, total = trainer.cfg.DATALOADER.TRAIN_X, len(trainer.dm.dataset.train_x)
    left = total - len(trainer.train_loader_x) * train_x.BATCH_SIZE
    if left <= 0:
        return
    why = "last partial batch dropped"
    if train_x.SAMPLER not in ("RandomSampler", "SequentialSampler"):
        why = f"SAMPLER {train_x.SAMPLER}"
    print(
        f"Each epoch leaves out {left} of {total} training images "
        f"(BATCH_SIZE {train_x.BATCH_SIZE}, {why})."
    )


def class_weights(trainer: Any) -> Tensor | None:
    """Return ``TRAIN.CLASS_WEIGHTS``, (K,) on the device; None where it is off."""
    if not trainer.cfg.TRAIN.CLASS_WEIGHTS:
        return None
    labels = torch.tensor([item.label for item in trainer.dm.dataset.train_x])
    return balanced_weights(labels, trainer.num_classes).float().to(trainer.device)
