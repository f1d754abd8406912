"""Where in an image a model finds a class: gradient-weighted attention, or Grad-CAM.

Towers of tokens: Chefer et al., "Generic attention-model explainability for interpreting bi-modal
and encoder-decoder transformers" (ICCV 2021), its rule for self-attention. Towers of feature maps:
Selvaraju et al., "Grad-CAM" (ICCV 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dplq.clip.towers import ImageTower
from dplq.errors import UserError
from dplq.explain.feature_map import last_feature_map
from dplq.explain.tower import AttentionCalls, Encode, replaced_encode
from dplq.methods.base import CLIPModel
from dplq.methods.labels import check_labels

CHUNK = 4  # images whose attention is held at once: of ViT-L/14@336px about 0.5 GB each


def attention_map(
    model: CLIPModel, images: Tensor, labels: Tensor | Sequence[int] | None = None
) -> Tensor:
    """Return how much every place of an image speaks for a class.

    In a tower of tokens the attention of every layer is weighted by its gradient of the class's
    logit; what is positive is averaged over the heads and followed through the layers from the
    pooled token to the patches. Prompts replaced before a layer carry nothing of the image. In a
    ResNet or a ConvNeXt the last feature map's channels are weighted by their mean gradient.

    Only the path through CLIP's image tower counts: not the domain feature, nor what a method
    computes without gradients, such as the head of QuaternionPrompt.

    Args:
        model: of any method whose logits depend on CLIP's image tower.
        images: (B, 3, H, W), CLIP-normalised.
        labels: a class for each image, (B,) long; None: the predicted one.

    Returns:
        (B, H, W) float32, each map from 0 to 1; all 0 where nothing speaks for the class.

    Raises:
        UserError: labels of another number or out of range, or no gradient reaches the tower.
    """
    classes = len(model.classnames)
    chosen = None if labels is None else check_labels(labels, images, classes)
    found = []
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        found.append(_maps(model, images[part], None if chosen is None else chosen[part]))
    if not found:
        raise UserError("attention_map: images is empty; give at least one.")
    return _scaled(torch.cat(found), images.shape[-2:])


def _scaled(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps (B, h, w) at the images' size, each from 0 to 1."""
    maps = F.interpolate(maps[:, None].float(), tuple(size), mode="bilinear", align_corners=False)
    low, high = (bound(maps, dim=(1, 2, 3), keepdim=True) for bound in (torch.amin, torch.amax))
    span = high - low
    return torch.where(span > 0, (maps - low) / span.where(span > 0, torch.ones(())), 0.0)[:, 0]


def _maps(model: CLIPModel, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return maps (B, h, w) of the tower's own resolution, not scaled."""
    tower = model.clip.image
    if not tower.layers:
        return _grad_cam(model, images, labels)
    calls, given = AttentionCalls(record=True), dict[str, Any]()

    def recording(encode: Encode) -> Encode:
        def run(pixels: Tensor, prompts: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Any:
            if not torch.is_grad_enabled():  # what a method computes beside its logits
                return encode(pixels, prompts, deep)
            if calls.count:
                raise UserError(
                    f"{model.method} runs CLIP's image tower more than once for an image: "
                    "its attention cannot be followed."
                )
            given.update(prompts=prompts, deep=deep)
            with calls:
                return encode(pixels, prompts, deep)

        return run

    with replaced_encode(tower, recording):
        score = _score(model, images, labels)
    gradients = _gradients(model, score, calls.probabilities)
    if len(gradients) < tower.layers:
        raise UserError(
            f"{len(gradients)} attention calls were found in the {tower.layers} layers of the "
            f"image tower of {model.clip.spec.name}: its attention cannot be recorded. With timm, "
            "TIMM_FUSED_ATTN must not be 0."
        )
    prompts = given["prompts"]
    count = 0 if prompts is None else prompts.shape[-2]
    replaced = [len(deep[0]) > 0 if deep.dim() == 3 else len(deep) > 0 for deep in given["deep"]]
    weighted = [
        (attention.detach() * gradient).clamp(min=0).mean(dim=1)
        for attention, gradient in zip(calls.probabilities, gradients, strict=True)
    ]
    return _grid(relevance(weighted, tower, count, replaced), tower)


def _score(model: CLIPModel, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return the sum of the chosen classes' logits, with its graph.

    The whole model chooses; the logits are those that gradients train.
    """
    if labels is None:
        with torch.no_grad():
            labels = model(images).argmax(dim=1)
    with torch.enable_grad(), model.gradient_part():
        return model(images).gather(1, labels[:, None]).sum()


def _gradients(model: CLIPModel, score: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a score; ones where a copy outside its graph was recorded.

    Raises:
        UserError: it does not depend on them.
    """
    inputs = [tensor for tensor in tensors if tensor.requires_grad]
    if not inputs or not score.requires_grad:
        raise UserError(
            f"The logits of this {model.method} model do not depend, by a gradient, on CLIP's "
            "image tower: there is no attention to show."
        )
    found = iter(torch.autograd.grad(score, inputs))
    return [next(found) if t.requires_grad else torch.ones_like(t) for t in tensors]


def relevance(
    weighted: Sequence[Tensor], tower: ImageTower, prompts: int, replaced: Sequence[bool]
) -> Tensor:
    """Return the relevance of the image's own tokens for what the tower pools.

    Args:
        weighted: of each call, the heads' mean of the positive part of attention times gradient,
            (B, queries, keys): all tokens in the tower's layers, the pooled ones alone in the last
            of CLIP's own ViT, and the queries of a pooling by attention, if there is one.
        tower: tells how it pools.
        prompts: number of prompt tokens, behind the image's own.
        replaced: whether the prompts were replaced before the layers 1, 2, ....

    Returns:
        (B, tokens without prompts).
    """
    batch, _, tokens = weighted[0].shape
    identity = torch.eye(tokens, device=weighted[0].device, dtype=weighted[0].dtype)
    paths = identity.expand(batch, -1, -1)
    own = tokens - prompts
    for layer, weights in enumerate(weighted[: tower.layers]):
        if 0 < layer <= len(replaced) and replaced[layer - 1]:
            fresh = identity[own:].expand(batch, -1, -1)
            paths = torch.cat([paths[:, :own], fresh], dim=1)
        paths = paths[:, : weights.shape[1]] + weights @ paths
    for weights in weighted[tower.layers :]:  # by attention, of the image's own tokens
        paths = weights @ paths[:, : weights.shape[2]]
    if len(weighted) > tower.layers or not pools_first_token(tower):
        return paths[:, : own if len(weighted) == tower.layers else None, :own].mean(dim=1)
    return paths[:, 0, :own]


def pools_first_token(tower: Any) -> bool:
    """Return whether a tower's feature is its first token, not an average."""
    if hasattr(tower, "pools_class_token"):
        return tower.pools_class_token
    return getattr(tower.module.trunk, "global_pool", "token") in ("", "token")


def _grid(tokens: Tensor, tower: ImageTower) -> Tensor:
    """Return the relevance of the patches (B, h, w) of that of all tokens (B, T)."""
    side = int(tokens.shape[1] ** 0.5)  # class and register tokens are fewer than a row of patches
    return tokens[:, tokens.shape[1] - side * side :].unflatten(1, (side, side))


def _grad_cam(model: CLIPModel, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return Grad-CAM (B, h, w) of the last feature map of a tower without tokens."""
    maps: list[Tensor] = []

    def recording(encode: Encode) -> Encode:
        def run(*arguments: Any) -> Tensor:
            if not torch.is_grad_enabled():
                return encode(*arguments)
            with last_feature_map(model.clip.image.module, model.clip.spec.name) as found:
                features = encode(*arguments)
            maps.append(found[-1])
            return features

        return run

    with replaced_encode(model.clip.image, recording):
        score = _score(model, images, labels)
    (gradient,) = _gradients(model, score, maps[-1:])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps[-1].detach()).sum(dim=1).clamp(min=0)
