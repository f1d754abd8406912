"""The demo's classes, and `render`: a picture determined by (class, look, seed)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dplq.demo import looks, scenes, tissue
from dplq.demo.canvas import SIDE, Canvas
from dplq.errors import UserError, suggest

AERIAL_CLASSES = tuple(scenes.SCENES)
TISSUE_CLASSES = tuple(tissue.SCENES)
LOOKS = ("general", "domain")
_SCENES = {name: ("aerial", draw) for name, draw in scenes.SCENES.items()} | {
    name: ("tissue", draw) for name, draw in tissue.SCENES.items()
}


@dataclass(frozen=True)
class Picture:
    """A rendered scene and the facts that a caption may mention.

    Attributes:
        image: RGB, size x size.
        facts: ``family``, ``look``, ``style``, ``season``, ``colours`` (names, largest area
            first), ``counts`` (noun -> number), ``clutter`` (nouns).
    """

    image: Image.Image
    facts: dict


def _generator(*key: object) -> np.random.Generator:
    """Return a generator seeded by the key's text, the same on every machine."""
    text = "|".join(str(part) for part in key)
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def draw_scene(classname: str, seed: int) -> Canvas:
    """Draw the materials of a scene, which both looks of a (class, seed) share.

    Raises:
        UserError: the class is not one of the demo's.
    """
    if classname not in _SCENES:
        raise UserError(f"Unknown demo class '{classname}'.{suggest(classname, _SCENES)}")
    canvas = Canvas(_generator("layout", classname, seed))  # the key decides every picture
    _SCENES[classname][1](canvas)
    return canvas


def render(classname: str, look: str, seed: int, size: int = 64) -> Picture:
    """Draw one picture.

    Training and test pictures must come from disjoint seeds, in both looks: a seed's scene is the
    same in both.

    Args:
        classname: one of `AERIAL_CLASSES` or `TISSUE_CLASSES`.
        look: ``general`` (photos, cartoons, sketches) or ``domain`` (another sensor).
        seed: any whole number.
        size: side of the picture in pixels, at most the canvas's 128.

    Raises:
        UserError: unknown class or look, or a size out of range.
    """
    if look not in LOOKS:
        raise UserError(f"Unknown look '{look}' of the demo domain.{suggest(look, LOOKS)}")
    if not 8 <= size <= SIDE:
        raise UserError(f"size={size}: demo pictures have 8 to {SIDE} pixels per side.")
    canvas = draw_scene(classname, seed)
    family = _SCENES[classname][0]
    image, facts = looks.paint(canvas, family, look, _generator(look, classname, seed), size)
    return Picture(image, {"family": family, "look": look} | facts | canvas.facts)
