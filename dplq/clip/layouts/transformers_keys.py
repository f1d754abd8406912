"""Layouts of the transformers library: `CLIPModel` and `SiglipModel`."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from dplq.clip.layouts.layout import Layout, transpose

TEXT_BLOCKS, IMAGE_BLOCKS = "text_model.encoder.layers.", "vision_model.encoder.layers."

# A block of transformers in open_clip's own towers ...
RESBLOCK = {
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.out_proj.": "attn.out_proj.",
    **{f"self_attn.{part}_proj.": "attn.in_proj_" for part in "qkv"},
}
# ... and in a ViT of timm.
TIMM_BLOCK = {
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "self_attn.out_proj.": "attn.proj.",
    **{f"self_attn.{part}_proj.": "attn.qkv." for part in "qkv"},
}
TEXT = {
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
}

TRANSFORMERS_CLIP = Layout(
    "transformers' CLIPModel",
    mark="vision_model.pre_layrnorm.",  # transformers' spelling
    names={
        **TEXT,
        "text_projection.weight": "text_projection",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.": "visual.conv1.",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.": "visual.ln_pre.",
        "vision_model.post_layernorm.": "visual.ln_post.",
        "visual_projection.weight": "visual.proj",
    },
    towers={
        TEXT_BLOCKS: ("transformer.resblocks.", RESBLOCK),
        IMAGE_BLOCKS: ("visual.transformer.resblocks.", RESBLOCK),
    },
    changes={"text_projection.weight": transpose, "visual_projection.weight": transpose},
)

POOL = "visual.trunk.attn_pool."


def _split_pool(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the packed q, k and v of the pooling head: timm packs k and v only."""
    for leaf in ("weight", "bias"):
        packed = state.pop(f"{POOL}in_proj_{leaf}", None)
        if packed is not None:
            query, key, value = packed.chunk(3)
            state |= {f"{POOL}q.{leaf}": query, f"{POOL}kv.{leaf}": torch.cat([key, value])}
    return state


TRANSFORMERS_SIGLIP = Layout(
    "transformers' SiglipModel",
    mark="vision_model.head.probe",
    names={
        **TEXT,
        "text_model.head.": "text_projection.",
        "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
        "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
        "vision_model.post_layernorm.": "visual.trunk.norm.",
        "vision_model.head.probe": f"{POOL}latent",
        "vision_model.head.attention.out_proj.": f"{POOL}proj.",
        "vision_model.head.attention.": POOL,
        "vision_model.head.layernorm.": f"{POOL}norm.",
        "vision_model.head.": POOL,
    },
    towers={
        TEXT_BLOCKS: ("transformer.resblocks.", RESBLOCK),
        IMAGE_BLOCKS: ("visual.trunk.blocks.", TIMM_BLOCK),
    },
    changes={"vision_model.embeddings.position_embedding.weight": partial(torch.unsqueeze, dim=0)},
    split=_split_pool,
    act="gelu_tanh",
)
