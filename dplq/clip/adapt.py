"""Backbones with changed weights: a learnable module in place of a frozen tensor.

A changed weight is read as ``delta(weight)`` (`torch.nn.utils.parametrize`), so every path through
the towers, packed texts included, computes with it. The original backbone stays as it is: the
changed one has modules of its own and shares all tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dplq.clip.backbone import Backbone


def adapt(clip: Backbone, deltas: Mapping[str, nn.Module]) -> Backbone:
    """Return a backbone that shares all tensors and reads some weights as changed by modules.

    The modules do not become part of the backbone: their parameters keep their dtype when it is
    cast, and are moved and trained by who owns them.

    Args:
        clip: stays unchanged.
        deltas: by the weight's name in open_clip (such as "transformer.resblocks.0.ln_1.weight"), a
            module that maps the weight, in float32 at least, to the changed weight.

    Raises:
        AttributeError: there is no such weight.
    """
    changed = clip.sharing_copy()
    model: Any = changed.clip
    for name, delta in deltas.items():
        path, _, parameter = name.rpartition(".")
        module = model.get_submodule(path)
        parametrize.register_parametrization(module, parameter, _Changed(delta), unsafe=True)
    return changed


@torch.no_grad()
def merged(clip: Backbone, deltas: Mapping[str, nn.Module]) -> Backbone:
    """Return a backbone with changed weights in the place of some; it shares the other tensors.

    Args:
        clip: stays unchanged.
        deltas: as for `adapt`; in eval mode.
    """
    changed = clip.sharing_copy()
    model: Any = changed.clip
    for name, delta in deltas.items():
        path, _, parameter = name.rpartition(".")
        module = model.get_submodule(path)
        weight = apply_delta(delta, getattr(module, parameter))
        setattr(module, parameter, nn.Parameter(weight, requires_grad=False))
    return changed


def norm_weights(clip: Backbone) -> list[str]:
    """Return the names of weight and bias of all LayerNorms in both towers' residual blocks."""
    model: Any = clip.clip
    return [
        f"{block}.{path}.{name}"
        for tower in ("text", "image")
        for block in clip.block_names(tower)
        for path, module in model.get_submodule(block).named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    ]


def apply_delta(delta: nn.Module, weight: Tensor) -> Tensor:
    """Return the changed weight in the dtype of `weight`; the change is computed in float32."""
    with torch.autocast(weight.device.type, enabled=False):
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
        return delta(exact).to(weight.dtype)


def state_of(module: nn.Module, *tensors: Tensor) -> tuple[Any, ...]:
    """Return what differs once a parameter of `module`, or one of `tensors`, has changed.

    A module's attribute `coupled` holds parameters of others that it depends on.
    """
    every = (*module.parameters(), *getattr(module, "coupled", ()), *tensors)
    return tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in every)


class _Changed(nn.Module):
    """The parametrisation of one weight; without gradients it is computed once per state."""

    def __init__(self, delta: nn.Module) -> None:
        super().__init__()
        self._delta = (delta,)  # in a tuple it is no submodule, so a cast of the towers leaves it
        self._kept: tuple[tuple[Any, ...], Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        (delta,) = self._delta
        if torch.is_grad_enabled() or delta.training:
            self._kept = None  # recomputed in checkpointed regions, too, which must not differ
            return apply_delta(delta, weight)
        state = state_of(delta, weight)
        if self._kept is None or self._kept[0] != state:
            self._kept = state, apply_delta(delta, weight)
        return self._kept[1]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Changed:
        """Return a copy for the copied delta; the kept weight stays behind."""
        new = _Changed(copy.deepcopy(self._delta[0], memo))
        memo[id(self)] = new
        return new
