"""What a head is fitted to, and the one rule by which hyperparameters are chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.errors import UserError, few

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Labelled:
    """Features of images and their labels.

    Attributes:
        features: (V, N, d): V views of N images.
        labels: (N,).
    """

    features: Tensor
    labels: Tensor

    def every_view(self) -> tuple[Tensor, Tensor]:
        """Return the features (V N, d) of all views, and their labels (V N,)."""
        return self.features.flatten(0, 1), self.labels.repeat(len(self.features))

    def mean(self) -> Tensor:
        """Return the mean (N, d) of every image's views."""
        return self.features.mean(dim=0)


@dataclass(frozen=True)
class Steps:
    """How a head is trained by gradient steps on features.

    Attributes:
        optimizer: makes the optimiser of a module's parameters.
        rate: learning rate of an epoch, counted from 0.
        epochs: how many; each takes one random view of every image.
        batch_size: images per step; the last batch of an epoch may be smaller.
        generator: source of the order and of the views, on the features' device.
    """

    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    rate: Callable[[int], float]
    epochs: int
    batch_size: int
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class FitData:
    """What a head is fitted to.

    Attributes:
        train: of the training images.
        val: of the validation images; None: hyperparameters have their fixed values.
        class_weights: (K,), for heads that minimise a loss; None: all are 1.
        steps: for heads that are trained by gradient steps.
    """

    train: Labelled
    val: Labelled | None = None
    class_weights: Tensor | None = None
    steps: Steps | None = None


def check_every_class(labels: Tensor, classnames: Sequence[str], what: str) -> None:
    """Refuse training images that leave a class out.

    Args:
        labels: (N,) of the training images.
        classnames: of the K classes.
        what: needs an image of each, for the message.

    Raises:
        UserError: naming the classes without an image.
    """
    found = set(labels.tolist())
    if missing := [name for k, name in enumerate(classnames) if k not in found]:
        raise UserError(f"{what} needs a training image of {few(missing, 4)}.")


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Return n / (K n_c) of each of the K classes, (K,) float64, for n_c of n labels (N,).

    An image of a class counts so often: 1 in the mean over the images.
    """
    counts = torch.bincount(labels, minlength=classes).double()
    return len(labels) / (classes * counts.clamp(min=1))


class Choice:
    """The best candidate so far: highest accuracy on val, then lowest log loss, then first.

    An image with a logit that is nan is misclassified; a log loss that is nan is infinite.

    Args:
        name: of what is chosen, for the log.
        labels: (N,) of val.
        level: of the log lines, one for every candidate that is better than those before.
    """

    def __init__(self, name: str, labels: Tensor, level: int = logging.INFO) -> None:
        self.name, self.labels, self.level = name, labels, level
        self.best: Any = None
        self._key: tuple[float, float] | None = None

    @torch.no_grad()
    def offer(self, candidate: Any, logits: Tensor) -> bool:
        """Compare a candidate, whose logits on val are (N, K); return whether it is the best."""
        logits = logits.double()
        right = (logits.argmax(dim=1) == self.labels) & ~logits.isnan().any(dim=1)
        accuracy = right.double().mean().item()
        loss = F.cross_entropy(logits, self.labels).nan_to_num(torch.inf, posinf=torch.inf).item()
        if self._key is not None and (accuracy, -loss) <= self._key:
            return False
        self.best, self._key = candidate, (accuracy, -loss)
        shown = (self.name, candidate, 100 * accuracy, loss)
        logger.log(self.level, "%s %s: accuracy %.1f%%, log loss %.4f on val", *shown)
        return True


def choose(
    name: str, candidates: Iterable[T], logits_of: Callable[[T], Tensor], labels: Tensor
) -> T:
    """Return the best of several values of a hyperparameter, by the rule of `Choice`.

    Args:
        name: of the hyperparameter.
        candidates: at least one.
        logits_of: a candidate's logits (N, K) on val.
        labels: (N,) of val.
    """
    choice = Choice(name, labels)
    for candidate in candidates:
        choice.offer(candidate, logits_of(candidate))
    best: T = choice.best
    return best
