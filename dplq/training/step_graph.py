"""A training step as a CUDA graph: recorded once, then launched as a whole.

A step on a few images consists of some thousand small kernels, and launching them one by one from
Python takes several times as long as computing them. A graph launches the same kernels in the same
order with the same random numbers, so that the gradients are the same bit for bit.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dplq.training.frozen.batch import FrozenBatch
from dplq.training.seeding import RandomState

logger = logging.getLogger(__name__)

Numbers = tuple[Tensor, Tensor]  # the loss, and the logits (B, K)
Step = Callable[[Tensor, Tensor], Numbers]  # of images (B, 3, H, W) and labels (B,)
WARM_UP = 3  # steps of each kind that libraries and the allocator need before they are recorded
MOST = 4  # graphs of a run, each of which keeps memory
WAITS = "synchronizing CUDA operation"  # in what PyTorch says of a wait for the device


class NotRecordable(Exception):
    """A step cannot be recorded; the message says why."""


class CUDARecorder:
    """Records what a function launches on a device.

    Args:
        device: a CUDA device.
        generators: of the device, beside its own, that the function draws from.
    """

    def __init__(self, device: torch.device, generators: Iterable[torch.Generator]) -> None:
        self.device, self.generators = device, list(generators)
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], Numbers]) -> Numbers:
        """Run the function on the stream that will record it."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                return function()
        finally:
            current.wait_stream(self.stream)

    def check(self, function: Callable[[], Numbers]) -> Numbers:
        """Run the function; undo its random draws where it waits for the device.

        Raises:
            NotRecordable: it does.
        """
        default = torch.cuda.default_generators[self.stream.device_index]
        generators = [default, *self.generators]
        states, mode = [own.get_state() for own in generators], torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return self.warm_up(function)
        except RuntimeError as error:
            if WAITS not in str(error):
                raise
            for own, state in zip(generators, states, strict=True):
                own.set_state(state)
            raise NotRecordable(_first_line(error)) from error
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    def record(self, function: Callable[[], Numbers]) -> tuple[Numbers, Callable[[], None]]:
        """Return the function's results, not computed yet, and what computes them.

        Raises:
            NotRecordable: it does what cannot be recorded.
        """
        current = torch.cuda.current_stream(self.device)
        try:
            return self._capture(function, self.pool)
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # which a failed capture leaves
            # Nor does it tell the generators that it has ended; another one does.
            with suppress(RuntimeError):
                self._capture(lambda: torch.zeros(1, device=self.device), None)
            first = error
            while isinstance(first.__context__, RuntimeError):  # which says what was wrong
                first = first.__context__
            raise NotRecordable(_first_line(first)) from error

    def _capture(self, function: Callable[[], Any], pool: Any) -> tuple[Any, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # later versions find the generators by themselves
            for generator in self.generators if hasattr(graph, "register_generator_state") else ():
                graph.register_generator_state(generator)
        # "thread_local": the thread that pins batches goes on meanwhile.
        with torch.cuda.graph(graph, pool, self.stream, capture_error_mode="thread_local"):
            found = function()
        return found, graph.replay


@dataclass
class _Recorded:
    """A recorded step: the tensors that it reads and writes.

    Attributes:
        labels: (B,).
        frozen: images (B, 3, H, W) and their features.
        numbers: loss and logits.
        gradients: of the learnable parameters; None where a parameter has none.
        replay: computes numbers, gradients and what `frozen` computes.
    """

    labels: Tensor
    frozen: FrozenBatch
    numbers: Numbers
    gradients: list[Tensor | None]
    replay: Callable[[], None]


class StepGraph:
    """Computes the gradients of training steps, from a graph once a kind of step is known.

    Steps are of one kind if all shapes are the same. What else a step depends on must not change
    between steps, or be a tensor that is changed in place; a step that draws random numbers outside
    the GPU is not recorded.

    Args:
        step: computes loss and logits, and leaves the gradients in the parameters.
        model: whose `frozen_batch` holds what is known of the images.
        parameters: that are learned.
        recorder: records a step, as `CUDARecorder` does.
    """

    def __init__(
        self, step: Step, model: Any, parameters: Sequence[nn.Parameter], recorder: Any
    ) -> None:
        self.step, self.model, self.recorder = step, model, recorder
        self.parameters = list(parameters)
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, _Recorded] = {}
        self._fails = False

    def __call__(self, images: Tensor, labels: Tensor) -> Numbers:
        """Return the loss and the logits (B, K); the parameters have their gradients.

        Args:
            images: (B, 3, H, W).
            labels: (B,).
        """
        known = self._known(images)
        kind = self._kind(images, labels, known)
        if kind in self._recorded:
            return self._replay(self._recorded[kind], images, labels)
        if self._fails or len(self._recorded) >= MOST:
            return self.step(images, labels)
        self._seen[kind] += 1
        before = RandomState.now()
        try:
            return self._unrecorded(kind, images, labels)
        except NotRecordable as reason:
            before.restore()
            self._fails = True
            logger.warning("Training steps are not recorded as a CUDA graph: %s", reason)
            return self.step(images, labels)

    def _unrecorded(self, kind: Hashable, images: Tensor, labels: Tensor) -> Numbers:
        """Make a step of a kind that is not recorded yet: warm up, watch one for waits, record."""

        def step() -> Numbers:
            return self.step(images, labels)

        if self._seen[kind] < WARM_UP:
            return self.recorder.warm_up(step)
        if self._seen[kind] == WARM_UP:
            return self.recorder.check(step)
        self._recorded[kind] = self._record(images, labels)
        if len(self._recorded) == 1:
            logger.info("Training steps are launched as a CUDA graph (TRAIN.CUDA_GRAPH).")
        return self._replay(self._recorded[kind], images, labels)

    def _known(self, images: Tensor) -> Mapping[str, Tensor]:
        """Return the features that are known of these very images."""
        given = self.model.frozen_batch
        return given.known if given is not None and given.images is images else {}

    def _kind(self, images: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Hashable:
        return (
            images.shape,
            labels.shape,
            tuple(sorted((name, row.shape, row.dtype) for name, row in known.items())),
        )

    def _record(self, images: Tensor, labels: Tensor) -> _Recorded:
        """Record a step, on copies of its tensors."""
        known = self._known(images)
        frozen = FrozenBatch({name: row.clone() for name, row in known.items()})
        frozen.images, labels = images.clone(), labels.clone()
        before = RandomState.now()
        numbers, replay = self.recorder.record(lambda: self._step_on(frozen, labels))
        if RandomState.now() != before:
            raise NotRecordable("it draws random numbers outside the GPU")
        gradients = [own.grad for own in self.parameters]
        return _Recorded(labels, frozen, numbers, gradients, replay)

    def _step_on(self, frozen: FrozenBatch, labels: Tensor) -> Numbers:
        """Make a step on the images of a batch."""
        assert frozen.images is not None
        given, self.model.frozen_batch = self.model.frozen_batch, frozen
        try:
            return self.step(frozen.images, labels)
        finally:
            self.model.frozen_batch = given

    def _replay(self, recorded: _Recorded, images: Tensor, labels: Tensor) -> Numbers:
        """Compute a recorded step on other images."""
        assert recorded.frozen.images is not None
        recorded.frozen.images.copy_(images)
        recorded.labels.copy_(labels)
        given, known = self.model.frozen_batch, self._known(images)
        for name, row in recorded.frozen.known.items():
            row.copy_(known[name])
        recorded.replay()
        if given is not None and given.images is images:
            for name, row in recorded.frozen.computed.items():
                given.computed.setdefault(name, row.clone())
        for own, gradient in zip(self.parameters, recorded.gradients, strict=True):
            own.grad = gradient
        loss, logits = recorded.numbers
        return loss.clone(), logits.clone()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
