"""A process's part of each batch, and what is computed of the whole batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dplq.training.distributed.processes import Process, add_up


class Part(NamedTuple):
    """Rows of a batch: of `total` images those from `start` to `stop`, which is not one of them."""

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """Return them as an index."""
        return slice(self.start, self.stop)


class _Step:
    """The present step: its part of a batch; None: the whole."""

    part: Part | None = None


def own_part(total: int) -> Part:
    """Return which of a batch's images are this process's; parts differ by one image at most."""
    each, more = divmod(total, Process.size)
    start = Process.rank * each + min(Process.rank, more)
    return Part(start, start + each + (Process.rank < more), total)


def own_rows(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return this process's part of a batch of Dassl's: tensors, lists, and lists of views."""
    part = own_part(len(batch["label"]))

    def rows(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            return [view[part.rows] for view in value]
        return value[part.rows]

    return {**{key: rows(value) for key, value in batch.items()}, "part": part}


@contextlib.contextmanager
def step_of(part: Part | None) -> Iterator[None]:
    """Work on a part of a batch in this block; None: on the whole."""
    _Step.part = part
    try:
        yield
    finally:
        _Step.part = None


def current_part(images: int) -> Part:
    """Return which rows of the whole batch the images of this step are.

    Args:
        images: how many this process has.
    """
    return _Step.part or Part(0, images, images)


def weighted(loss: Tensor) -> Tensor:
    """Return the loss of a part times its share of the batch: they add up to the batch's loss."""
    part = _Step.part
    return loss if part is None else loss * ((part.stop - part.start) / part.total)


def whole_means(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the whole batch of numbers that are means over its parts."""
    if _Step.part is None:
        return dict(numbers)
    stacked = torch.stack([weighted(number.detach().float().sum()) for number in numbers.values()])
    return dict(zip(numbers, add_up(stacked).unbind(), strict=True))


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the processes, whose gradient is that of all their losses."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Add up the values."""
        return add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Add up the gradients."""
        return add_up(gradients[0].clone())


def batch_mean(values: Tensor, dim: int | None = None) -> Tensor:
    """Return a mean over all images of a batch, also of those that other processes have.

    Args:
        values: of this process's images.
        dim: the dimension of the images; None: the mean is over every dimension.
    """
    part = _Step.part
    if part is None:
        return values.mean() if dim is None else values.mean(dim=dim)
    own = values.sum() if dim is None else values.sum(dim=dim)
    each = values.numel() / own.numel() / (part.stop - part.start)
    total: Tensor = _Sum.apply(own)
    return total / (each * part.total)
