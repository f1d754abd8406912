"""Configs and trainers of a tiny project, in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dplq.plugin  # noqa: F401  (registers trainers and datasets)
from dplq.host.config import extend_cfg, merge_file
from tests.runner import make_project


def fresh(trainer: str = "QuaternionPrompt") -> Any:
    """Return a config with all defaults."""
    from dassl.config import get_cfg_default  # found once the plug-in has been imported

    cfg = get_cfg_default()
    extend_cfg(cfg)
    cfg.TRAINER.NAME, cfg.DATASET.NAME = trainer, "OwnImages"
    return cfg


def project_config(folder: Path) -> Any:
    """Make a tiny project in a folder; return the config of a training run without output."""
    make_project(folder, images=6)
    cfg = fresh()
    for name in ("trainer.yaml", "dataset.yaml"):
        merge_file(cfg, str(folder / name))
    cfg.DATASET.ROOT, cfg.SEED, cfg.OUTPUT_DIR = str(folder / "data"), 1, ""
    return cfg


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def build(cfg: Any) -> Any:
    """Return the trainer of a config, before its first epoch."""
    from dassl.engine import build_trainer

    with quiet():
        trainer = build_trainer(cfg)
    trainer.epoch = trainer.batch_idx = 0
    return trainer


def step(trainer: Any) -> Tensor:
    """Make a step of the training, where there is one; return its loss."""
    if trainer.fixed_epochs is not None:
        return torch.zeros(())
    with quiet():
        trainer.set_model_mode("train")
        trainer.before_epoch()
        loss = trainer.forward_backward(next(iter(trainer.train_loader_x)))["loss"]
        trainer.set_model_mode("eval")
    return loss


def logits_of_test(trainer: Any) -> Tensor:
    """Return the logits of the first batch of test images."""
    with torch.no_grad(), quiet():
        images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
        logits = trainer.model_inference(images)
    assert logits.shape == (len(images), trainer.num_classes)
    return logits


def one_step(cfg: Any) -> tuple[Tensor, Tensor]:
    """Build the trainer of a config, make a step, test a batch; return loss and logits."""
    trainer = build(cfg)
    loss = step(trainer)
    return loss, logits_of_test(trainer)
