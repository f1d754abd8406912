"""CONCH: its architecture, which open_clip has not, and the layout of its weights.

A CoCa whose image tower is a timm ViT under two attention poolers. Zero-shot classification needs
one of them and the text tower; what captions are generated with is not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dplq.clip.installed import open_clip
from dplq.clip.layouts.layout import Layout
from dplq.clip.layouts.transformers_config import Described, set_timm_size

NAME = "conch_ViT-B-16"  # as conch.open_clip_custom.create_model has it

# conch/open_clip_custom/model_configs/conch_ViT-B-16.json in open_clip's terms: one text position
# fewer, as open_clip adds that of the class token.
CONFIG: Mapping[str, Any] = {
    "embed_dim": 512,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 448,
        "timm_model_name": "vit_base_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "",  # all tokens: the pooler is the head
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 127,
        "vocab_size": 32007,
        "width": 768,
        "heads": 12,
        "layers": 12,
        "embed_cls": True,
        "hf_tokenizer_name": "MahmoodLab/conch",
    },
}
HEADS = 8  # of the pooler, whatever the config says: its code does not pass it on

POOLER, NORM, PROJECTION = "attn_pool_contrast", "ln_contrast", "proj_contrast"
CONCH = Layout(
    "CONCH",
    mark=f"visual.{POOLER}.",
    names={f"visual.{name}": f"visual.head.{name}" for name in (POOLER, NORM, PROJECTION)},
    towers={},
    changes={},
    unused=("visual.attn_pool_caption.", "visual.ln_caption.", "text_decoder."),
)


class PoolingHead(nn.Module):
    """Attention pooling by one query, norm and projection.

    Args:
        width: of the image's tokens, d_v.
        embed_dim: joint width d.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        pooler = open_clip("transformer").AttentionalPooler
        self.attn_pool_contrast = pooler(embed_dim, width, n_head=HEADS, n_queries=1)
        self.ln_contrast = nn.LayerNorm(embed_dim)
        self.proj_contrast = nn.Parameter(width**-0.5 * torch.randn(embed_dim, embed_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return features (B, d) of an image's normalised tokens (B, L, d_v)."""
        pooled = self.attn_pool_contrast(tokens)[:, 0]
        return self.ln_contrast(pooled) @ self.proj_contrast


def describe() -> Described:
    """Return CONCH's architecture; its statistics are OpenAI's."""
    return Described({key: _copy(value) for key, value in CONFIG.items()}, {}, _finish)


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _finish(model: nn.Module) -> None:
    visual: Any = model.get_submodule("visual")
    set_timm_size(visual, CONFIG["vision_cfg"]["image_size"])
    visual.head = PoolingHead(visual.trunk.embed_dim, CONFIG["embed_dim"])
