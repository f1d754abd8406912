"""State dicts inside the containers of training checkpoints.

Training loops save a state dict as ``{"model": ...}``, ``{"network": {"state_dict": ...}}``, and
beside it an optimiser's state, or a second copy of the model with averaged weights.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dplq.errors import UserError, few

logger = logging.getLogger(__name__)
CONTAINERS = ("model", "state_dict")  # of two the first is used
MOST_LEVELS = 5  # a file's dicts may contain themselves
OPTIMIZER = "param_groups"  # a key of every optimiser's state
WRAPPER, COUNTER = "module.", "n_averaged"  # keys of torch's AveragedModel


def unwrap(content: Mapping[Any, Any], path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by key, without the names of known containers.

    Args:
        content: of the file.
        path: the file, for messages.

    Returns:
        Tensors by key; below containers of other names by "outer.key". Of several copies in
        containers of which one is known, that one; the log names the others.

    Raises:
        UserError: a tensor is sparse, quantised or without data.
    """
    state = _tensors(content, path, MOST_LEVELS)
    check_tensors(state, path)
    return state


def check_tensors(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuse (UserError) tensors that no model here has; file and tensor are named."""
    unusual = {name: why for name, value in state.items() if (why := _unusual(value))}
    if unusual:
        named = few((f"{name} is {why}" for name, why in unusual.items()), limit=3, separator="; ")
        raise UserError(
            f"'{path}' holds tensors that cannot be loaded: {named}. Save them as plain, dense ones"
        )


def _unusual(value: Any) -> str:
    """Return in what a tensor differs from plain ones, "" if in nothing."""
    if not isinstance(value, Tensor):
        return ""
    if value.is_nested:
        return "nested"
    if value.is_quantized:
        return "quantised"
    if value.is_meta:
        return "without data (device meta)"
    layout = str(value.layout).removeprefix("torch.")
    return "" if layout == "strided" else f"sparse ({layout})"


def _tensors(
    group: Mapping[Any, Any], path: str | os.PathLike[str], levels: int
) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or in the containers of a dict, `levels` deep."""
    if not levels or OPTIMIZER in group:
        return {}
    inner = {
        str(key): found
        for key, value in group.items()
        if isinstance(value, Mapping) and (found := _tensors(value, path, levels - 1))
    }
    for name in CONTAINERS:
        if name in inner:
            _report_copies(name, inner, path)
            return inner[name]
    own = {str(key): value for key, value in group.items() if isinstance(value, Tensor)}
    if own:
        return _without_counter(own)
    return {
        f"{outer}.{key}": value for outer, found in inner.items() for key, value in found.items()
    }


def _report_copies(
    used: str, groups: Mapping[str, Mapping[str, Tensor]], path: str | os.PathLike[str]
) -> None:
    """Log which container is used, where others beside it hold the same keys."""
    keys = {key.removeprefix(WRAPPER) for key in groups[used]}
    others = [
        name
        for name, state in groups.items()
        if name != used and keys & {key.removeprefix(WRAPPER) for key in state}
    ]
    if others:
        logger.warning(
            "%s: the weights in '%s' are used; %s, with the same keys, %s not. To use others, save "
            "them alone, as {'model': state_dict}",
            *(path, used, " and ".join(map(repr, others)), "are" if others[1:] else "is"),
        )


def _without_counter(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the number of averaged models that AveragedModel counts."""
    others = [key for key in state if key != COUNTER]
    is_average = COUNTER in state and others and all(key.startswith(WRAPPER) for key in others)
    return {key: state[key] for key in others} if is_average else state
