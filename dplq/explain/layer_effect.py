"""How much the prompts of each layer change the features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dplq.errors import UserError
from dplq.explain.tower import AttentionCalls, Encode, replaced_encode
from dplq.methods.base import CLIPModel, PromptedCLIP, Prompts

TEXT_IMAGES = 4  # first ones, whose texts are compared where these depend on the image


@dataclass(frozen=True)
class LayerEffect:
    """What changes when the prompts of one layer are hidden.

    Attributes:
        layer: from 0.
        image: mean cosine distance between the image features with and without; None where the
            image tower has no prompts of its own in the layer.
        changed: share of the images whose predicted class changes with the image feature; None as
            before.
        text: mean cosine distance between the text features; None where the text tower has no
            prompts of its own in the layer, or class names stand inside or before the context.
    """

    layer: int
    image: float | None
    changed: float | None
    text: float | None


@torch.no_grad()
def layer_effects(model: CLIPModel, images: Tensor) -> list[LayerEffect]:
    """Return the effect of hiding the prompts of each layer that has its own.

    In one layer at a time the other tokens (patches and class token; the other words) do not attend
    to the prompt tokens. All else is as it was: the prompts of the other layers, and what the
    prompt tokens themselves become. The distances of the layers do not add up to that of hiding all
    prompts, as later layers compensate for earlier ones; a small one says that the layer's
    prompts can be removed alone without much effect, not that they learned nothing.

    Predictions are those of image and text feature, without what a method adds to the logits.

    Args:
        model: of a method that makes prompts; in eval mode.
        images: (B, 3, H, W), CLIP-normalised.

    Raises:
        UserError: the method has no prompts, or images is empty.
    """
    if not isinstance(model, PromptedCLIP):
        raise UserError(f"{model.method} has no prompts, whose effect to show.")
    if not len(images):
        raise UserError("images is empty; give at least one.")
    prompts = model.prompts(images)
    image = _image_effects(model, images, prompts)
    text = _text_effects(model, prompts)
    layers = sorted({*image, *text})
    found = []
    for layer in layers:
        distance, changed = image.get(layer, (None, None))
        found.append(LayerEffect(layer, distance, changed, text.get(layer)))
    return found


def _own_layers(deep: Sequence[Tensor]) -> list[int]:
    """Return the layers with prompts of their own, where layer 0 has some."""
    return [0, *(layer for layer, rows in enumerate(deep, 1) if rows.shape[-2])]


def _image_effects(
    model: PromptedCLIP, images: Tensor, prompts: Prompts
) -> dict[int, tuple[float, float]]:
    """Return by layer the mean cosine distance, and the share of changed predictions."""
    if prompts.vision is None:
        return {}
    text, features = model.text_features(prompts), model.image_features(images, prompts)
    guess = model.logits(features, text).argmax(dim=1)
    effects = {}
    for layer in _own_layers(prompts.deep_vision):
        with replaced_encode(model.clip.image, hiding_prompts({layer})):
            hidden = model.image_features(images, prompts)
        changed = model.logits(hidden, text).argmax(dim=1) != guess
        effects[layer] = (_distance(features, hidden), changed.float().mean().item())
    return effects


def hiding_prompts(layers: set[int]) -> Callable[[Encode], Encode]:
    """Return how `encode` of an image tower hides its prompts in some layers."""

    def make(encode: Encode) -> Encode:
        def run(pixels: Tensor, prompts: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Any:
            if prompts is None:
                return encode(pixels, prompts, deep)
            count = prompts.shape[-2]

            def hide(call: int, queries: int, keys: int) -> Tensor | None:
                if call not in layers:
                    return None
                return _hidden(queries, keys, keys - count, keys)

            with AttentionCalls(hide=hide):
                return encode(pixels, prompts, deep)

        return run

    return make


def _text_effects(model: PromptedCLIP, prompts: Prompts) -> dict[int, float]:
    """Return by layer the mean cosine distance of the text features."""
    if prompts.language is None or model.order is not None:
        return {}  # no context, or one whose place differs by class
    prompts = replace(prompts, language=prompts.language[:TEXT_IMAGES])
    features, start, effects = model.text_features(prompts), model.clip.prompt_start, {}
    for layer in _own_layers(prompts.deep_text):

        def hide(call: int, queries: int, keys: int, layer: int = layer) -> Tensor | None:
            if call % model.clip.text_layers != layer:  # texts may run in several chunks
                return None
            return _hidden(queries, keys, start, start + model.n_ctx)

        calls = AttentionCalls(hide=hide)
        with calls:
            hidden = model.text_features(prompts)
        if calls.count % model.clip.text_layers or not calls.count:
            return {}  # a tower whose attention is computed by other functions
        effects[layer] = _distance(features, hidden)
    return effects


def _hidden(queries: int, keys: int, first: int, last: int) -> Tensor:
    """Return that prompts at the positions from `first` to `last` are seen by themselves alone."""
    hidden = torch.zeros(queries, keys, dtype=torch.bool)
    hidden[:, first:last] = True
    if queries == keys:
        hidden[first:last] = False
    return hidden


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the mean cosine distance of L2-normalised features (..., d)."""
    # Equal to 1 minus the cosine, without its rounding error where they are almost the same.
    return ((one - other).square().sum(dim=-1) / 2).mean().item()
