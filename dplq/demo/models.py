"""The demo's two models: architectures, and the weights that are part of this package.

This is a packaged model of `dplq.io.packaged`, which is imported by its name only. Such a module
offers, in this order of use:

* `SIZE` (pixels per side of both models' input) and `ASSETS` (the folder of the weights);
* for the CLIP, `CLIP_CONFIG` (arguments of `open_clip.CLIP`), `CLIP_FILE`, and `expand_tokens`,
  which turns the file's tensors into a state dict;
* for the domain encoder, `DOMAIN_ARCHITECTURE` (timm's name), `DOMAIN_CONFIG` (what differs from
  it) and `DOMAIN_FILE`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ASSETS = Path(__file__).resolve().parent / "assets"
CLIP_FILE = "clip.safetensors"
DOMAIN_FILE = "domain_encoder.safetensors"
SIZE = 64  # pixels per side
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": SIZE,
        "patch_size": 8,
        "width": 128,
        "layers": 6,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 6,
    },
}
DOMAIN_ARCHITECTURE = "vit_tiny_patch16_224"
DOMAIN_CONFIG: dict[str, Any] = {
    "img_size": SIZE,
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 4,
    "num_heads": 4,
}
TABLE, ROWS, FILLED = "token_embedding.weight", "token_embedding.rows", "token_embedding.filled"


def compact_tokens(state: Mapping[str, Tensor], used: Iterable[int]) -> dict[str, Tensor]:
    """Keep only the embeddings of the tokens `used` in training; undone by `expand_tokens`."""
    rows = torch.tensor(sorted(used))
    compact = {key: value for key, value in state.items() if key not in (TABLE, "attn_mask")}
    return compact | {ROWS: state[TABLE][rows], FILLED: rows}


def expand_tokens(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a full state dict; unused tokens have small random embeddings, always the same.

    A state dict that is full already is returned unchanged.
    """
    if ROWS not in state:
        return dict(state)
    shape = (CLIP_CONFIG["text_cfg"]["vocab_size"], CLIP_CONFIG["text_cfg"]["width"])
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    table[state[FILLED]] = state[ROWS].to(table.dtype)
    return {key: v for key, v in state.items() if key not in (ROWS, FILLED)} | {TABLE: table}
