"""Pooling of a network's tokens or feature map to one feature per image."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from dplq.errors import UserError

POOLS = ("avg", "cls", "both", "map")
WITHOUT_NORM = "mean"  # the average without `fc_norm`, as in checkpoints of earlier versions


def pool_features(tokens: Any, model: nn.Module, name: str, kind: str = "avg") -> Tensor:
    """Pool the output of a timm model's `forward_features`, in fp32.

    Models that are normalised after pooling (`fc_norm`: BEiT, EVA02, fine-tuned MAE) have that
    norm applied to what was pooled, as in their own forward pass.

    Args:
        tokens: (B, C), (B, N, C), (B, C, h, w) or, where the model's `output_fmt` is "NHWC",
            (B, h, w, C).
        model: its `num_prefix_tokens` (class, registers) are not averaged.
        name: of the encoder, for messages.
        kind: one of `POOLS`, or `WITHOUT_NORM`: "avg", the mean of the patch tokens or of the map;
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
    if kind == WITHOUT_NORM:
        return _mean(tokens.float(), model)
    if kind == "avg":
        return _normalised(_mean(tokens.float(), model), model)
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
    return torch.cat([first, _normalised(_mean(tokens.float(), model), model)], -1)


def _mean(tokens: Tensor, model: nn.Module) -> Tensor:
    """Average tokens without prefix, or a feature map, over space: (B, C)."""
    if tokens.ndim == 2:
        return tokens
    if tokens.ndim == 4:
        channels_last = str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
        return tokens.mean((1, 2) if channels_last else (2, 3))
    has_class_token = getattr(model, "cls_token", None) is not None
    return tokens[:, getattr(model, "num_prefix_tokens", int(has_class_token)) :].mean(1)


def check_pool(model: nn.Module, name: str, kind: str) -> None:
    """Refuse (UserError) a pooling for which a model lacks the class token or the layer.

    Args:
        model: the timm model.
        name: of the encoder, for messages.
        kind: as for `pool_features`.
    """
    if kind in ("cls", "both") and getattr(model, "cls_token", None) is None:
        raise UserError(
            f"domain encoder '{name}' has no class token, which pool (DOMAIN.POOL) '{kind}' needs. "
            "Use 'avg'"
        )
    if kind == "map" and not isinstance(getattr(model, "attn_pool", None), nn.Module):
        raise UserError(
            f"domain encoder '{name}' has no attention pooling, which pool (DOMAIN.POOL) 'map' "
            "needs. Use 'avg' or 'cls'"
        )


def has_norm_after_pooling(model: nn.Module) -> bool:
    """Return whether a model has a norm after its pooling."""
    norm = getattr(model, "fc_norm", None)
    return isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity)


def _normalised(pooled: Tensor, model: Any) -> Tensor:
    """Apply the norm that a model has after its pooling, if any."""
    if not has_norm_after_pooling(model):
        return pooled
    norm = model.fc_norm
    dtype = next((p.dtype for p in norm.parameters()), pooled.dtype)
    return norm(pooled.to(dtype)).float()
