"""``OPTIM.NAME`` -> a torch.optim optimiser."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from dassl.utils import check_availability

AVAI_OPTIMS = {
    "adam": torch.optim.Adam,
    "amsgrad": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "radam": torch.optim.RAdam,
    "adamw": torch.optim.AdamW,
}


def build_optimizer(
    model: nn.Module | Iterable[Any],
    optim_cfg: CfgNode,
    param_groups: Iterable[Any] | None = None,
) -> torch.optim.Optimizer:
    """Build an optimiser.

    Args:
        model: a module (all its parameters), or parameters, or parameter groups.
        optim_cfg: the OPTIM node.
        param_groups: if given, these are optimised and `model` is ignored.

    Raises:
        ChoiceError: unknown ``OPTIM.NAME``.
        TypeError: ``OPTIM.STAGED_LR`` with something that is not a module.
    """
    check_availability(optim_cfg.NAME, AVAI_OPTIMS, "OPTIM.NAME")
    if param_groups is not None and optim_cfg.STAGED_LR:
        warnings.warn("OPTIM.STAGED_LR is ignored: parameter groups were given", stacklevel=2)
    elif param_groups is None and optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    elif param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    return AVAI_OPTIMS[optim_cfg.NAME](
        param_groups, lr=optim_cfg.LR, weight_decay=optim_cfg.WEIGHT_DECAY, **_options(optim_cfg)
    )


def _options(optim_cfg: CfgNode) -> dict[str, Any]:
    """Return the arguments that only some optimisers have."""
    if optim_cfg.NAME == "sgd":
        return {
            "momentum": optim_cfg.MOMENTUM,
            "dampening": optim_cfg.SGD_DAMPNING,
            "nesterov": optim_cfg.SGD_NESTEROV,
        }
    if optim_cfg.NAME == "rmsprop":
        return {"momentum": optim_cfg.MOMENTUM, "alpha": optim_cfg.RMSPROP_ALPHA}
    betas = {"betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)}
    return {**betas, "amsgrad": True} if optim_cfg.NAME == "amsgrad" else betas


def _staged_groups(model: Any, optim_cfg: CfgNode) -> list[dict[str, Any]]:
    """Split a module's parameters into base layers (small rate) and NEW_LAYERS (full rate)."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs a module, got {type(model).__name__}")
    model = model.module if isinstance(model, nn.DataParallel) else model
    new_layers = optim_cfg.NEW_LAYERS
    new_layers = [new_layers] if isinstance(new_layers, str) else new_layers
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (new if name.split(".")[0] in new_layers else base).append(parameter)
    if not new:
        warnings.warn(f"OPTIM.NEW_LAYERS {new_layers} names no layer of the model", stacklevel=3)
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]
