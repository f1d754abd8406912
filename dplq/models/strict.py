"""Rules of strict loading that CLIPs and domain encoders share."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from dplq.errors import UserError, few
from dplq.io.finite import non_finite

COUNTER = ".num_batches_tracked"


def is_counter(key: str) -> bool:
    """Return whether a tensor counts the training steps of a BatchNorm.

    No feature depends on it, and files of early versions of torch lack it.
    """
    return key.endswith(COUNTER)


def check_finite(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Refuse weights that hold nan or infinite values.

    Args:
        tensors: what a model takes of a file.
        path: the file, for messages.

    Raises:
        UserError: there are such values; the tensors are named.
    """
    if found := non_finite(tensors):
        raise UserError(
            f"'{path}' holds nan or infinite values: {few(found, limit=3, separator='; ')}. The "
            "file is damaged, or its training diverged: get it again, or use an earlier checkpoint"
        )
