"""Trainers that repositories subclass: one epoch loop, one test loop."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from yacs.config import CfgNode

from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    MetricMeter,
    check_availability,
    count_num_param,
    load_pretrained_weights,
    mkdir_if_missing,
)

from .net import SimpleNet
from .trainer_base import TrainerBase


def _timespan(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class SimpleTrainer(TrainerBase):
    """Trainer that builds data, model and evaluator from a config.

    The constructor calls `check_cfg`, `build_data_loader` and `build_model`, in this order. It
    uses one device, the GPU if there is one and ``USE_CUDA`` is set.

    Args:
        cfg: the whole config.
    """

    def __init__(self, cfg: CfgNode):
        super().__init__()
        self.check_cfg(cfg)
        use_cuda = torch.cuda.is_available() and cfg.USE_CUDA
        self.device = torch.device("cuda" if use_cuda else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -np.inf

    def check_cfg(self, cfg: CfgNode) -> None:
        """Raise if the config does not suit the trainer (hook)."""

    def build_data_loader(self) -> None:
        """Build the loaders; an override must set the same attributes except `dm`."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Build and register the model, its optimiser and its schedule."""
        cfg = self.cfg
        print("Building model")
        self.model = SimpleNet(cfg, cfg.MODEL, self.num_classes)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("model", self.model, self.optim, self.sched)

    def train(self) -> None:  # type: ignore[override]  # Dassl's signatures differ
        """Train from `start_epoch` to `max_epoch`."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        """Resume from a checkpoint if there is one, and open the TensorBoard writer."""
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        writer_dir = os.path.join(self.output_dir, "tensorboard")
        mkdir_if_missing(writer_dir)
        self.init_writer(writer_dir)
        self.time_start = time.time()

    def after_train(self) -> None:
        """Test the last or the best model, and print the elapsed time."""
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        print(f"Elapsed: {_timespan(round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        """Save the best model on val (FINAL_MODEL best_val), periodic ones and the last."""
        done, frequency = self.epoch + 1, self.cfg.TRAIN.CHECKPOINT_FREQ
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch,
                    self.output_dir,
                    val_result=result,
                    model_name="model-best.pth.tar",
                )
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split.

        Args:
            split: "val" or "test"; None: ``TEST.SPLIT``. Without val images it is "test".

        Returns:
            The evaluator's first result (accuracy in per cent).
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        use_val = (split or self.cfg.TEST.SPLIT) == "val" and self.val_loader is not None
        split, loader = ("val", self.val_loader) if use_val else ("test", self.test_loader)
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader, desc="test", disable=None):  # no bar in a pipe
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, K)."""
        return self.model(input)

    def _on_device(self, batch: dict[str, Any], *keys: str) -> tuple[torch.Tensor, ...]:
        # From pinned memory the copy overlaps with computation on the device.
        return tuple(batch[key].to(self.device, non_blocking=True) for key in keys)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return images (B, 3, H, W) and labels (B,), on the device."""
        return self._on_device(batch, "img", "label")

    def get_current_lr(self, names: Any = None) -> float:
        """Return the learning rate of the (first) model's first parameter group."""
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    def _run_batches(self, batches: Iterable[tuple], num_batches: int) -> None:
        """Train on batches, each a tuple of arguments for `forward_backward`; log them.

        The losses are copied from the device when a line is printed, so that steps do not wait.
        """
        self.set_model_mode("train")
        self.num_batches = num_batches
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        points: list[tuple] = []
        end = time.time()
        for self.batch_idx, batch in enumerate(batches):
            data_time.update(time.time() - end)
            losses.update(self.forward_backward(*batch))
            is_logged = self._is_log_batch()
            if is_logged:
                str(losses)  # synchronises, so that the times include the work of the device
            batch_time.update(time.time() - end)
            n_iter = self.epoch * num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                points.append((f"train/{name}", meter.avg, n_iter))
            points.append(("train/lr", self.get_current_lr(), n_iter))
            if is_logged:
                self._log_batch(losses, batch_time, data_time)
                self._write_points(points)
            end = time.time()
        self._write_points(points)

    def _write_points(self, points: list[tuple]) -> None:
        """Write the collected points to TensorBoard; values may still be on the device."""
        for tag, value, n_iter in points:
            self.write_scalar(tag, float(value), n_iter)
        points.clear()

    def _is_log_batch(self) -> bool:
        """Return whether to print: every PRINT_FREQ batches, in shorter epochs every batch."""
        frequency = self.cfg.TRAIN.PRINT_FREQ
        return (self.batch_idx + 1) % frequency == 0 or self.num_batches < frequency

    def _log_batch(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        """Print the log line."""
        done = self.batch_idx + 1
        epochs_left = self.max_epoch - self.epoch - 1
        batches_left = self.num_batches - done + epochs_left * self.num_batches
        print(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] "
            f"batch [{done}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{losses} "
            f"lr {self.get_current_lr():.4e} "
            f"eta {_timespan(batch_time.avg * batches_left)}"
        )


class TrainerX(SimpleTrainer):
    """Trainer for labelled images."""

    def run_epoch(self) -> None:
        """Train on all batches of `train_loader_x`."""
        self._run_batches(((batch,) for batch in self.train_loader_x), len(self.train_loader_x))

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Return images (B, 3, H, W), labels (B,) and domains (B,), on the device."""
        return self._on_device(batch, "img", "label", "domain")


class TrainerXU(SimpleTrainer):
    """Trainer for labelled and unlabelled images; `forward_backward` gets a batch of each."""

    def run_epoch(self) -> None:
        """Train on ``TRAIN.COUNT_ITER`` pairs of batches; a shorter loader restarts."""
        sizes = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        sizes["smaller_one"] = min(sizes.values())
        check_availability(self.cfg.TRAIN.COUNT_ITER, sizes, "TRAIN.COUNT_ITER")
        number = sizes[self.cfg.TRAIN.COUNT_ITER]
        self._run_batches(_pairs(self.train_loader_x, self.train_loader_u, number), number)

    def parse_batch_train(  # type: ignore[override]  # a batch of each loader
        self, batch_x: dict[str, Any], batch_u: dict[str, Any]
    ) -> tuple[torch.Tensor, ...]:
        """Return labelled images, their labels, and unlabelled images, on the device."""
        return (*self._on_device(batch_x, "img", "label"), *self._on_device(batch_u, "img"))


def _pairs(loader_x: Iterable, loader_u: Iterable, number: int) -> Iterator[tuple]:
    loaders = (loader_x, loader_u)
    # both are started before the first batch, which fixes the order of the random draws
    iterators = [iter(loader) for loader in loaders]
    for _ in range(number):
        pair = []
        for index, loader in enumerate(loaders):
            batch = next(iterators[index], None)
            if batch is None:
                iterators[index] = iter(loader)
                batch = next(iterators[index])
            pair.append(batch)
        yield tuple(pair)
