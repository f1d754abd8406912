"""Comparison of what the loaders deliver with what the backbone was trained on."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from dplq.clip.backbone import Backbone
from dplq.errors import UserError
from dplq.images.model_input import SHORTEST, ModelInput
from dplq.images.settings import read_settings

logger = logging.getLogger(__name__)


def check_input(given: Any, clip: Backbone) -> None:
    """Compare what the loaders deliver (``cfg.INPUT``) to what the backbone was trained on.

    Raises:
        UserError: another image size. Another normalisation or resizing only warns.
    """
    size = clip.image_size
    if tuple(given.SIZE) != (size, size):
        raise UserError(
            f"INPUT.SIZE {tuple(given.SIZE)} does not fit {clip.spec.name}, which "
            f'reads {size}x{size}: set INPUT.SIZE "({size}, {size})".'
        )
    name, wanted = clip.spec.name, {"PIXEL_MEAN": clip.image_mean, "PIXEL_STD": clip.image_std}
    if "normalize" in given.TRANSFORMS:
        for key, value in wanted.items():
            if not np.allclose(given[key], value, atol=1e-3):
                logger.warning(
                    "INPUT.%s is %s, but %s was trained with %s: set it in the config file.",
                    *(key, list(given[key]), name, list(value)),
                )
    elif "instance_norm" not in given.TRANSFORMS and {*clip.image_mean, *clip.image_std} != {0, 1}:
        logger.warning(
            "Images are NOT NORMALISED, as INPUT.TRANSFORMS (%s) lacks normalize, but %s was "
            "trained on normalised ones: its accuracy will be low. Name a --config-file, or set "
            'INPUT.TRANSFORMS \'["random_resized_crop", "random_flip", "normalize"]\', '
            'INPUT.PIXEL_MEAN "%s" and INPUT.PIXEL_STD "%s".',
            *(", ".join(given.TRANSFORMS) or "empty", name, *map(list, wanted.values())),
        )
    if clip.interpolation != given.INTERPOLATION:
        logger.warning(
            "INPUT.INTERPOLATION is %s, but %s was trained with %s: set it in the config file.",
            *(given.INTERPOLATION, name, clip.interpolation),
        )
    if clip.resize_mode != SHORTEST:
        logger.warning(
            "Images are resized by their shorter edge and cropped, but %s was trained with both "
            "edges resized: of images that are not square, what is cropped is not seen.",
            clip.spec.name,
        )


def input_of(given: Any, clip: Backbone) -> ModelInput:
    """Return how the test loader of a config preprocesses images.

    Args:
        given: `cfg.INPUT`.
        clip: the backbone, whose image size it has.
    """
    is_normalized = "normalize" in given.TRANSFORMS
    return ModelInput(
        clip.image_size,
        given.INTERPOLATION,
        tuple(given.PIXEL_MEAN) if is_normalized else (0.0, 0.0, 0.0),
        tuple(given.PIXEL_STD) if is_normalized else (1.0, 1.0, 1.0),
        "instance_norm" in given.TRANSFORMS,
        reading=read_settings(given),
    )
