"""Demo pictures of a single object on plain land, and where it is."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dplq.clip.backbone import Backbone
from dplq.demo import looks, scenes
from dplq.demo.canvas import SIDE, Canvas, Pen
from dplq.demo.materials import Material as M
from dplq.demo.models import SIZE


def tank(c: Canvas) -> None:
    scenes._tank(c, c.anywhere(30), c.uniform(14, 22), c.pick((M.METAL, M.CONCRETE)))


def court(c: Canvas) -> None:
    pen = c.anywhere(34).at(0, 0, 0, c.uniform(0.9, 1.3))
    pen.rect(29, 17, c.pick((M.APRON, M.COURT)))
    scenes._court(pen, 0.9 / pen.scale + 0.25)


def stadium(c: Canvas) -> None:
    pen = c.anywhere(34).at(0, 0, 0, c.uniform(0.5, 0.7))
    long, wide = c.uniform(40, 48), c.uniform(30, 38)
    pen.ellipse(long, wide, M.SEATS, 10)
    for share in (0.92, 0.82, 0.72):
        pen.ellipse(long * share, wide * share, M.DARK, 9 * share, hole=0.97)
    pen.ellipse(long, wide, M.DARK, 8, spokes=(c.integer(12, 20), 0.12))
    _pitch(pen, long * 0.64, wide * 0.64)


def _pitch(pen: Pen, half_u: float, half_v: float) -> None:
    pen.ellipse(half_u, half_v, M.TRACK)
    pen.ellipse(half_u * 0.88, half_v * 0.85, M.PITCH)
    pen.rect(half_u * 0.6, half_v * 0.55, M.FAIRWAY, stripe=half_u * 0.2)


def lake(c: Canvas) -> None:
    u, v = c.anywhere(30).uv()
    shore = np.sqrt(u**2 + v**2) - c.uniform(14, 24) * (1 + 0.55 * c.noise(4, 3))
    c.fill(shore < 2, M.SAND)
    c.fill(shore < 0, M.WATER, -2)


OBJECTS: dict[str, Callable[[Canvas], None]] = {
    "storage tank": tank,
    "tennis court": court,
    "stadium": stadium,
    "lake": lake,
}


@dataclass
class OneObject:
    """Pictures of one object each.

    Attributes:
        images: (N, 3, H, W), CLIP-normalised.
        boxes: (N, H, W), 1 inside the object's bounding box, else 0.
        names: N class names.
    """

    images: Tensor
    boxes: Tensor
    names: list[str]

    def labels(self, classnames: list[str]) -> Tensor:
        return torch.tensor([classnames.index(name) for name in self.names])


def generator(*key: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32("|".join(map(str, key)).encode())))


def picture(name: str, look: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (H, W, 3) and the object's box (H, W): what differs from the land alone."""
    canvas = Canvas(generator("one", name, seed))
    scenes.ground(canvas, scenes.NATURAL_GROUNDS)
    land = canvas.material.copy()
    OBJECTS[name](canvas)
    rows, columns = np.nonzero(canvas.material != land)
    box, step = np.zeros((SIZE, SIZE), np.float32), SIDE // SIZE
    box[rows.min() // step : rows.max() // step + 1, columns.min() // step :][
        :, : columns.max() // step + 1 - columns.min() // step
    ] = 1
    image, _ = looks.paint(canvas, "aerial", look, generator(look, name, seed), SIZE)
    return np.asarray(image), box


def draw_objects(clip: Backbone, each: int, look: str = "general") -> OneObject:
    """Draw so many pictures of each object."""
    names = [name for name in OBJECTS for _ in range(each)]
    drawn = [picture(name, look, number % each) for number, name in enumerate(names)]
    pixels = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.image_mean, clip.image_std))
    boxes = torch.from_numpy(np.stack([box for _, box in drawn]))
    return OneObject((pixels - mean) / std, boxes, names)


def mass_inside(maps: Tensor, boxes: Tensor) -> float:
    """Return the mean share of maps (N, H, W) that lies inside the boxes."""
    return ((maps * boxes).sum((1, 2)) / maps.sum((1, 2)).clamp(min=1e-12)).mean().item()
