"""Processes that share one run: torchrun starts them, each with a part of every batch.

The gradients of the learnable parameters, two million numbers at most, are added up by one
all-reduce of a flat tensor. `DistributedDataParallel` would do the same with a wrapper around the
model, which changes the names of its state and has to be told of frozen towers and unused
parameters; what it adds, an all-reduce in buckets beside the backward pass, pays for gradients of
a hundred megabytes, not of eight.

The numbers are those of one process with the whole batch. The losses are means over the images, so
each process weights its loss by its share of the batch (`weighted`); a term that no image decides
then counts once. What couples the images of a batch is computed of the whole batch (`batch_mean`),
and random numbers are drawn for all of its images by every process (`current_part`).

The first process alone prints and writes. Everything here does nothing in a run of one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from dplq.errors import UserError

T = TypeVar("T")
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # beside WORLD_SIZE
TIMEOUT = timedelta(minutes=30)  # of a wait for the others, which may draw or download data
PATIENCE, POLL = 2.0, 0.05  # seconds of a wait for what another process has to say
MESSAGE, SPOKEN = "dplq/message", "dplq/spoken"  # keys of the store


class ProcessLost(Exception):
    """Another process of the run has ended, so that this one cannot go on."""


class Part(NamedTuple):
    """Rows of a batch: of `total` images those from `start` to `stop`, which is not one of them."""

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        """Return them as an index."""
        return slice(self.start, self.stop)


class _Here:
    """This process: its number, how many there are, and what they have in common."""

    rank, size = 0, 1
    store: Any = None
    part: Part | None = None  # of the batch of the present step


def _given_size() -> str:
    return os.environ.get("WORLD_SIZE", "").strip() or "1"


def refuse_distributed(reason: str) -> None:
    """Refuse to be one of several processes that do not share their work: each would do all.

    Args:
        reason: why they do not, a sentence.

    Raises:
        UserError: `WORLD_SIZE`, which torchrun and clusters set, is not 1.
    """
    if _given_size() != "1":
        raise UserError(
            f"WORLD_SIZE is {_given_size()}, but {reason} Start it without torchrun, or unset "
            "WORLD_SIZE; several runs may go on side by side, each with its own --output-dir."
        )


def refuse_unconnected() -> None:
    """Refuse (UserError) to be one of several processes in another train.py than ours."""
    if _Here.size == 1:
        refuse_distributed(
            "this train.py does not divide its work: `torchrun ... -m dplq train` does."
        )


def world_size() -> int:
    """Return how many processes share the run."""
    return _Here.size


def rank() -> int:
    """Return the number of this process among those of the run, counted from 0."""
    return _Here.rank


def is_main() -> bool:
    """Return whether this is the first process, which alone prints and writes."""
    return _Here.rank == 0


def join() -> None:
    """Meet the other processes, where torchrun has started several.

    Raises:
        UserError: what it sets in the environment is not all there.
    """
    size = _given_size()
    if size == "1":
        return
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if not size.isdigit() or missing:
        what = f"without {', '.join(missing)}" if missing else "not a number"
        raise UserError(
            f"WORLD_SIZE is {size}, {what}: start the processes of one run with torchrun, or unset "
            "WORLD_SIZE."
        )
    _Here.rank, _Here.size = int(os.environ["RANK"]), int(size)
    with _peers():
        _Here.store = next(dist.rendezvous("env://", timeout=TIMEOUT))[0]


def connect(use_cuda: bool) -> None:
    """Connect the processes that have met: by gloo, on GPUs by nccl, each on its own GPU.

    Args:
        use_cuda: whether the run uses GPUs.

    Raises:
        UserError: there is no GPU for this process.
    """
    if _Here.size == 1:
        return
    if use_cuda:
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise UserError(
                f"Process {local + 1} of this machine has no GPU of its own, it has {count}: start "
                f"at most {count} (torchrun --nproc-per-node), or set USE_CUDA False."
            )
        torch.cuda.set_device(local)
    with _peers():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if use_cuda else "gloo",
            store=dist.PrefixStore("dplq/group", _Here.store),
            rank=_Here.rank,
            world_size=_Here.size,
            timeout=TIMEOUT,
        )


def leave(message: str = "") -> None:
    """Disconnect from the other processes.

    Args:
        message: what the user should know of why this process ends, for the one that tells it.
    """
    if _Here.store is None:
        return
    if message:
        with contextlib.suppress(Exception):  # nobody may be there any more
            _Here.store.set(MESSAGE, message)
        _tell_torchrun(message)
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _tell_torchrun(message: str) -> None:
    """Have torchrun's own report show, in place of a traceback, what the user should know."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        more = {"timestamp": str(int(time.time())), "py_callstack": message}
        report = {"message": {"message": message, "extraInfo": more}}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(report), encoding="utf-8")


def _is_set(key: str) -> bool:
    """Return whether a process has set a key of the store, now or in a moment."""
    end = time.monotonic() + PATIENCE
    while not _Here.store.check([key]):
        if time.monotonic() > end:
            return False
        time.sleep(POLL)
    return True


def message_of_others() -> str:
    """Return what another process has left as `message`; "" for nothing."""
    try:
        return str(_Here.store.get(MESSAGE).decode()) if _is_set(MESSAGE) else ""
    except Exception:  # nobody there any more
        return ""


def speaks() -> bool:
    """Return whether this process tells the user why the run ends: one does, the first if it can.

    Call it once.
    """
    if _Here.store is None:
        return True
    try:
        if not is_main():
            _is_set(SPOKEN)
        first = _Here.store.compare_set(SPOKEN, "", str(_Here.rank))
        return bool(first.decode() == str(_Here.rank))
    except Exception:  # nobody there any more
        return True


@contextlib.contextmanager
def quiet_but_main() -> Iterator[None]:
    """Discard in this block what another process than the first prints."""
    if os.environ.get("RANK", "0") == "0" or _given_size() == "1":
        yield
        return
    with open(os.devnull, "w") as nowhere:
        out, err = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = out, err


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Turn what torch raises when a process is gone into a `ProcessLost`."""
    try:
        yield
    except RuntimeError as error:  # `dist.DistError` is one
        raise ProcessLost(str(error).partition("\n")[0]) from error


# What the processes exchange


def add_up(tensor: Tensor) -> Tensor:
    """Add up a tensor over the processes, in place, and return it."""
    if _Here.size > 1:
        with _peers():
            dist.all_reduce(tensor)
    return tensor


def add_up_gradients(gradients: Sequence[Tensor | None]) -> None:
    """Add up gradients over the processes, in place, by one all-reduce; None stays None."""
    if _Here.size == 1:
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
    if _Here.size == 1:
        return call()
    box: list[Any] = [None, None]
    error: Exception | None = None
    if is_main():
        try:
            box[0] = call()
        except Exception as raised:
            error, box[1] = raised, str(raised)
    with _peers():
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if error is not None:
        raise error
    if box[1] is not None:
        raise UserError(box[1])
    found: T = box[0]
    return found


def gather(value: T) -> list[T] | None:
    """Return on the first process the values of all, in order; None on the others."""
    if _Here.size == 1:
        return [value]
    found: list[Any] | None = [None] * _Here.size if is_main() else None
    with _peers():
        dist.gather_object(value, found)
    return found


def copy_from_main(module: nn.Module) -> None:
    """Make a module's parameters and buffers those of the first process; shapes are alike."""
    if _Here.size == 1:
        return
    with _peers(), torch.no_grad():
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


# What belongs to a batch


def own_part(total: int) -> Part:
    """Return which of a batch's images are this process's; parts differ by one image at most."""
    each, more = divmod(total, _Here.size)
    start = _Here.rank * each + min(_Here.rank, more)
    return Part(start, start + each + (_Here.rank < more), total)


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
    _Here.part = part
    try:
        yield
    finally:
        _Here.part = None


def current_part(images: int) -> Part:
    """Return which rows of the whole batch the images of this step are.

    Args:
        images: how many this process has.
    """
    return _Here.part or Part(0, images, images)


def weighted(loss: Tensor) -> Tensor:
    """Return the loss of a part times its share of the batch: they add up to the batch's loss."""
    part = _Here.part
    return loss if part is None else loss * ((part.stop - part.start) / part.total)


def whole_means(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over the whole batch of numbers that are means over its parts."""
    if _Here.part is None:
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
    part = _Here.part
    if part is None:
        return values.mean() if dim is None else values.mean(dim=dim)
    own = values.sum() if dim is None else values.sum(dim=dim)
    each = values.numel() / own.numel() / (part.stop - part.start)
    total: Tensor = _Sum.apply(own)
    return total / (each * part.total)
