"""Base of the trainers that learn by gradient steps: one step, schedule, resume.

A subclass sets `model_class` and `prec`; `compute_loss` is cross-entropy by default. The
learning-rate schedule is not Dassl's, which breaks on recent PyTorch.

An epoch is a pure function of (seed, epoch, learnable state, optimiser state): all generators are
seeded anew before it. So a run that is interrupted anywhere and started again repeats the
unfinished epoch and ends with the same weights, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from dassl.metrics import compute_accuracy
from dassl.optim import build_optimizer
from torch import Tensor, nn
from torch.nn import functional as F

from dplq.errors import UserError, few
from dplq.io.checkpoint import DamagedFile
from dplq.io.runs.folder import is_to_be_cleared
from dplq.training.clock import StepTimer
from dplq.training.loaders import ProgressLoader
from dplq.training.loss_guard import NonFiniteLossGuard
from dplq.training.schedule import learning_rate
from dplq.training.seeding import BY_NAME, drawing

from . import resume
from .frozen import FrozenTrainer
from .ownership import claim_for_training
from .train_images import class_weights, report_imbalance, report_left_out

SCHEDULE_KEYS = ("stepsize", "gamma", "warmup_epoch", "warmup_type", "warmup_cons_lr",
                 "warmup_min_lr", "warmup_recount")  # fmt: skip


class PromptTrainer(FrozenTrainer):
    """Base of all trainers that learn prompts for a frozen CLIP by gradient steps."""

    train_loader_x: Any
    class_weights: Tensor | None = None

    def build_data_loader(self) -> None:
        """Build Dassl's loaders; the training loader shows a progress bar."""
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        is_new = is_to_be_cleared(directory)
        self.draw = BY_NAME if is_new else resume.recorded_draw(self.model_dir(directory))
        with drawing(self.draw):
            super().build_data_loader()
        self.train_loader_x = ProgressLoader(self.train_loader_x, self.cfg.TRAIN.PRINT_FREQ)
        self.class_weights = class_weights(self)

    def report_training_images(self) -> None:
        """Print what the user should know of the training images and of their batches."""
        report_imbalance(self, by_batches=True)
        report_left_out(self)

    def build_optimizer(self, learner: nn.Module) -> torch.optim.Optimizer:
        """Return the optimiser of ``cfg.OPTIM``; make a loss scaler where one is needed."""
        try:
            self.optim = build_optimizer(learner, self.cfg.OPTIM)
        except ValueError as error:
            raise UserError(f"The optimiser of OPTIM refuses its settings: {error}") from error
        for group in self.optim.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.scaler = self.precision.grad_scaler()
        # A CPU has nothing to wait for.
        every = 1 if self.device.type == "cpu" else self.cfg.TRAIN.PRINT_FREQ
        self.loss_guard = NonFiniteLossGuard(self.node, every, self.precision.name)
        self.clock = StepTimer(self.device)
        return self.optim

    def before_epoch(self) -> None:
        """Seed all generators for this epoch and set its learning rate."""
        super().before_epoch()
        self._seed("train", self.epoch)
        optim, (epoch, length) = self.cfg.OPTIM, self.schedule_position()
        schedule = {"max_epoch": length, "scheduler": optim.LR_SCHEDULER}
        schedule |= {key: optim[key.upper()] for key in SCHEDULE_KEYS}
        for group in self.optim.param_groups:
            group["lr"] = learning_rate(epoch, base_lr=group["initial_lr"], **schedule)

    def schedule_position(self) -> tuple[int, int]:
        """Return where the learning-rate schedule is: epoch, counted from 0, and its length."""
        return self.epoch, self.max_epoch

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return images (B, 3, H, W) and labels (B,) on the device."""
        return self.parse_batch_test(batch)

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Make one optimisation step; return the numbers Dassl logs, still on the device."""
        began = self.clock.mark()
        images, labels = self.parse_batch_train(batch)
        with self.precision.autocast():
            loss, logits = self.compute_loss(images, labels)
        self._step(loss)
        self.clock.add(began)
        self.train_steps += 1
        return {"loss": loss.detach(), "acc": compute_accuracy(logits, labels)[0]}

    def compute_loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, cross-entropy by default, and its logits (B, K)."""
        logits = self.model(images)
        return self.cross_entropy(logits, labels), logits

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch, weighted as TRAIN.CLASS_WEIGHTS says.

        The weighted losses are divided by their number, not by the sum of their weights as
        `F.cross_entropy` does: in a batch of one image that would undo the weight.

        Args:
            logits: (B, K).
            labels: (B,).
        """
        if self.class_weights is None:
            return F.cross_entropy(logits, labels)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return (self.class_weights[labels] * losses).mean()

    def _step(self, loss: Tensor) -> None:
        self.loss_guard.add(loss, self.epoch, self.batch_idx)
        self.optim.zero_grad()
        if self.scaler is None:
            loss.backward()
            self.optim.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()

    def after_epoch(self) -> None:
        """Validate and save as Dassl does, then save what a resumed run needs."""
        self.loss_guard.check()
        self.loss_guard.check_weights(resume.state_tensors(self), self.epoch)
        self.train_seconds += self.clock.seconds()
        super().after_epoch()
        resume.write_state(self)

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
            claim_for_training(self, resumed=True)
        return done
