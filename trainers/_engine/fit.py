"""Accuracy on the training images, un-augmented, before and after the training."""

from __future__ import annotations

import logging
from typing import Any

import torch

from dplq.evaluation.fit import FITTED, fit_problem
from dplq.training.distributed import add_up

from .features import training_images
from .parts import divides, own_batches

logger = logging.getLogger(__name__)
MOST_IMAGES = 2000  # few-shot images of 100 classes and more; beyond, two passes are not cheap
ADVICE = {
    "ended below its start": "OPTIM.LR is too high for this model, or OPTIM.MAX_EPOCH too low",
    "did not fit": (
        f"it is under {FITTED:.1f}%, where a linear probe fits nearly all few-shot images; more "
        "OPTIM.MAX_EPOCH or another OPTIM.LR may help"
    ),
}


@torch.no_grad()
def train_accuracy(trainer: Any) -> float | None:
    """Return the accuracy on the training images in percent; None where there are too many.

    The random numbers of the training are not touched: every epoch is seeded anew.
    """
    total = len(trainer.dm.dataset.train_x)
    if total > MOST_IMAGES:
        print(f"Accuracy on the training images: not measured ({total}, more than {MOST_IMAGES})")
        return None
    trainer.set_model_mode("eval")
    hits = 0
    with trainer.model.gradient_part():  # a head that is fitted to these images hides all else
        for batch in own_batches(training_images(trainer), trainer.model):
            images, labels = trainer.parse_batch_test(batch)
            hits += int((trainer.model_inference(images).argmax(dim=1) == labels).sum())
    if divides(trainer.model):
        hits = int(add_up(torch.tensor(hits)))
    return 100.0 * hits / total


def report_fit(start: float | None, end: float, left_out: str = "") -> None:
    """Print both accuracies; warn where the training made them worse, or did not fit.

    Args:
        start: before the first step, in percent; None where it is not known.
        end: after the last one.
        left_out: what is no part of the training, and of these accuracies.
    """
    before = "" if start is None else f"{start:.1f}% before, "
    without = f" (without {left_out})" if left_out else ""
    text = f"Accuracy on the training images{without}: {before}{end:.1f}% after the training"
    if problem := fit_problem(start, end):
        logger.warning("%s. The training %s: %s.", text, problem, ADVICE[problem])
    else:
        print(text)
