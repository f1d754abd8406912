"""Towers of a CLIP: one adapter for each kind of image tower and of text tower.

Which kind a built model has is told from its modules, never from its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from dplq.clip.hub_tokenizer import HubTokenizer, tokenizer_files
from dplq.clip.tokenizer import ClipTokenizer, make_tokenizer
from dplq.clip.towers.base import ImageTower, TextTower, Tokenizer
from dplq.clip.towers.clip_text import CausalText
from dplq.clip.towers.clip_vit import ClipViT
from dplq.clip.towers.hf_text import HFText
from dplq.clip.towers.open_text import BidirectionalText, ClassTokenText, HubCausalText
from dplq.clip.towers.plain import PlainImage, PlainText
from dplq.clip.towers.timm_vit import TimmViT, is_timm_vit
from dplq.errors import UserError

DEFAULT_LENGTH = 77  # open_clip's, where a config gives none
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


def make_text_tower(
    model: Any, config: Mapping[str, Any], name: str, folder: Path | None = None
) -> TextTower:
    """Return the adapter of the text tower of open_clip's model.

    Args:
        model: `CLIP`, `CustomTextCLIP` or `CoCa`.
        config: its text tower's architecture, `text_cfg` of open_clip's model config.
        name: of the model, for messages.
        folder: of the model, which may hold its tokenizer's files.
    """
    # In CLIP the tower's parts are attributes of the model.
    text: Any = getattr(model, "text", model)
    prefix = "" if text is model else "text."
    tokenizer = _make_tokenizer(text, config, name, folder)
    if hasattr(text, "pooler"):
        return HFText(text, tokenizer, _context_length(config))
    if getattr(text, "cls_emb", None) is not None:
        return ClassTokenText(text, tokenizer, prefix)
    pool = getattr(text, "text_pool_type" if text is model else "pool_type", "argmax")
    if text.attn_mask is None:
        return BidirectionalText(text, tokenizer, pool)
    if pool not in ("eos", "argmax"):
        return PlainText(model, tokenizer, f"its text tower pools by '{pool}', not at EOT")
    eos = None
    if pool == "eos":
        eos = text.text_eos_id if text is model else text.eos_id
    if isinstance(tokenizer, HubTokenizer):  # its texts may begin with other markers than CLIP's
        return HubCausalText(text, tokenizer, prefix, eos)
    return CausalText(text, tokenizer, prefix, eos)


def _make_tokenizer(
    text: Any, config: Mapping[str, Any], name: str, folder: Path | None
) -> Tokenizer:
    """Return the tokenizer of a text tower; one that cannot be had fails when it is called."""
    options = config.get("tokenizer_kwargs") or {}
    hub = config.get("hf_tokenizer_name") or config.get("hf_model_name")
    if hub:
        length, mode = _context_length(config), config.get("tokenizer_mode") or ""
        if folder is None and tokenizer_files(Path(hub)):  # beside the weights of a published model
            folder = Path(hub)
        return HubTokenizer(hub, length, name, folder=folder, mode=mode, options=options)
    tokenizer = make_tokenizer(options.get("clean", "lower"))
    words = text.token_embedding.num_embeddings
    if words != tokenizer.vocab_size:
        reason = f"it has {words} words, CLIP's tokenizer {tokenizer.vocab_size}"
        return partial(_refuse, f"'{name}' cannot encode texts: {reason}")
    return ClipTokenizer(tokenizer, text.context_length, name)


def _context_length(config: Mapping[str, Any]) -> int:
    """Return the tokens of a text; open_clip's number where the config has none."""
    return int(config.get("context_length") or DEFAULT_LENGTH)


def _refuse(reason: str, texts: Sequence[str]) -> Tensor:
    raise UserError(reason)
