"""One table of classes, and `render`: a picture from (class, look, seed) and nothing else."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dplq.demo import looks, scenes, tissue
from dplq.demo.canvas import SIDE, Canvas
from dplq.errors import UserError, suggest

AERIAL_CLASSES = tuple(scenes.LAYOUTS)
TISSUE_CLASSES = tuple(tissue.LAYOUTS)
LOOKS = ("general", "domain")
_LAYOUTS = {name: ("aerial", draw) for name, draw in scenes.LAYOUTS.items()} | {
    name: ("tissue", draw) for name, draw in tissue.LAYOUTS.items()
}


@dataclass(frozen=True)
class Scene:
    """A picture and what may be said about it.

    Attributes:
        image: RGB, size x size.
        facts: ``family``, ``look``, ``style``, ``season``, ``colours`` (names, largest area
            first), ``counts`` (noun -> number), ``clutter`` (nouns).
    """

    image: Image.Image
    facts: dict


def _generator(*key: object) -> np.random.Generator:
    """A generator that depends on the key's text only, on every machine."""
    text = "|".join(str(part) for part in key)
    return np.random.Generator(np.random.PCG64(zlib.crc32(text.encode())))


def layout(classname: str, seed: int) -> Canvas:
    """Draw the materials of a scene; both looks of a (class, seed) share this layout.

    Raises:
        UserError: the class is not one of the demo's.
    """
    if classname not in _LAYOUTS:
        raise UserError(f"Unknown demo class '{classname}'.{suggest(classname, _LAYOUTS)}")
    canvas = Canvas(_generator("layout", classname, seed))
    _LAYOUTS[classname][1](canvas)
    return canvas


def render(classname: str, look: str, seed: int, size: int = 64) -> Scene:
    """Draw one picture.

    Training and test pictures must come from disjoint seeds, in both looks: a seed's layout is the
    same in both.

    Args:
        classname: one of `AERIAL_CLASSES` or `TISSUE_CLASSES`.
        look: ``general`` (photos, cartoons, sketches) or ``domain`` (another sensor).
        seed: any whole number.
        size: side of the picture in pixels, at most the layout's 128.

    Raises:
        UserError: unknown class or look, or a size out of range.
    """
    if look not in LOOKS:
        raise UserError(f"Unknown look '{look}' of the demo domain.{suggest(look, LOOKS)}")
    if not 8 <= size <= SIDE:
        raise UserError(f"size={size}: demo pictures have 8 to {SIDE} pixels per side.")
    canvas = layout(classname, seed)
    family = _LAYOUTS[classname][0]
    image, facts = looks.paint(canvas, family, look, _generator(look, classname, seed), size)
    return Scene(image, {"family": family, "look": look} | facts | canvas.facts)
