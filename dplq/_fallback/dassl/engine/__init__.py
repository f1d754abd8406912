"""Trainers."""

from yacs.config import CfgNode

from dassl.utils import Registry

from .net import SimpleNet
from .simple_trainer import SimpleTrainer, TrainerX, TrainerXU
from .trainer_base import TrainerBase

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> TrainerBase:
    """Build the trainer named by ``TRAINER.NAME``."""
    announce = "Loading trainer" if cfg.VERBOSE else ""
    return TRAINER_REGISTRY.build(cfg.TRAINER.NAME, cfg, announce=announce)


__all__ = [
    "TRAINER_REGISTRY",
    "SimpleNet",
    "SimpleTrainer",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
    "build_trainer",
]
