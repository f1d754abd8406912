"""What a layout is made of, with the colours of each material in every palette.

A material has one colour per entry of its row. Vegetation has four, in the order of `SEASONS`,
chosen together; every other material takes any entry of its row, independently.
"""

from __future__ import annotations

import enum

SEASONS = ("summer", "autumn", "winter", "dry season")


class Material(enum.IntEnum):
    """Aerial materials first, tissue materials after `ADIPOSE`."""

    GRASS = 0
    MEADOW = enum.auto()
    CROP_A = enum.auto()
    CROP_B = enum.auto()
    CROP_C = enum.auto()
    TREE_A = enum.auto()
    TREE_B = enum.auto()
    FAIRWAY = enum.auto()
    PITCH = enum.auto()
    SAND = enum.auto()
    SOIL = enum.auto()
    ROCK = enum.auto()
    SNOW = enum.auto()
    WATER = enum.auto()
    SHALLOW = enum.auto()
    FOAM = enum.auto()
    ASPHALT = enum.auto()
    CONCRETE = enum.auto()
    GRAVEL = enum.auto()
    PAINT = enum.auto()
    ROOF_A = enum.auto()
    ROOF_B = enum.auto()
    METAL = enum.auto()
    DARK = enum.auto()
    COURT = enum.auto()
    APRON = enum.auto()
    TRACK = enum.auto()
    SEATS = enum.auto()
    CAR_A = enum.auto()
    CAR_B = enum.auto()
    WOOD = enum.auto()
    ADIPOSE = enum.auto()
    WALL = enum.auto()
    PLASMA = enum.auto()
    PINK = enum.auto()
    FIBRE = enum.auto()
    NUCLEUS = enum.auto()
    PALE_NUCLEUS = enum.auto()
    MUCIN = enum.auto()
    LUMEN = enum.auto()
    NECROSIS = enum.auto()


M = Material
VEGETATION = (M.GRASS, M.MEADOW, M.CROP_A, M.CROP_B, M.CROP_C, M.TREE_A, M.TREE_B)

# Relative strength of the grain that a photo-like look gives to a material; 1 where not named.
GRAIN = {
    M.WATER: 0.35, M.SHALLOW: 0.4, M.FOAM: 0.5, M.SNOW: 0.4, M.SAND: 0.7, M.TREE_A: 1.6,
    M.TREE_B: 1.6, M.ROCK: 1.5, M.GRASS: 1.2, M.PAINT: 0.3, M.METAL: 0.3, M.COURT: 0.3,
    M.LUMEN: 0.3, M.ADIPOSE: 0.4, M.NECROSIS: 1.8,
}  # fmt: skip

NATURAL = {
    M.GRASS: ("6fa044", "a99a4c", "e4e8ea", "b8a866"),
    M.MEADOW: ("93b35a", "bd9d52", "cfd2cc", "c9b280"),
    M.CROP_A: ("c9b84e", "9c7440", "d9d6cf", "d0a85c"),
    M.CROP_B: ("4f8a3a", "7d8a3c", "b4b3a2", "a08a4a"),
    M.CROP_C: ("9ec25a", "c98a3c", "eef0f0", "8a6a44"),
    M.TREE_A: ("2f6a34", "b5652b", "4f5a4c", "6a7438"),
    M.TREE_B: ("4a8440", "cf9a35", "7d7a6e", "8d8548"),
    M.FAIRWAY: ("8fcf5a", "a8c25a", "a9c97a", "c3c46a"),
    M.PITCH: ("55a845", "6fae4a", "3f8f4a", "7fb04f"),
    M.SAND: ("e6d39a", "d9b779", "f0e6cc", "cf9464", "cfc6b4", "d98a52"),
    M.SOIL: ("9a7450", "b48a60", "7f6248", "a8613f", "8f8576"),
    M.ROCK: ("8d8881", "7a6a58", "a3805f", "686c74", "8a9078"),
    M.SNOW: ("f4f7fa", "e6edf5"),
    M.WATER: ("2f6fa8", "3a93a8", "4f7f6a", "7a7f5f", "6f8a9c", "1f4f86", "8a7a5a", "58b0c8"),
    M.SHALLOW: ("6fc0c8", "8fb8b0", "9fc3d4"),
    M.FOAM: ("f3f7f7",),
    M.ASPHALT: ("5d6066", "7b7c80", "46484e", "94918c", "a39a8e"),
    M.CONCRETE: ("c2bfb8", "a9a8a4", "d2c9b8", "9aa2a8"),
    M.GRAVEL: ("9b9187", "827a74", "b3a48f", "8d7a68"),
    M.PAINT: ("fafafa", "f4e9b0"),
    M.ROOF_A: ("b5553c", "8d4a3f", "c97f52", "6c7f99", "a8a29a"),
    M.ROOF_B: ("7f8489", "9a5f48", "d6cfc2", "5f7390", "4e7a68"),
    M.METAL: ("f0f0ec", "cfd6da", "e0d8c0", "b8c8b0"),
    M.DARK: ("33363c", "403630", "2b3a44"),
    M.COURT: ("3f77b0", "4f9a5f", "b8603c", "7a5fa0", "3f8f98", "c98a4a", "84878c"),
    M.APRON: ("5a9a5a", "b06a48", "4a6f9c", "9a9c98", "7fae6a", "b99a6a"),
    M.TRACK: ("b5553f", "c4784f", "4f7fae", "8f5a55"),
    M.SEATS: ("b9bcc0", "6f86b0", "a8605a", "d6d2c6", "8a8f7a"),
    M.CAR_A: ("e8e8e8", "c23b33", "d8b23a", "2f66b5"),
    M.CAR_B: ("2e3238", "3c6ea8", "a8332c", "f0f0f0"),
    M.WOOD: ("a4815a", "bdb1a0", "7c6248"),
}

# Near infrared shown as red, red as green, green as blue: plants glow, water swallows it.
INFRARED = {
    M.GRASS: ("c8566a", "d07a86", "b98a94", "bd8f8a"),
    M.MEADOW: ("d68a94", "cf9a98", "c4a6a8", "c7a99c"),
    M.CROP_A: ("d49aa0", "a8b0a8", "b4b4b8", "b8aaa0"),
    M.CROP_B: ("c03a58", "c26a74", "a88a90", "b0766f"),
    M.CROP_C: ("e08a9c", "9fb4b4", "bcbcc0", "a3aaa6"),
    M.TREE_A: ("96203c", "8a3a44", "7a4450", "8f4a4c"),
    M.TREE_B: ("b23a56", "a8545c", "8c6068", "a5605c"),
    M.FAIRWAY: ("e8708c", "de8492"),
    M.PITCH: ("d85a78", "c87a88"),
    M.SAND: ("dcdcc4", "cdd2c0", "c9c8a8"),
    M.SOIL: ("8fa89c", "9ab0a8", "7a9490"),
    M.ROCK: ("84989c", "72888c", "98a09c"),
    M.SNOW: ("e8f0f4",),
    M.WATER: ("14202c", "0c1420", "1c3040", "20303a"),
    M.SHALLOW: ("2c5a6c", "38606c"),
    M.FOAM: ("a8bcc4",),
    M.ASPHALT: ("566e78", "64808c", "4a5c66"),
    M.CONCRETE: ("a4c0c8", "94b0b8", "b4c8cc"),
    M.GRAVEL: ("7c949c", "8aa0a4"),
    M.PAINT: ("d0e4e8",),
    M.ROOF_A: ("a8b48c", "8cc0c4", "9cb0a0"),
    M.ROOF_B: ("78a4b0", "a0b8bc", "688890"),
    M.METAL: ("dcecf0", "b8d4dc"),
    M.DARK: ("283840",),
    M.COURT: ("6c9ca4", "8ab0a0", "5c8490"),
    M.APRON: ("8cb0a8", "7c9ca8", "a4b8a0"),
    M.TRACK: ("b4b080", "90a890"),
    M.SEATS: ("98b8c0", "b0c4c8"),
    M.CAR_A: ("c8dce0", "b0b88c"),
    M.CAR_B: ("3c5058", "8ca0a4"),
    M.WOOD: ("98a490", "b0b8a8"),
}

# Stains: each column of a row belongs to one stain, as seasons do for vegetation.
STAINS = ("H&E", "blue", "brown", "green", "drawn")
TISSUE = (
    M.ADIPOSE, M.WALL, M.PLASMA, M.PINK, M.FIBRE, M.NUCLEUS, M.PALE_NUCLEUS, M.MUCIN, M.LUMEN,
    M.NECROSIS,
)  # fmt: skip
STAINED = {
    M.ADIPOSE: ("f6ecf2", "eef2f6", "f4f0e8", "f0f4ea", "fff3c4"),
    M.WALL: ("c890b4", "8aa4c4", "b09470", "88a888", "c08a3c"),
    M.PLASMA: ("e6b8d0", "c0d0e4", "dccdb8", "cfe0c4", "f4c8b8"),
    M.PINK: ("d886b0", "a8bcd8", "cbb090", "b4cca0", "e8a090"),
    M.FIBRE: ("c46a9c", "7f9cc8", "b08a60", "7fb08a", "d07868"),
    M.NUCLEUS: ("4a2f7c", "1f3a78", "5a3420", "4a3a5c", "3c3c8c"),
    M.PALE_NUCLEUS: ("7c5aa4", "4f6aa8", "8a5c3c", "6c5a84", "6f6fc0"),
    M.MUCIN: ("c8c4e4", "9fd0e0", "d8d8c8", "a8d8cc", "b8dcf0"),
    M.LUMEN: ("faf6f8", "f6f8fa", "faf8f2", "f6faf4", "ffffff"),
    M.NECROSIS: ("cc9098", "98a4b8", "b89a80", "b8b890", "c8b49c"),
}
# Echoes: bright where tissue scatters sound, dark where it lets it through.
ULTRASOUND = {
    M.ADIPOSE: ("303030",), M.WALL: ("a8a8a8",), M.PLASMA: ("505050",), M.PINK: ("585858",),
    M.FIBRE: ("b4b4b4",), M.NUCLEUS: ("dcdcdc",), M.PALE_NUCLEUS: ("a0a0a0",),
    M.MUCIN: ("3c3c3c",), M.LUMEN: ("141414",), M.NECROSIS: ("686868",),
}  # fmt: skip
