"""Canvas of materials instead of colours, and a rotated, scaled pen for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from dplq.demo.materials import Material

SIDE = 128  # pixels of a canvas per side: pictures of 64 pixels are supersampled twice
GAP = 255  # in a row of materials: an empty slot
_AXIS = np.arange(SIDE) - (SIDE - 1) / 2
_X, _Y = _AXIS[None, :], _AXIS[:, None]
T = TypeVar("T")
UV = tuple[np.ndarray, np.ndarray]


class Canvas:
    """Scene under construction: `material` (S, S) uint8 and `height` (S, S) float32.

    Heights are in pixels and serve for shading only. Coordinates are pixels from the centre.
    Geometry is float64, so that a last-bit difference between machines does not move a pixel.

    Attributes:
        facts: what a caption may mention: ``counts`` (noun -> number) and ``clutter`` (nouns).
    """

    def __init__(self, rng: np.random.Generator, ground: Material = Material.GRASS) -> None:
        self.rng = rng
        self.material = np.full((SIDE, SIDE), ground, np.uint8)
        self.height = np.zeros((SIDE, SIDE), np.float32)
        self.facts: dict = {"counts": {}, "clutter": []}

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from low to high."""
        return low + (high - low) * self.rng.random()

    def integer(self, low: int, high: int) -> int:
        """Draw an integer from low to high, both included."""
        return low + int(self.rng.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """Draw one of the choices, with equal probability."""
        return choices[int(self.rng.random() * len(choices))]

    def steps(self, low: float, high: float, step: float) -> list[float]:
        """Return equidistant numbers from low up to high, as floats (numpy's scalars are slow)."""
        return np.arange(low, high, step).tolist()

    def count(self, noun: str, number: int) -> None:
        """Record for captions how many of something were drawn."""
        self.facts["counts"][noun] = number

    def mention(self, noun: str) -> None:
        """Record for captions something beside the main subject."""
        self.facts["clutter"].append(noun)

    def pen(self, spread: float = 12.0, smallest: float = 1.0, largest: float = 1.0) -> Pen:
        """Return a pen at a random position near the centre, rotated by any angle."""
        return Pen(
            self,
            self.uniform(-spread, spread),
            self.uniform(-spread, spread),
            self.uniform(0, 2 * math.pi),
            self.uniform(smallest, largest),
        )

    def anywhere(self, margin: float = 0.0) -> Pen:
        """Return a pen at a random position of the canvas, unscaled."""
        return self.pen(spread=SIDE / 2 - margin)

    def fill(self, mask: np.ndarray, material: Material, height: float = 0.0) -> None:
        """Set the material and height where an (S, S) mask is true."""
        np.copyto(self.material, np.uint8(material), where=mask)
        np.copyto(self.height, height, where=mask)

    def material_at(self, pen: Pen) -> int:
        """Return the material at a pen's origin."""
        row, column = (min(max(round(p + SIDE / 2), 0), SIDE - 1) for p in (pen.y, pen.x))
        return int(self.material[row, column])

    def noise(self, cells: int, octaves: int = 1) -> np.ndarray:
        """Return a smooth random field (S, S) of zero mean and range -1..1, `cells` bumps wide."""
        field = np.zeros((SIDE, SIDE))
        for octave in range(octaves):
            weights = _interpolation(cells << octave)
            grid = self.rng.random((weights.shape[1], weights.shape[1])) * 2 - 1
            field += weights @ grid @ weights.T / (1 << octave)
        return field

    def cells(self, spacing: float, jitter: float = 0.9) -> Cells:
        """Return Voronoi cells of one random point per square of a rotated grid."""
        return _voronoi(self.rng, *self.pen().uv(), spacing, jitter)


class Cells(NamedTuple):
    """Voronoi cells, all (S, S): two smallest distances in pixels, `key` in [0, 1) per cell."""

    nearest: np.ndarray
    second: np.ndarray
    key: np.ndarray


class Pen:
    """Local frame (u, v) for shapes: origin (x, y) in pixels, angle in radians, scale."""

    def __init__(
        self, canvas: Canvas, x: float, y: float, angle: float = 0.0, scale: float = 1.0
    ) -> None:
        self.canvas, self.x, self.y = canvas, x, y
        self.angle, self.scale = angle, scale
        self._cos, self._sin = math.cos(angle) * scale, math.sin(angle) * scale

    def at(self, u: float, v: float, turn: float = 0.0, scale: float = 1.0) -> Pen:
        """Return a pen at (u, v) of this one, rotated and scaled further."""
        x = self.x + u * self._cos - v * self._sin
        y = self.y + u * self._sin + v * self._cos
        return Pen(self.canvas, x, y, self.angle + turn, self.scale * scale)

    def uv(self, rows: slice = slice(None), columns: slice = slice(None)) -> UV:
        """Return local coordinates (u, v) of the canvas, or of a window of it."""
        x, y = _X[:, columns] - self.x, _Y[rows] - self.y
        square = self.scale * self.scale
        u = x * (self._cos / square) + y * (self._sin / square)
        v = y * (self._cos / square) - x * (self._sin / square)
        return u, v

    def _window(self, half_u: float, half_v: float) -> tuple[slice, slice]:
        """Return the rows and columns that a shape within (half_u, half_v) can cover."""
        wide = abs(self._cos) * half_u + abs(self._sin) * half_v + 1
        tall = abs(self._sin) * half_u + abs(self._cos) * half_v + 1
        x, y = self.x + SIDE / 2, self.y + SIDE / 2
        rows = slice(max(int(y - tall), 0), max(int(y + tall) + 1, 0))
        return rows, slice(max(int(x - wide), 0), max(int(x + wide) + 1, 0))

    def rect(
        self,
        half_u: float,
        half_v: float,
        material: Material | Sequence[int],
        height: float = 0.0,
        *,
        gable: float = 0.0,
        stripe: float = 0.0,
        duty: float = 0.5,
    ) -> None:
        """Draw a rectangle about the origin.

        Args:
            half_u: half its side along u.
            half_v: half its side along v.
            material: one for all, or a sequence for the stripes in turn, where `GAP` omits one.
            height: of its top, in pixels.
            gable: the share of the height lost towards the long edges (a ridge along u).
            stripe: period along u of a striped rectangle, 0 for a full one.
            duty: painted share of a period.
        """
        window = self._window(half_u, half_v)
        u, v = self.uv(*window)
        mask = (abs(u) <= half_u) & (abs(v) <= half_v)
        if stripe:
            place = (u + half_u) / stripe
            index = np.floor(place)
            mask &= place - index < duty
        painted: Material | np.ndarray
        if isinstance(material, Sequence):
            painted = np.array(material, np.uint8).take(index.astype(int), mode="wrap")
            mask &= painted != GAP
        else:
            painted = material
        self._put(window, mask, painted, height, 1 - gable * abs(v) / half_v if gable else None)

    def ellipse(
        self,
        half_u: float,
        half_v: float,
        material: Material,
        height: float = 0.0,
        *,
        dome: bool = False,
        hole: float = 0.0,
        spokes: tuple[int, float] | None = None,
    ) -> None:
        """Draw an ellipse about the origin.

        Args:
            half_u: half its axis along u.
            half_v: half its axis along v.
            material: of the ellipse.
            height: of its top, in pixels.
            dome: whether the height is rounded off towards the rim.
            hole: the share of the radius omitted in the middle, 0 for a full one.
            spokes: number of sectors, and the share of each that is painted; None for all round.
        """
        window = self._window(half_u, half_v)
        u, v = self.uv(*window)
        square = (u / half_u) ** 2 + (v / half_v) ** 2
        mask = square <= 1
        if hole:
            mask &= square >= hole * hole
        if spokes:
            number, share = spokes
            mask &= np.arctan2(v, u) * (number / (2 * math.pi)) % 1 < share
        profile = np.sqrt(np.clip(1 - square, 0, 1)) if dome else None
        self._put(window, mask, material, height, profile)

    def line(
        self, u: float, v: float, half_width: float, material: Material, height: float = 0.0
    ) -> None:
        """Draw a straight stroke from the origin to (u, v)."""
        stroke = self.at(u / 2, v / 2, math.atan2(v, u))
        stroke.rect(math.hypot(u, v) / 2, half_width, material, height)

    def _put(
        self,
        window: tuple[slice, slice],
        mask: np.ndarray,
        material: Material | np.ndarray,
        height: float,
        profile: np.ndarray | None,
    ) -> None:
        """Set material and height in a window where `mask` is true; `profile` scales the height."""
        canvas = self.canvas
        np.copyto(canvas.material[window], np.uint8(material), where=mask)
        relief = height if profile is None else (height * profile).astype(np.float32)
        np.copyto(canvas.height[window], relief, where=mask)


def shifted(field: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return an (S, S) field shifted by whole pixels, with replicated edges."""
    place = np.arange(SIDE)
    rows, columns = np.clip(place - down, 0, SIDE - 1), np.clip(place - right, 0, SIDE - 1)
    return field.take(rows, axis=0).take(columns, axis=1)


@lru_cache(maxsize=32)
def _interpolation(cells: int) -> np.ndarray:
    """Return weights (S, cells + 1) of smooth interpolation between equidistant values."""
    place = np.arange(SIDE) * (cells / SIDE)
    index = place.astype(int)
    fraction = place - index
    fraction = fraction * fraction * (3 - 2 * fraction)
    weights = np.zeros((SIDE, cells + 1))
    weights[np.arange(SIDE), index] = 1 - fraction
    weights[np.arange(SIDE), index + 1] = fraction
    return weights


def _voronoi(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, spacing: float, jitter: float
) -> Cells:
    """Return the Voronoi cells of a jittered grid in local coordinates (u, v), both (S, S)."""
    half = int(SIDE / spacing) + 3
    points = (rng.random((3, 2 * half, 2 * half)) - 0.5) * jitter
    keys = rng.random((2 * half, 2 * half))
    u, v = u / spacing + half, v / spacing + half
    row, column = v.astype(int), u.astype(int)
    u, v = u - column - 0.5, v - row - 0.5
    flat = row * (2 * half) + column
    nearest = second = np.full(u.shape, 9.0)
    owner = flat
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            other = flat + (down * 2 * half + right)
            distance = (u - right - points[0].take(other)) ** 2
            distance += (v - down - points[1].take(other)) ** 2
            owner = np.where(distance < nearest, other, owner)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    return Cells(np.sqrt(nearest) * spacing, np.sqrt(second) * spacing, keys.take(owner))
