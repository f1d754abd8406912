"""Pooling of a network's tokens or feature map to one feature per image."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dplq.errors import UserError

POOLS = ("avg", "cls", "both", "map")
EARLIER = "mean"  # the average as in checkpoints of earlier versions, see `differs_from_earlier`
NORMS = ("fc_norm", "head.norm")  # where timm's models have the norm after their pooling


def pool_features(tokens: Any, model: nn.Module, name: str, kind: str = "avg") -> Tensor:
    """Pool the output of a timm model's `forward_features`, in fp32.

    Models that are normalised after pooling (`fc_norm`: BEiT, EVA02, fine-tuned MAE; `head.norm`:
    ConvNeXt, Hiera, ...) have that norm applied to what was pooled, as in their own forward pass.
    A hidden layer that follows in the head is part of the classifier, and is not.

    Args:
        tokens: (B, C), (B, N, C), (B, C, h, w) or, where the model's `output_fmt` is "NHWC",
            (B, h, w, C).
        model: its `prefix_tokens` (class, registers) are not averaged.
        name: of the encoder, for messages.
        kind: one of `POOLS`, or `EARLIER`: "avg", the mean of the patch tokens or of the map;
            "cls", the class token; "both", the two, concatenated; "map", the model's own attention
            pooling.

    Returns:
        (B, C), or (B, 2 C) for "both".

    Raises:
        UserError: the output is something else, or lacks what `kind` pools.
    """
    if not isinstance(tokens, Tensor) or tokens.ndim not in (2, 3, 4):
        found = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise UserError(
            f"domain encoder '{name}' returns {found}, which cannot be pooled: expected tokens "
            "(B, N, C) or a feature map (B, C, h, w). Choose another encoder"
        )
    if kind == EARLIER:
        return _mean(tokens.float(), model, name, _earlier_prefix(model)).flatten(1)
    if kind == "avg":
        return _average(tokens, model, name)
    if tokens.ndim != 3:
        raise UserError(
            f"domain encoder '{name}' returns {tuple(tokens.shape)}, no tokens: pool "
            f"(DOMAIN.POOL) '{kind}' is for transformers with tokens. Use 'avg'"
        )
    check_pool(model, name, kind)
    if kind == "map":
        return _normalised(cast(nn.Module, model.attn_pool)(tokens).float(), model)
    first = _normalised(tokens[:, 0].float(), model)
    if kind == "cls":
        return first
    return torch.cat([first, _average(tokens, model, name)], -1)


def _average(tokens: Tensor, model: nn.Module, name: str) -> Tensor:
    """Return the normalised average of patch tokens or of a feature map: (B, C)."""
    mean = _mean(tokens.float(), model, name, prefix_tokens(model))
    return _normalised(mean, model).flatten(1)


def _mean(tokens: Tensor, model: nn.Module, name: str, prefix: int) -> Tensor:
    """Average tokens without prefix, or a feature map, over space.

    Returns:
        (B, C), or (B, C, 1, 1) of a map with channels first, as norms of maps take it.
    """
    if tokens.ndim == 2:
        return tokens
    if tokens.ndim == 4:
        channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        return tokens.mean((1, 2)) if channels_last else tokens.mean((2, 3), keepdim=True)
    if tokens.shape[1] <= prefix:
        raise UserError(
            f"domain encoder '{name}' returns class tokens alone ({tokens.shape[1]}), no patches "
            "to average: use pool (DOMAIN.POOL) 'cls'"
        )
    return tokens[:, prefix:].mean(1)


def prefix_tokens(model: nn.Module) -> int:
    """Return how many tokens (class, distillation, registers) precede those of the patches."""
    declared = getattr(model, "num_prefix_tokens", None)
    if declared is not None:
        return int(declared)
    token = getattr(model, "cls_token", None)
    if isinstance(token, Tensor):
        return token.shape[1]  # PiT's has one row for each
    return int(has_class_token(model))


def has_class_token(model: nn.Module) -> bool:
    """Return whether a model's first token is a class token; CoaT has one for each stage."""
    own = (name for name, _ in model.named_parameters(recurse=False))
    named = any(name.startswith("cls_token") for name in own)
    return named or getattr(model, "cls_token", None) is not None


def _earlier_prefix(model: nn.Module) -> int:
    """Return how many tokens earlier versions left out."""
    has_attribute = getattr(model, "cls_token", None) is not None
    return int(getattr(model, "num_prefix_tokens", has_attribute))


def differs_from_earlier(model: nn.Module) -> str:
    """Return what earlier versions, which did not record their pooling, did otherwise; or ""."""
    if norm_after_pooling(model) is not None:
        return "left out the norm after the average"
    if prefix_tokens(model) != _earlier_prefix(model):
        return "averaged class tokens among the patches"
    return ""


def check_pool(model: nn.Module, name: str, kind: str) -> None:
    """Refuse (UserError) a pooling for which a model lacks the class token or the layer.

    Args:
        model: the timm model.
        name: of the encoder, for messages.
        kind: as for `pool_features`.
    """
    if kind in ("cls", "both") and not has_class_token(model):
        raise UserError(
            f"domain encoder '{name}' has no class token, which pool (DOMAIN.POOL) '{kind}' needs. "
            "Use 'avg'"
        )
    if kind == "map" and not isinstance(getattr(model, "attn_pool", None), nn.Module):
        raise UserError(
            f"domain encoder '{name}' has no attention pooling, which pool (DOMAIN.POOL) 'map' "
            "needs. Use 'avg' or 'cls'"
        )


def norm_after_pooling(model: nn.Module) -> nn.Module | None:
    """Return the norm that a model applies to what it has pooled; None if there is none."""
    places = (*NORMS, "norm") if _wraps_an_encoder(model) else NORMS
    for norm in map(partial(_submodule, model), places):
        if norm is not None and not isinstance(norm, nn.Identity):
            return norm if _takes_features(norm, model) else None
    return None


def _submodule(model: nn.Module, place: str) -> nn.Module | None:
    """Return the module at a place such as "head.norm"; None if there is none."""
    found: Any = model
    for part in place.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def _wraps_an_encoder(model: nn.Module) -> bool:
    """Return whether a model is a classifier around an encoder: its own norm follows the pooling.

    timm's of Qwen3, DeepSeek and Gemma are.
    """
    return isinstance(getattr(model, "encoder", None), nn.Module)


def _takes_features(norm: nn.Module, model: nn.Module) -> bool:
    """Return whether a norm has the features' width; InceptionNeXt's is of a hidden layer."""
    weight = getattr(norm, "weight", None)
    return not isinstance(weight, Tensor) or len(weight) == getattr(model, "num_features", None)


def _normalised(pooled: Tensor, model: nn.Module) -> Tensor:
    """Apply the norm that a model has after its pooling, if any."""
    norm = norm_after_pooling(model)
    if norm is None:
        return pooled
    dtype = next((p.dtype for p in norm.parameters()), pooled.dtype)
    return norm(pooled.to(dtype)).float()
