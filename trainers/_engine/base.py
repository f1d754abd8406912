"""Base of the trainers that learn by gradient steps: one step, schedule, resume.

A subclass sets `model_class` and `prec`; the loss is the model's. The learning-rate schedule is not
Dassl's, which breaks on recent PyTorch.

An epoch is a pure function of (seed, epoch, learnable state, optimiser state): all generators are
seeded anew before it. So a run that is interrupted anywhere and started again repeats the
unfinished epoch and ends with the same weights, bit for bit.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, ClassVar

import torch
from dassl.metrics import compute_accuracy
from dassl.optim import build_optimizer
from torch import Tensor, nn

from dplq.errors import UserError, few
from dplq.host.terminal import last_line_only
from dplq.io.checkpoint import DamagedFile
from dplq.io.runs.folder import is_to_be_cleared
from dplq.training.clock import StepTimer
from dplq.training.distributed import (
    add_up_gradients,
    by_main,
    copy_from_main,
    is_main,
    step_of,
    weighted,
    whole_means,
    world_size,
)
from dplq.training.epoch_means import EpochMeans
from dplq.training.loaders import ProgressLoader
from dplq.training.loss_guard import NonFiniteLossGuard
from dplq.training.losses import cross_entropy
from dplq.training.seeding import BY_NAME, drawing
from dplq.training.step_graph import CUDARecorder, Step, StepGraph

from . import resume
from .fit import report_fit, train_accuracy
from .frozen import FrozenTrainer
from .ownership import claim_for_training
from .schedule import check_warm_up, rate_of
from .train_images import class_weights, report_imbalance, report_left_out
from .val_images import check_best_val


def build_optimizer_of(learner: nn.Module, given: Any) -> torch.optim.Optimizer:
    """Return the optimiser of ``cfg.OPTIM``.

    Raises:
        UserError: it refuses its settings.
    """
    try:
        return build_optimizer(learner, given)
    except ValueError as error:
        raise UserError(f"The optimiser of OPTIM refuses its settings: {error}") from error


def check_parts(trainer: Any) -> None:
    """Refuse (UserError) a batch that has no image for one of the processes."""
    loader, size = trainer.train_loader_x, trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    smallest = min(size, len(loader.sampler))
    if smallest < world_size():
        raise UserError(
            f"{world_size()} processes cannot share a batch of {smallest}: "
            f"start at most {smallest} (torchrun --nproc-per-node), or raise "
            "DATALOADER.TRAIN_X.BATCH_SIZE, which is that of all of them together."
        )


class PromptTrainer(FrozenTrainer):
    """Base of all trainers that learn prompts for a frozen CLIP by gradient steps.

    Attributes:
        records_steps: whether a step on a GPU may be recorded and repeated, as all steps on
            batches of one shape launch the same kernels: nothing in them depends on the epoch.
            A subclass says it for itself.
    """

    optimizes = True
    records_steps: ClassVar[bool] = False

    train_loader_x: Any
    class_weights: Tensor | None = None
    start_accuracy: float | None = None  # on the training images, before the first step
    measures_fit = False  # the next final test is that of this very training

    def build_data_loader(self) -> None:
        """Build Dassl's loaders; the training loader shows a progress bar."""
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        is_new = by_main(lambda: is_to_be_cleared(directory))
        self.draw = BY_NAME if is_new else resume.recorded_draw(self.model_dir(directory))
        with drawing(self.draw):
            super().build_data_loader()
        check_parts(self)
        self.train_loader_x = ProgressLoader(self.train_loader_x, self.cfg.TRAIN.PRINT_FREQ)
        self.class_weights = class_weights(self)

    def report_training_images(self) -> None:
        """Print what the user should know of the training images and of their batches."""
        report_imbalance(self, by_batches=True)
        report_left_out(self)

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of ``cfg.OPTIM``; make a loss scaler where one is needed."""
        self.optim = build_optimizer_of(learner, self.cfg.OPTIM)
        for group in self.optim.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.scaler = self.precision.grad_scaler()
        # A CPU has nothing to wait for.
        every = 1 if self.device.type == "cpu" else self.cfg.TRAIN.PRINT_FREQ
        self.loss_guard = NonFiniteLossGuard(self.node, every, self.precision.name)
        self.clock = StepTimer(self.device)
        self.means = EpochMeans()
        self.gradients_of = self._gradient_function()
        return self.optim

    @property
    def optimized_parameters(self) -> list[nn.Parameter]:
        """Return what the optimiser changes."""
        return [own for group in self.optim.param_groups for own in group["params"]]

    def _gradient_function(self) -> Step:
        """Return `compute_gradients`; on a GPU its kernels are launched as a CUDA graph."""
        # Not inherited: a subclass may compute something else.
        is_wanted = vars(type(self)).get("records_steps") and self.cfg.TRAIN.CUDA_GRAPH
        if not is_wanted or self.device.type != "cuda" or world_size() > 1:
            return self.compute_gradients
        if self.cfg.MODEL.COMPILE or self.cfg.MODEL.GRAD_CHECKPOINTING:
            return self.compute_gradients  # compiling records by itself; the other was not tried
        recorder = CUDARecorder(self.device, filter(None, [self.model.noise_generator]))
        return StepGraph(self.compute_gradients, self.model, self.optimized_parameters, recorder)

    def train(self) -> None:
        """Train as the base does; a graph, which keeps memory, ends with it."""
        try:
            super().train()
        finally:
            self.gradients_of = self.compute_gradients

    def before_train(self) -> None:
        """Resume as Dassl does, or measure what the model is before its first step.

        Raises:
            UserError: TEST.FINAL_MODEL best_val, and no val images of their own; or the warm-up is
                longer than what it begins.
        """
        check_best_val(self)
        for name, length in self.stages().items():
            check_warm_up(self.cfg.OPTIM, length, name)
        super().before_train()
        if self.start_epoch == 0:
            self.fit_features()
        copy_from_main(self.model.prompt_learner)
        self.measures_fit = not self.cfg.TEST.NO_TEST
        if self.measures_fit and self.start_epoch == 0:
            self.start_accuracy = train_accuracy(self)

    def fit_features(self) -> None:
        """Fit what a model takes from features of the training images, before the first step."""

    def test(self, split: str | None = None) -> float:
        """Evaluate as the base does; after the training first on its images."""
        if split is None:
            self.gradients_of = self.compute_gradients  # the test needs the memory of a graph
        if split is None and self.measures_fit:
            self.measures_fit = False
            self._measure_end()
        return super().test(split)

    def _measure_end(self) -> None:
        """Compare the accuracy on the training images with that before the first step."""
        end = train_accuracy(self)
        if end is not None:
            report_fit(self.start_accuracy, end, self.model.left_out)
            self.train_accuracy = {"start": self.start_accuracy, "end": end}

    def before_epoch(self) -> None:
        """Seed all generators for this epoch and set its learning rate."""
        super().before_epoch()
        self._seed("train", self.epoch)
        epoch, length = self.schedule_position()
        for group in self.optim.param_groups:
            group["lr"] = rate_of(epoch, length, self.cfg.OPTIM, group["initial_lr"])

    def run_epoch(self) -> None:
        """Train as Dassl does; a terminal shows the last of its log lines."""
        with last_line_only("epoch ["):
            super().run_epoch()

    def stages(self) -> dict[str, int]:
        """Return how many epochs each learning-rate schedule of the run has, in order, by name."""
        return {"run": self.max_epoch}

    def schedule_position(self) -> tuple[int, int]:
        """Return where the learning-rate schedule is: epoch, counted from 0, and its length."""
        position = self.epoch
        for length in self.stages().values():
            if position < length:
                return position, length
            position -= length
        raise ValueError(f"epoch {self.epoch} is beyond the last of {self.max_epoch}")

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device."""
        return self.parse_batch_test(batch)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Make one optimisation step; return the numbers Dassl logs, still on the device."""
        began = self.clock.mark()
        with self.counting_cached():
            images, labels = self.parse_batch_train(batch)
        with step_of(batch.get("part")):
            loss, logits = self.gradients_of(images, labels)
            numbers = whole_means({"loss": loss, "acc": compute_accuracy(logits, labels)[0]})
            self.loss_guard.add(numbers["loss"], self.epoch, self.batch_idx)
            self._step()
        self.clock.add(began)
        self.train_steps += 1
        self.means.add(numbers)
        return numbers

    def compute_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, the sum of the model's terms, and its logits (B, K)."""
        terms, logits = self.model.losses(images, labels, self.cross_entropy)
        return functools.reduce(operator.add, terms.values()), logits

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of logits (B, K), weighted as TRAIN.CLASS_WEIGHTS says."""
        return cross_entropy(logits, labels, self.class_weights)

    def compute_gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the gradients of a batch; return its loss and its logits (B, K), detached."""
        self.optim.zero_grad()
        with self.precision.autocast():
            loss, logits = self.compute_loss(images, labels)
        self.backward(loss)
        return loss.detach(), logits.detach()

    def _step(self) -> None:
        if self.scaler is None:
            self.optim.step()
        else:
            self.scaler.step(self.optim)
            self.scaler.update()

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a step; an override may combine those of several losses."""
        self.scaled(loss).backward()
        add_up_gradients([parameter.grad for parameter in self.optimized_parameters])

    def scaled(self, loss: Tensor) -> Tensor:
        """Return a loss times this process's share of it, and times the loss scaler's factor."""
        loss = weighted(loss)
        return loss if self.scaler is None else self.scaler.scale(loss)

    def after_epoch(self) -> None:
        """Validate, save and track as the base does, then save what a resumed run needs."""
        self.loss_guard.check()
        self.loss_guard.check_weights(resume.state_tensors(self), self.epoch)
        self.train_seconds += self.clock.seconds()
        super().after_epoch()
        if is_main():
            resume.write_state(self)

    def epoch_values(self) -> dict[str, float]:
        """Return means of the batches of the epoch, and its learning rate."""
        means = self.means.take()
        return {
            "loss": means["loss"],
            "lr": self.optim.param_groups[0]["lr"],
            "train_accuracy": means["acc"],
        }

    def extra_state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beside learner and optimiser, by name."""
        return {}

    def load_extra_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore, on a resume, what `extra_state` returned; the tensors are on the CPU.

        Raises:
            DamagedFile: it is something else.
        """
        if tensors:
            raise DamagedFile(
                resume.RESUME_FILE,
                f"is damaged: {type(self).__name__} does not know {few(tensors)}",
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume after the last finished epoch found in `directory`; return its number."""
        done = resume.read_state(self, directory)
        if done and self.output_dir:  # version 0.1.0 wrote no run.json: now it is known whose it is
            by_main(lambda: claim_for_training(self, resumed=True))
        return done
