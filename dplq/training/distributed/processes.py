"""The processes of one run: how they are connected, and what they exchange."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dplq.errors import UserError

T = TypeVar("T")
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # beside WORLD_SIZE
TIMEOUT = timedelta(minutes=30)  # of a wait for the others, which may draw or download data


class ProcessLost(Exception):
    """Another process of the run has ended, so that this one cannot go on."""


class Process:
    """This process: its number, how many there are, and what they have in common."""

    rank, size = 0, 1
    store: Any = None


def given_size() -> str:
    """Return the number of processes, as torchrun and clusters give it."""
    return os.environ.get("WORLD_SIZE", "").strip() or "1"


def refuse_distributed(reason: str) -> None:
    """Refuse to be one of several processes that do not share their work: each would do all.

    Args:
        reason: why they do not, a sentence.

    Raises:
        UserError: `WORLD_SIZE`, which torchrun and clusters set, is not 1.
    """
    if given_size() != "1":
        raise UserError(
            f"WORLD_SIZE is {given_size()}, but {reason} Start it without torchrun, or unset "
            "WORLD_SIZE; several runs may go on side by side, each with its own --output-dir."
        )


def refuse_unconnected() -> None:
    """Refuse (UserError) to be one of several processes in another train.py than ours."""
    if Process.size == 1:
        refuse_distributed(
            "this train.py does not divide its work: `torchrun ... -m dplq train` does."
        )


def world_size() -> int:
    """Return how many processes share the run."""
    return Process.size


def rank() -> int:
    """Return the number of this process among those of the run, counted from 0."""
    return Process.rank


def is_main() -> bool:
    """Return whether this is the first process, which alone prints and writes."""
    return Process.rank == 0


def join() -> None:
    """Meet the other processes, where torchrun has started several.

    Raises:
        UserError: what it sets in the environment is not all there.
    """
    size = given_size()
    if size == "1":
        return
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if not size.isdigit() or missing:
        what = f"without {', '.join(missing)}" if missing else "not a number"
        raise UserError(
            f"WORLD_SIZE is {size}, {what}: start the processes of one run with torchrun, or unset "
            "WORLD_SIZE."
        )
    Process.rank, Process.size = int(os.environ["RANK"]), int(size)
    with peers():
        Process.store = next(dist.rendezvous("env://", timeout=TIMEOUT))[0]


def connect(use_cuda: bool) -> None:
    """Connect the processes that have met: by gloo, on GPUs by nccl, each on its own GPU.

    Args:
        use_cuda: whether the run uses GPUs.

    Raises:
        UserError: there is no GPU for this process.
    """
    if Process.size == 1:
        return
    if use_cuda:
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise UserError(
                f"Process {local + 1} of this machine has no GPU of its own, it has {count}: start "
                f"at most {count} (torchrun --nproc-per-node), or set USE_CUDA False."
            )
        torch.cuda.set_device(local)
    with peers():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if use_cuda else "gloo",
            store=dist.PrefixStore("dplq/group", Process.store),
            rank=Process.rank,
            world_size=Process.size,
            timeout=TIMEOUT,
        )


@contextlib.contextmanager
def peers() -> Iterator[None]:
    """Turn what torch raises when a process is gone into a `ProcessLost`."""
    try:
        yield
    except RuntimeError as error:  # `dist.DistError` is one
        raise ProcessLost(str(error).partition("\n")[0]) from error


def add_up(tensor: Tensor) -> Tensor:
    """Add up a tensor over the processes, in place, and return it."""
    if Process.size > 1:
        with peers():
            dist.all_reduce(tensor)
    return tensor


def add_up_gradients(gradients: Sequence[Tensor | None]) -> None:
    """Add up gradients over the processes, in place, by one all-reduce; None stays None."""
    if Process.size == 1:
        return
    found = [gradient for gradient in gradients if gradient is not None]
    flat = add_up(torch.cat([gradient.reshape(-1) for gradient in found]))
    for gradient, whole in zip(found, flat.split([g.numel() for g in found]), strict=True):
        gradient.copy_(whole.view_as(gradient))


def wait_for_all() -> None:
    """Wait until every process is here."""
    add_up(torch.zeros((), dtype=torch.int64))


def by_main(call: Callable[[], T]) -> T:
    """Return on every process what `call` returns on the first, which alone calls it.

    Raises:
        Exception: on the first what `call` raises; on the others then a UserError with its text.
    """
    if Process.size == 1:
        return call()
    box: list[Any] = [None, None]
    error: Exception | None = None
    if is_main():
        try:
            box[0] = call()
        except Exception as raised:
            error, box[1] = raised, str(raised)
    with peers():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if error is not None:
        raise error
    if box[1] is not None:
        raise UserError(box[1])
    found: T = box[0]
    return found


def gather(value: T) -> list[T] | None:
    """Return on the first process the values of all, in order; None on the others."""
    if Process.size == 1:
        return [value]
    found: list[Any] | None = [None] * Process.size if is_main() else None
    with peers():
        dist.gather_object(value, found)
    return found


def copy_from_main(module: nn.Module) -> None:
    """Make a module's parameters and buffers those of the first process; shapes are alike."""
    if Process.size == 1:
        return
    with peers(), torch.no_grad():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Have the first process run this block before the others: it may write what they read."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()
