"""Heads that are trained by gradient steps on features."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError
from dplq.methods.heads.base import TextHead, TextHeadSettings
from dplq.methods.heads.fitting import Choice, FitData, Labelled, Steps
from dplq.methods.settings import option
from dplq.training.losses import cross_entropy
from dplq.training.optimizer import set_adam_eps


@dataclass(frozen=True)
class ChosenEpochSettings(TextHeadSettings):
    """Settings of the heads whose last epoch is chosen on val."""

    epoch: int | None = option(None, "epoch with the best val accuracy", is_key=False, minimum=1)


class TrainedHead(TextHead):
    """A head that gradient steps train; one that `chooses` keeps the best epoch on val."""

    chooses = False
    balances = True

    def start(self, data: FitData) -> None:
        """Give the tensors their initial values, where they follow from the images."""

    def loss(self, features: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
        """Return the loss of a batch (B, d)."""
        return cross_entropy(self.classify(features), labels, class_weights)

    def solve(self, data: FitData) -> dict[str, Any]:
        """Train the learned tensors."""
        with torch.no_grad():
            self.start(data)
        return self.descend(data)

    def after_epoch(self, epoch: int) -> None:
        """Do what belongs to no step after an epoch, counted from 1."""

    @torch.enable_grad()
    def descend(self, data: FitData) -> dict[str, Any]:
        """Make all steps; return the epoch that was chosen.

        Raises:
            UserError: the loss is nan or infinite, or it is not known how steps are made.
        """
        steps, learner = data.steps, self.prompt_learner
        if steps is None:
            raise UserError(f"{self.method} makes gradient steps: give FitData its steps.")
        optimizer = set_adam_eps(steps.optimizer(learner), self.settings.get("adam_eps"))
        choice = None
        if data.val and self.chooses:
            choice = Choice("epoch", data.val.labels, logging.DEBUG)
        for epoch in range(1, steps.epochs + 1):
            for group in optimizer.param_groups:
                group["lr"] = steps.rate(epoch - 1)
            for features, labels in batches(data.train, steps):
                loss = self.loss(features, labels, data.class_weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if not torch.isfinite(loss):
                raise UserError(
                    f"The loss of {self.method} is {loss.item()} in epoch {epoch}: train with a "
                    "lower OPTIM.LR (another run, so with another --output-dir, or --overwrite)."
                )
            self.after_epoch(epoch)
            if choice and data.val and choice.offer(epoch, self.classify(data.val.mean())):
                kept = {name: learner.get_parameter(name).clone() for name in self.learned}
        if choice is None:
            return {}
        learner.put(**kept)
        return {"epoch": choice.best}


def batches(train: Labelled, steps: Steps) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch: a random view of every image, in random order."""
    (views, images), device = train.features.shape[:2], train.features.device
    order = torch.randperm(images, generator=steps.generator, device=device)
    view = torch.randint(views, (images,), generator=steps.generator, device=device)
    for start in range(0, images, steps.batch_size):
        rows = order[start : start + steps.batch_size]
        yield train.features[view[rows], rows], train.labels[rows]
