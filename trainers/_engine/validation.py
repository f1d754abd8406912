"""Refusals of config values that no trainer of this project can work with."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from dplq.clip.backbone import Backbone
from dplq.errors import UserError

logger = logging.getLogger(__name__)
MODES = ("default", "reduce-overhead", "max-autotune")  # torch.compile's


def require(key: str, value: Any, holds: bool, expected: str) -> None:
    """Raise a UserError that names key, value and what is expected, unless `holds`."""
    if not holds:
        raise UserError(f"{key} is {value!r}; it must be {expected}.")


def check_values(cfg: Any) -> None:
    """Check the keys that every trainer reads.

    Raises:
        UserError: naming key, value and what is expected.
    """
    for part in ("TRAIN_X", "TEST"):
        size = cfg.DATALOADER[part].BATCH_SIZE
        require(f"DATALOADER.{part}.BATCH_SIZE", size, size >= 1, "at least 1")
    chunk = cfg.MODEL.TEXT_CHUNK
    require("MODEL.TEXT_CHUNK", chunk, chunk >= 0, "0 (as many as memory holds) or more")
    mode = cfg.MODEL.COMPILE
    require("MODEL.COMPILE", mode, mode in ("", *MODES), f"empty or one of {', '.join(MODES)}")
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        numbers = cfg.INPUT[key]
        require(f"INPUT.{key}", numbers, len(numbers) == 3, "three numbers")
    weights = cfg.TRAIN.CLASS_WEIGHTS
    require("TRAIN.CLASS_WEIGHTS", weights, weights in ("", "balanced"), "empty or balanced")
    final, split = cfg.TEST.FINAL_MODEL, cfg.TEST.SPLIT
    require("TEST.FINAL_MODEL", final, final in {"last_step", "best_val"}, "last_step or best_val")
    require("TEST.SPLIT", split, split in {"test", "val"}, "test or val")


def check_input(given: Any, clip: Backbone) -> None:
    """Compare what the loaders deliver (``cfg.INPUT``) to what the backbone was trained on.

    Raises:
        UserError: another image size. Another normalisation only warns.
    """
    size = clip.image_size
    if tuple(given.SIZE) != (size, size):
        raise UserError(
            f"INPUT.SIZE {tuple(given.SIZE)} does not fit {clip.spec.name}, which "
            f'reads {size}x{size}: set INPUT.SIZE "({size}, {size})".'
        )
    for key, wanted in (("PIXEL_MEAN", clip.image_mean), ("PIXEL_STD", clip.image_std)):
        if not np.allclose(given[key], wanted, atol=1e-3):
            logger.warning(
                "INPUT.%s is %s, but %s was trained with %s: set it in the config file.",
                key,
                list(given[key]),
                clip.spec.name,
                list(wanted),
            )
