"""The last feature map of a convolutional image tower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dplq.errors import UserError


@contextmanager
def last_feature_map(tower: Any, name: str) -> Iterator[list[Tensor]]:
    """Yield a list whose last tensor is the map (B, C, h, w) of the passes in this context.

    Args:
        tower: open_clip's ResNet, or its `TimmModel`.
        name: of the CLIP, for the message.

    Raises:
        UserError: another tower, or one whose maps have their channels last.
    """
    stage, found = _last_stage(tower, name), list[Tensor]()

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output.requires_grad_()
        found.append(output)
        return output

    handle = stage.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _last_stage(tower: Any, name: str) -> nn.Module:
    """Return the module whose output is the last feature map."""
    trunk = getattr(tower, "trunk", tower)
    described = (getattr(trunk, "feature_info", None) or [{}])[-1]
    stage = "layer4" if hasattr(trunk, "layer4") else described.get("module", "")
    if stage and getattr(trunk, "output_fmt", "NCHW") == "NCHW":
        return trunk.get_submodule(stage)
    raise UserError(
        f"The image tower of {name}, {type(trunk).__name__}, has neither tokens nor a last feature "
        "map (B, C, h, w): no attention map can be made."
    )
