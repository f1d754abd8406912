"""Trainer base class: registered models, their checkpoints, the order of the hooks."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from dassl.utils import (
    InputError,
    MissingFileError,
    check_availability,
    load_checkpoint,
    model_file,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)


class TrainerBase:
    """Base class of trainers: models, optimisers, schedules, and the epoch loop.

    Hooks, in this order: `before_train`, then for each epoch `before_epoch`, `run_epoch`,
    `after_epoch`, and at the end `after_train`.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, Any] = OrderedDict()
        self._scheds: OrderedDict[str, Any] = OrderedDict()
        self._writer: Any = None
        self._log_dir: str | None = None

    def register_model(
        self, name: str = "model", model: Any = None, optim: Any = None, sched: Any = None
    ) -> None:
        """Register a model with its optimiser and schedule.

        Args:
            name: also the folder of its checkpoints in OUTPUT_DIR.
            model: the module.
            optim: its optimiser, or None if it is frozen.
            sched: its schedule, or None.

        Raises:
            AttributeError: called before ``super().__init__()``.
            InputError: the name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("call super().__init__() before register_model()")
        if name in self._models:
            raise InputError(f"a model named '{name}' is already registered")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """Return the given names, checked, or all."""
        if names is None:
            return list(self._models)
        for name in tolist_if_not(names):
            check_availability(name, self._models, "model")
        return tolist_if_not(names)

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Write every model's checkpoint to ``<directory>/<model name>/``.

        Args:
            epoch: 0-based; the file has epoch + 1.
            directory: usually OUTPUT_DIR.
            is_best: also copy to model-best.pth.tar.
            val_result: kept in the file.
            model_name: file name instead of model.pth.tar-<epoch + 1>.
        """
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            state = {
                "state_dict": self._models[name].state_dict(),
                "epoch": epoch + 1,
                "optimizer": None if optim is None else optim.state_dict(),
                "scheduler": None if sched is None else sched.state_dict(),
                "val_result": None if val_result is None else float(val_result),
            }
            folder = os.path.join(directory, name)
            save_checkpoint(state, folder, is_best=is_best, model_name=model_name)

    def resume_model_if_exist(self, directory: str) -> int:
        """Resume from the checkpoints in `directory` if every model has one.

        Returns:
            The number of finished epochs; 0 without checkpoints.
        """
        folders = {name: os.path.join(directory, name) for name in self.get_model_names()}
        if not all(os.path.exists(os.path.join(f, "checkpoint")) for f in folders.values()):
            print("No checkpoint found, train from scratch")
            return 0
        print(f"Found checkpoint at {directory} (will resume training)")
        done = 0
        for name, folder in folders.items():
            done = resume_from_checkpoint(
                folder, self._models[name], self._optims[name], self._scheds[name]
            )
        return done

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load every model's weights.

        Args:
            directory: an OUTPUT_DIR; empty: nothing is loaded, with a note.
            epoch: of model.pth.tar-<epoch>; None: model-best.pth.tar.

        Raises:
            MissingFileError: a file does not exist (a FileNotFoundError).
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        for name in self.get_model_names():
            path = os.path.join(directory, name, model_file(epoch))
            if not os.path.exists(path):
                raise MissingFileError(f"no model at {path}")
            checkpoint = load_checkpoint(path)
            facts = f"epoch={checkpoint['epoch']}"
            if checkpoint.get("val_result") is not None:
                facts += f", val_result={checkpoint['val_result']:.1f}"
            print(f"Load {path} to {name} ({facts})")
            self._models[name].load_state_dict(checkpoint["state_dict"])

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        """Set models to "train" or "eval" (or "test", the same) mode."""
        check_availability(mode, ("train", "eval", "test"), "mode")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def _of(self, table: OrderedDict[str, Any], names: Any) -> Iterable[Any]:
        chosen = (table[name] for name in self.get_model_names(names))
        return (entry for entry in chosen if entry is not None)

    def update_lr(self, names: Any = None) -> None:
        """Step the schedules."""
        for sched in self._of(self._scheds, names):
            sched.step()

    def model_zero_grad(self, names: Any = None) -> None:
        """Clear the gradients."""
        for optim in self._of(self._optims, names):
            optim.zero_grad()

    def model_backward(self, loss: torch.Tensor) -> None:
        """Back-propagate, after `detect_anomaly`."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Any = None) -> None:
        """Step the optimisers."""
        for optim in self._of(self._optims, names):
            optim.step()

    def model_backward_and_update(self, loss: torch.Tensor, names: Any = None) -> None:
        """Clear the gradients, back-propagate, step the optimisers."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        """Raise FloatingPointError if the loss is not finite."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError("the loss is infinite or NaN")

    def init_writer(self, log_dir: str) -> None:
        """Enable TensorBoard logging to `log_dir`; print a line if it is not installed."""
        if self.__dict__.get("_log_dir") is not None:
            return
        if find_spec("tensorboard") is None:
            print("The package tensorboard is not installed: no curves are written")
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        self._log_dir = log_dir

    def close_writer(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Log a scalar to TensorBoard; a no-op without a writer (as in an evaluation)."""
        if self._log_dir is None:
            return
        if self._writer is None:
            # Slow to import: not before the first step is done.
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(log_dir=self._log_dir)
        self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run the epochs; `before_train` may move ``self.start_epoch`` (resume)."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):  # noqa: B020
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """Hook."""

    def after_train(self) -> None:
        """Hook."""

    def before_epoch(self) -> None:
        """Hook."""

    def after_epoch(self) -> None:
        """Hook."""

    def run_epoch(self) -> None:
        """Train one epoch."""
        raise NotImplementedError

    def test(self) -> float:
        """Evaluate."""
        raise NotImplementedError

    def parse_batch_train(self, batch: Any) -> Any:
        """Return what the model needs of a training batch."""
        raise NotImplementedError

    def parse_batch_test(self, batch: Any) -> Any:
        """Return the input and the label of a test batch."""
        raise NotImplementedError

    def forward_backward(self, batch: Any) -> dict[str, float]:
        """Run a training step and return the numbers for the log."""
        raise NotImplementedError

    def model_inference(self, input: Any) -> Any:
        """Return the model's output for a test batch."""
        raise NotImplementedError
