"""Materials of the drawn scenes, and their colours in ``palettes.yaml``.

A material has one colour per entry of its row. Vegetation has four, in the order of `SEASONS`,
chosen together; for every other material an entry of its row is drawn independently.
"""

from __future__ import annotations

import enum
import functools
from pathlib import Path

import yaml

PALETTE_FILE = Path(__file__).with_name("palettes.yaml")
SEASONS = ("summer", "autumn", "winter", "dry season")


class Material(enum.IntEnum):
    """Material of a pixel: of aerial scenes, then of tissue, from `ADIPOSE` on."""

    GRASS = 0
    MEADOW = 1
    CROP_A = 2
    CROP_B = 3
    CROP_C = 4
    TREE_A = 5
    TREE_B = 6
    FAIRWAY = 7
    PITCH = 8
    SAND = 9
    SOIL = 10
    ROCK = 11
    SNOW = 12
    WATER = 13
    SHALLOW = 14
    FOAM = 15
    ASPHALT = 16
    CONCRETE = 17
    GRAVEL = 18
    PAINT = 19
    ROOF_A = 20
    ROOF_B = 21
    METAL = 22
    DARK = 23
    COURT = 24
    APRON = 25
    TRACK = 26
    SEATS = 27
    CAR_A = 28
    CAR_B = 29
    WOOD = 30
    ADIPOSE = 31
    WALL = 32
    PLASMA = 33
    PINK = 34
    FIBRE = 35
    NUCLEUS = 36
    PALE_NUCLEUS = 37
    MUCIN = 38
    LUMEN = 39
    NECROSIS = 40


M = Material
VEGETATION = (M.GRASS, M.MEADOW, M.CROP_A, M.CROP_B, M.CROP_C, M.TREE_A, M.TREE_B)

# Relative strength of the grain of a material in a photo-like look; 1 where not named.
GRAIN = {
    M.WATER: 0.35, M.SHALLOW: 0.4, M.FOAM: 0.5, M.SNOW: 0.4, M.SAND: 0.7, M.TREE_A: 1.6,
    M.TREE_B: 1.6, M.ROCK: 1.5, M.GRASS: 1.2, M.PAINT: 0.3, M.METAL: 0.3, M.COURT: 0.3,
    M.LUMEN: 0.3, M.ADIPOSE: 0.4, M.NECROSIS: 1.8,
}  # fmt: skip

# Each colour of a tissue material belongs to one stain, as those of vegetation do to seasons.
STAINS = ("H&E", "blue", "brown", "green", "drawn")
TISSUE = tuple(material for material in Material if material >= M.ADIPOSE)


@functools.cache
def _palettes() -> dict[str, dict[str, str]]:
    """Load ``palettes.yaml``: palette, material, colours in one string."""
    return yaml.safe_load(PALETTE_FILE.read_text(encoding="utf-8"))


def palette(name: str) -> dict[Material, tuple[str, ...]]:
    """Return the hexadecimal colours of each material in a palette of ``palettes.yaml``."""
    rows = _palettes()[name].items()
    return {Material[material]: tuple(colours.split()) for material, colours in rows}
