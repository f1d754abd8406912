"""Towers that encode images and texts, and take no prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from dplq.clip.towers.base import ImageTower, TextTower, Tokenizer


class PlainImage(ImageTower):
    """An image tower without tokens that prompts can join, such as a ResNet's.

    Args:
        module: images (B, 3, H, W) to features (B, d).
        lacks: why it takes no prompts.
    """

    def __init__(self, module: nn.Module, lacks: str) -> None:
        super().__init__(module)
        self.lacks = self.lacks_blocks = lacks

    def encode(
        self, images: Tensor, prompts: Tensor | None = None, deep_prompts: Sequence[Tensor] = ()
    ) -> Tensor:
        """Return the tower's own features."""
        assert prompts is None  # Backbone refuses them
        features = self.module(images)
        return features[0] if isinstance(features, tuple) else features


class PlainText(TextTower):
    """A text tower that encodes whole texts by open_clip's own forward pass.

    Args:
        model: open_clip's CLIP.
        tokenizer: texts to ids.
        lacks: why it takes no prompts.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, lacks: str) -> None:
        super().__init__(model, tokenizer)
        text: Any = getattr(model, "text", model)
        self.context_length = text.context_length
        self.lacks = self.lacks_blocks = lacks

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return features of ids (N, L)."""
        model: Any = self.module
        features = model.text(tokens) if hasattr(model, "text") else model.encode_text(tokens)
        return features[0] if isinstance(features, tuple) else features
