"""Labels of images, as a caller may give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dplq.errors import UserError


def check_labels(
    labels: Tensor | Sequence[int], items: Tensor, classes: int, least: int = 0
) -> Tensor:
    """Return labels as a tensor (N,), long, on the device of what they belong to.

    Args:
        labels: one for each item; a list, an array or a tensor.
        items: (N, ...), images or features.
        classes: K, of the model.
        least: the least allowed one; -1 where a class may be unknown.

    Raises:
        UserError: labels of another number, or out of range.
    """
    chosen = torch.as_tensor(labels, device=items.device).long()
    if chosen.shape != items.shape[:1]:
        raise UserError(
            f"labels has the shape {tuple(chosen.shape)}; give one class for each of the "
            f"{len(items)} images."
        )
    if len(chosen) and not least <= int(chosen.min()) <= int(chosen.max()) < classes:
        raise UserError(
            f"labels has classes from {int(chosen.min())} to {int(chosen.max())}; the model's are "
            f"0 to {classes - 1}."
        )
    return chosen
