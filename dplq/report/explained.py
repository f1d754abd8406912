"""The run's model and some of its test images, for the sections that run it."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dplq.errors import UserError
from dplq.evaluation.prediction_rows import distinct_names, names_before
from dplq.evaluation.prediction_table import PredictionTable
from dplq.methods.base import CLIPModel
from dplq.report.run_page import RunPage


def evenly_chosen(table: PredictionTable, limit: int) -> list[int]:
    """Return rows of a table: the first of every class in turn, then the second, and so on.

    Rows without a label are of a class of their own. The order is that of the choice.
    """
    seen: dict[int, int] = {}
    ranked = []
    for row, label in enumerate(table.labels.tolist()):
        seen[label] = seen.get(label, -1) + 1
        ranked.append((seen[label], label, row))
    return [row for _, _, row in sorted(ranked)[:limit]]


def model_of(run: RunPage, table: PredictionTable) -> CLIPModel:
    """Return the run's model, which tells the table's classes apart.

    Raises:
        UserError: it cannot be loaded, or can only tell other classes apart.
    """
    model = run.model()
    if distinct_names(model.classnames) != table.classes:
        model.set_classnames(names_before(table.classes))
    return model


def images_of(run: RunPage, table: PredictionTable, rows: list[int]) -> list[Image.Image]:
    """Return the images of some rows, 8-bit RGB.

    Raises:
        UserError: one is not there, or cannot be read.
    """
    try:
        return [run.image(table.paths[row]) for row in rows]
    except UserError:
        if run.options.images:
            raise
        raise UserError("An image cannot be read; --no-images leaves out which one.") from None


def tensor_of(model: CLIPModel, images: list[Image.Image]) -> Tensor:
    """Return images as the model takes them, (B, 3, H, W)."""
    return torch.stack([model.preprocess(image) for image in images])


def pixels_of(model: CLIPModel, images: Tensor) -> np.ndarray:
    """Return a model's images (B, 3, H, W) as pixels (B, H, W, 3), 0 to 1.

    They are stretched to that range, as a run may have normalised them in its own way.
    """
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.clip.image_mean, model.clip.image_std)
    )
    pixels = (images * std + mean).permute(0, 2, 3, 1).numpy()
    low, high = min(float(pixels.min()), 0.0), max(float(pixels.max()), 1.0)
    return (pixels - low) / (high - low)


def problem_of(error: UserError) -> str:
    """Return why a section cannot run the model, in a sentence or two for the page."""
    return f"{error} Everything else on this page is made without the model."
