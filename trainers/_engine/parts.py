"""Tests that the processes of a run share: whole batches of each, put together in their order.

A batch is that of one process, so its logits are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils.data import SequentialSampler

from dplq.evaluation.predictions import EvaluationRecord
from dplq.methods.base import CLIPModel
from dplq.training import distributed
from dplq.training.loaders import some_batches


def divides(model: CLIPModel) -> bool:
    """Return whether the processes share tests of a model: not if its noise is drawn in them."""
    return distributed.world_size() > 1 and not model.draws_in_tests


def own_batches(loader: Any, model: CLIPModel) -> Any:
    """Return this process's batches of a loader for a test; all where tests are not shared."""
    if loader is None or not divides(model) or not isinstance(loader.sampler, SequentialSampler):
        return loader
    return some_batches(loader, distributed.rank(), distributed.world_size())


class SharedRecord(EvaluationRecord):
    """Record of a test that several processes share: the first has all of it, in order."""

    batches: list[tuple[Tensor, Tensor, Any]] | None = None  # of this process, in a shared test

    def reset(self) -> None:
        """Clear what has been tested."""
        super().reset()
        self.batches = None if self.batches is None else []

    def process(self, output: Tensor, label: Tensor) -> None:
        """Add a batch: logits (B, K) and labels (B,)."""
        if self.batches is None:
            super().process(output, label)
            return
        self.batches.append((output.detach().cpu(), label.cpu(), self._announced))
        self._announced = None

    def evaluate(self) -> Any:
        """Return, on every process, what Dassl's evaluator says of all batches.

        Raises:
            UserError: as the base.
        """
        if self.batches is not None:
            self._collect(distributed.gather(self.batches) or [])
        return distributed.by_main(super().evaluate)

    def _collect(self, gathered: list[list[tuple[Tensor, Tensor, Any]]]) -> None:
        """Add the batches of all processes, which have one of them after the other."""
        queues = [iter(batches) for batches in gathered]
        for index in range(sum(map(len, gathered))):
            output, label, paths = next(queues[index % len(queues)])
            self.announce(paths)
            super().process(output, label)


@contextmanager
def shared_test(trainer: Any) -> Iterator[None]:
    """Have each process test its batches in this block.

    Args:
        trainer: a `FrozenTrainer`, whose evaluator is a `SharedRecord`.
    """
    whole = trainer.val_loader, trainer.test_loader
    own = tuple(own_batches(loader, trainer.model) for loader in whole)
    is_shared = own[1] is not whole[1]
    trainer.val_loader, trainer.test_loader = own if is_shared else whole
    trainer.evaluator.batches = [] if is_shared else None
    try:
        yield
    finally:
        trainer.val_loader, trainer.test_loader = whole
        trainer.evaluator.batches = None
