"""timm models of published kinds, made small, for tests and benchmarks.

open_clip gives a timm model nothing but its name, so the sizes are put in where timm builds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm

VIT = {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 32}
SIZES: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": VIT,
    "vit_base_patch16_siglip_224": VIT,
    "vit_base_patch16_siglip_384": VIT,
    "vit_large_patch14_clip_224": VIT | {"img_size": 28},
    "eva02_base_patch16_clip_224": VIT,
    "eva_giant_patch14_224": VIT | {"img_size": 28},
    "vit_pe_core_base_patch16_224": VIT,
    "vit_base_mci_224": {"depth": 2, "img_size": 32},
    "vitamin_small_224": {"depth": 2, "img_size": 32},
    "convnext_base": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "fastvit_mci0": {"layers": (1, 1, 1, 1)},
    "fastvit_mci3": {"layers": (1, 1, 1, 1, 1)},
    "fastvit_mci4": {"layers": (1, 1, 1, 1, 1)},
}
# Of other models, by the start of their names.
KINDS = {
    "vitamin": SIZES["vitamin_small_224"],
    "vit_": VIT,
    "eva": VIT,
    "convnext": SIZES["convnext_base"],
    "fastvit": SIZES["fastvit_mci0"],
}


def size_of(name: str) -> dict[str, Any]:
    """Return timm's arguments that make a model small; empty: none are known."""
    if name in SIZES:
        return SIZES[name]
    kind = next((kind for start, kind in KINDS.items() if name.startswith(start)), {})
    patch = re.search(r"patch(\d+)", name)
    return kind | {"img_size": 2 * int(patch[1])} if kind and patch else kind


def image_size(name: str) -> int:
    """Return the pixels per side of a small model's images."""
    size: int = size_of(name).get("img_size", 32)
    return size


def vision_config(name: str, pool: str = "", projection: str | None = None) -> dict[str, Any]:
    """Return the `vision_cfg` of a CLIP with a small timm model in open_clip's layout."""
    return {
        "timm_model_name": name,
        "timm_pool": pool,
        "timm_proj": projection,
        "image_size": image_size(name),
    }


@contextmanager
def small_timm() -> Iterator[None]:
    """Let timm build models small in this context, where `size_of` knows how."""
    build = timm.create_model
    timm.create_model = lambda name, **given: build(name, **{**size_of(name), **given})
    try:
        yield
    finally:
        timm.create_model = build
