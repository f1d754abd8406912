"""Towers of a CLIP: one adapter for each kind of image tower and of text tower.

Which kind a built model has is told from its modules, never from its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from dplq.clip.tokenizer import make_tokenizer, tokenize
from dplq.clip.towers.base import ImageTower, TextTower, Tokenizer
from dplq.clip.towers.clip_text import CausalText
from dplq.clip.towers.clip_vit import ClipViT
from dplq.clip.towers.plain import PlainImage, PlainText
from dplq.clip.towers.timm_vit import TimmViT, is_timm_vit
from dplq.errors import UserError

__all__ = ["ImageTower", "TextTower", "make_image_tower", "make_text_tower"]


def make_image_tower(module: Any) -> ImageTower:
    """Return the adapter of open_clip's image tower."""
    if hasattr(module, "class_embedding") and hasattr(module, "transformer"):
        return ClipViT(module)
    if hasattr(module, "trunk"):
        if is_timm_vit(module.trunk):
            return TimmViT(module)
        kind = type(module.trunk).__name__
        return PlainImage(module, f"its image tower is timm's {kind}, not a plain ViT")
    return PlainImage(module, "its image tower is a ResNet, which has no tokens")


def make_text_tower(model: Any, config: Mapping[str, Any], name: str) -> TextTower:
    """Return the adapter of the text tower of open_clip's model.

    Args:
        model: `CLIP`, `CustomTextCLIP` or `CoCa`.
        config: its text tower's architecture, `text_cfg` of open_clip's model config.
        name: of the model, for messages.
    """
    # In CLIP the tower's parts are attributes of the model.
    text: Any = getattr(model, "text", model)
    prefix = "" if text is model else "text."
    tokenizer = _make_tokenizer(text, config, name)
    if hasattr(text, "pooler"):
        return PlainText(model, tokenizer, "its text tower is Hugging Face's")
    if getattr(text, "cls_emb", None) is not None:
        return PlainText(model, tokenizer, "its text tower appends a class token")
    if text.attn_mask is None:
        return PlainText(model, tokenizer, "its text tower is not causal")
    pool = getattr(text, "text_pool_type" if text is model else "pool_type", "argmax")
    if pool == "eos":
        eos = text.text_eos_id if text is model else text.eos_id
        return CausalText(text, tokenizer, prefix, eos)
    if pool != "argmax":
        return PlainText(model, tokenizer, f"its text tower pools by '{pool}', not at EOT")
    return CausalText(text, tokenizer, prefix)


def _make_tokenizer(text: Any, config: Mapping[str, Any], name: str) -> Tokenizer:
    """Return the tokenizer of a text tower; one that cannot be had fails when it is called."""
    hub = config.get("hf_tokenizer_name") or config.get("hf_model_name")
    if hub:
        return partial(_refuse, f"'{name}': its tokenizer is {hub}, not CLIP's")
    tokenizer = make_tokenizer((config.get("tokenizer_kwargs") or {}).get("clean", "lower"))
    words = text.token_embedding.num_embeddings
    if words != tokenizer.vocab_size:
        reason = f"it has {words} words, CLIP's tokenizer {tokenizer.vocab_size}"
        return partial(_refuse, f"'{name}' cannot encode texts: {reason}")
    return partial(tokenize, tokenizer, length=text.context_length, model=name)


def _refuse(reason: str, texts: Sequence[str]) -> Tensor:
    raise UserError(reason)
