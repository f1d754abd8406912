"""Counting, freezing and initialising a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from .errors import InputError, check_availability


def count_num_param(model: nn.Module | None = None, params: Iterable[Any] | None = None) -> int:
    """Count the numbers in a model's parameters, or in a list of parameters or parameter groups.

    Raises:
        InputError: neither was given.
    """
    if model is not None:
        return sum(p.numel() for p in model.parameters())
    if params is None:
        raise InputError("count_num_param needs a model or params")
    total = 0
    for item in params:
        members = item["params"] if isinstance(item, dict) else item
        total += sum(p.numel() for p in members) if isinstance(members, list) else members.numel()
    return total


def _set_training(module: nn.Module, trainable: bool) -> None:
    module.train(trainable)
    for parameter in module.parameters():
        parameter.requires_grad_(trainable)


def open_all_layers(model: nn.Module) -> None:
    """Set the whole model to training mode, all parameters trainable."""
    _set_training(model, True)


def open_specified_layers(model: nn.Module, open_layers: str | Iterable[str]) -> None:
    """Set some children of a model to training mode; freeze the others in eval mode.

    Args:
        model: a DataParallel wrapper is unwrapped.
        open_layers: one or several names of children.

    Raises:
        ChoiceError: there is no such child.
    """
    model = model.module if isinstance(model, nn.DataParallel) else model
    names = [open_layers] if isinstance(open_layers, str) else list(open_layers)
    children = dict(model.named_children())
    for name in names:
        check_availability(name, children, "layer")
    for name, child in children.items():
        _set_training(child, name in names)


def set_bn_to_eval(module: nn.Module) -> None:
    """Freeze a BatchNorm layer's running statistics; for ``model.apply``."""
    if "BatchNorm" in type(module).__name__:
        module.eval()


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolutions and linear layers; norms to weight 1, all biases to 0.

    Args:
        model: changed in place.
        init_type: "normal", "xavier", "kaiming" or "orthogonal".
        gain: standard deviation ("normal") or gain ("xavier", "orthogonal").
    """
    draws: dict[str, Callable] = {
        "normal": lambda w: nn.init.normal_(w, 0.0, gain),
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=gain),
    }
    check_availability(init_type, draws, "init_type")
    for module in model.modules():
        kind = type(module).__name__
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is None or not any(k in kind for k in ("Conv", "Linear", "Norm")):
            continue
        nn.init.ones_(weight) if "Norm" in kind else draws[init_type](weight)
        if bias is not None:
            nn.init.zeros_(bias)
