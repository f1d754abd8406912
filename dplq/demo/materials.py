"""What a layout is made of; ``palettes.yaml`` has the colours of each material.

A material has one colour per entry of its row. Vegetation has four, in the order of `SEASONS`,
chosen together; every other material takes any entry of its row, independently.
"""

from __future__ import annotations

import enum
import functools
from pathlib import Path

import yaml

PALETTES = Path(__file__).with_name("palettes.yaml")
SEASONS = ("summer", "autumn", "winter", "dry season")
_AERIAL = """
    GRASS MEADOW CROP_A CROP_B CROP_C TREE_A TREE_B FAIRWAY PITCH SAND SOIL ROCK SNOW
    WATER SHALLOW FOAM ASPHALT CONCRETE GRAVEL PAINT ROOF_A ROOF_B METAL DARK COURT
    APRON TRACK SEATS CAR_A CAR_B WOOD
"""
_TISSUE = """
    ADIPOSE WALL PLASMA PINK FIBRE NUCLEUS PALE_NUCLEUS MUCIN LUMEN NECROSIS
"""
Material = enum.IntEnum("Material", (_AERIAL + _TISSUE).split(), start=0)
M = Material
VEGETATION = (M.GRASS, M.MEADOW, M.CROP_A, M.CROP_B, M.CROP_C, M.TREE_A, M.TREE_B)

# Relative strength of the grain that a photo-like look gives to a material; 1 where not named.
GRAIN = {
    M.WATER: 0.35, M.SHALLOW: 0.4, M.FOAM: 0.5, M.SNOW: 0.4, M.SAND: 0.7, M.TREE_A: 1.6,
    M.TREE_B: 1.6, M.ROCK: 1.5, M.GRASS: 1.2, M.PAINT: 0.3, M.METAL: 0.3, M.COURT: 0.3,
    M.LUMEN: 0.3, M.ADIPOSE: 0.4, M.NECROSIS: 1.8,
}  # fmt: skip

# Each colour of a tissue material belongs to one stain, as those of vegetation do to seasons.
STAINS = ("H&E", "blue", "brown", "green", "drawn")
TISSUE = tuple(M[name] for name in _TISSUE.split())


@functools.cache
def _palettes() -> dict[str, dict[str, str]]:
    return yaml.safe_load(PALETTES.read_text(encoding="utf-8"))


def palette(name: str) -> dict[Material, tuple[str, ...]]:
    """The colours of each material, hexadecimal, in one palette of ``palettes.yaml``."""
    rows = _palettes()[name].items()
    return {Material[material]: tuple(colours.split()) for material, colours in rows}
