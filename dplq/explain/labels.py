"""Classes of images, as the functions of this package take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dplq.errors import UserError
from dplq.methods.base import CLIPModel


def check_labels(
    model: CLIPModel,
    images: Tensor,
    labels: Tensor | Sequence[int] | None,
    least: int = 0,
) -> Tensor | None:
    """Return labels as a tensor (B,), long, on the images' device; None for None.

    Args:
        model: whose classes they are.
        images: (B, 3, H, W).
        labels: one for each image.
        least: the least allowed one; -1 where a class may be unknown.

    Raises:
        UserError: labels of another number, or out of range.
    """
    if labels is None:
        return None
    chosen = torch.as_tensor(labels, device=images.device).long()
    if chosen.shape != (len(images),):
        raise UserError(
            f"labels has the shape {tuple(chosen.shape)}; give one class for each of the "
            f"{len(images)} images."
        )
    classes = len(model.classnames)
    if len(chosen) and not least <= int(chosen.min()) <= int(chosen.max()) < classes:
        raise UserError(
            f"labels has classes from {int(chosen.min())} to {int(chosen.max())}; the model's are "
            f"0 to {classes - 1}."
        )
    return chosen
