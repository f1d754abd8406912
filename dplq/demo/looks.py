"""Rendering of materials as pixels: palettes, styles and sensor artefacts.

A look is a palette per family and a few styles; a style is a row of numbers, so that a new one is
one more row. The strengths in the `domain` rows set how far that look is from the general one.
"""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from dplq.demo import materials
from dplq.demo.canvas import SIDE, Canvas, shifted
from dplq.demo.materials import Material

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Rendering parameters; each picture draws its value from a pair, a range.

    Attributes:
        texture: grain of the materials, as a share of brightness.
        shade: strength of light and shadow from the heights.
        outline: darkness of the borders between materials.
        wash: share of the paper's white mixed in.
        hue: largest rotation of all hues, in turns.
        saturation: factor, 1 is neutral.
        contrast: the same.
        brightness: the same.
        tint: largest shift of a colour channel.
        blur: radius in output pixels.
        noise, stripes: standard deviations per pixel and per column, of 1.
        speckle: multiplicative grain of coherent waves.
        haze: share of a uniform veil.
    """

    texture: Range = (0.0, 0.0)
    shade: Range = (0.0, 0.0)
    outline: Range = (0.0, 0.0)
    wash: Range = (0.0, 0.0)
    hue: float = 0.0
    saturation: Range = (1.0, 1.0)
    contrast: Range = (0.9, 1.1)
    brightness: Range = (0.85, 1.15)
    tint: float = 0.03
    blur: Range = (0.0, 0.0)
    noise: Range = (0.0, 0.0)
    stripes: Range = (0.0, 0.0)
    speckle: Range = (0.0, 0.0)
    haze: Range = (0.0, 0.0)


PHOTO = Style(
    texture=(0.04, 0.11), shade=(0.5, 1.0), saturation=(0.5, 1.3), contrast=(0.8, 1.2),
    brightness=(0.65, 1.25), tint=0.06, blur=(0.0, 0.5), noise=(0.0, 0.02), haze=(0.0, 0.12),
)  # fmt: skip
CARTOON = Style(
    shade=(0.0, 0.4), outline=(0.3, 0.8), hue=0.1, saturation=(1.0, 1.9), brightness=(0.8, 1.25)
)
MAP = Style(wash=(0.0, 0.4), hue=0.12, saturation=(0.5, 1.4), brightness=(0.8, 1.15))
SKETCH = Style(
    texture=(0.0, 0.05), shade=(0.3, 0.8), outline=(0.6, 0.95), wash=(0.35, 0.8),
    saturation=(0.0, 0.9), brightness=(0.85, 1.05),
)  # fmt: skip
# Sensor artefacts, which the domain looks share in different strengths.
FALSE_COLOUR = Style(
    texture=(0.06, 0.14), shade=(0.3, 0.8), saturation=(0.7, 1.2), contrast=(0.3, 0.5),
    brightness=(0.7, 1.0), tint=0.04, blur=(0.6, 1.0), noise=(0.02, 0.045), stripes=(0.0, 0.015),
    haze=(0.15, 0.4),
)  # fmt: skip
STYLES: dict[str, dict[str, Style]] = {
    "general": {
        "photo": PHOTO,
        "clear photo": Style(texture=(0.03, 0.08), shade=(0.5, 0.9), brightness=(0.9, 1.15)),
        "old photo": Style(
            texture=(0.04, 0.1), shade=(0.5, 0.9), saturation=(0.0, 0.35), tint=0.08,
            brightness=(0.7, 1.2), wash=(0.0, 0.15), noise=(0.01, 0.04), blur=(0.2, 0.6),
        ),
        "cartoon": CARTOON,
        "map": MAP,
        "sketch": SKETCH,
        "painting": Style(
            texture=(0.1, 0.18), shade=(0.4, 0.9), hue=0.06, saturation=(0.9, 1.7),
            blur=(0.4, 0.8), brightness=(0.7, 1.2), tint=0.08,
        ),
    },
    "domain": {"false colour": FALSE_COLOUR},
}  # fmt: skip
TISSUE_PHOTO = replace(
    PHOTO, texture=(0.04, 0.12), shade=(0.1, 0.4), hue=0.03, saturation=(0.6, 1.4),
    contrast=(0.9, 1.1), brightness=(0.8, 1.1), tint=0.03, noise=(0.0, 0.0), haze=(0.0, 0.0),
)  # fmt: skip
ULTRASOUND = replace(
    FALSE_COLOUR, texture=(0.03, 0.08), shade=(0.5, 1.0), saturation=(0.0, 0.0),
    contrast=(0.7, 1.0), brightness=(0.7, 1.2), tint=0.02, blur=(0.4, 0.8), noise=(0.0, 0.0),
    speckle=(0.1, 0.22), stripes=(0.0, 0.02), haze=(0.0, 0.15),
)  # fmt: skip
TISSUE_STYLES: dict[str, dict[str, Style]] = {
    "general": {"photo": TISSUE_PHOTO, "drawing": CARTOON, "sketch": SKETCH, "map": MAP},
    "domain": {"ultrasound": ULTRASOUND},
}

COLOUR_NAMES = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
_HUE_ENDS = (0.035, 0.11, 0.18, 0.44, 0.52, 0.70, 0.80, 0.95)
_GRAIN = np.ones(len(Material), np.float32)
for _material, _strength in materials.GRAIN.items():
    _GRAIN[_material] = _strength


@functools.cache
def colours(family: str, look: str) -> dict[Material, np.ndarray]:
    """Return the colours of each material, (n, 3) in 0..1, for a family in a look."""
    return {
        material: np.array([list(bytes.fromhex(h)) for h in row], np.float64) / 255
        for material, row in materials.palette(PALETTES[family, look]).items()
    }


PALETTES = {
    ("aerial", "general"): "natural",
    ("aerial", "domain"): "infrared",
    ("tissue", "general"): "stained",
    ("tissue", "domain"): "ultrasound",
}
_CHOSEN_TOGETHER = {"aerial": materials.VEGETATION, "tissue": materials.TISSUE}


def paint(
    canvas: Canvas, family: str, look: str, rng: np.random.Generator, size: int
) -> tuple[Image.Image, dict[str, Any]]:
    """Render a finished scene.

    Args:
        canvas: the scene.
        family: ``aerial`` or ``tissue``.
        look: ``general`` or ``domain``.
        rng: draws palette, style and noise.
        size: side of the picture in pixels.

    Returns:
        (PIL image RGB of size x size, dict with ``style``, ``season`` and ``colours``).
    """
    styles = (TISSUE_STYLES if family == "tissue" else STYLES)[look]
    name = list(styles)[int(rng.random() * len(styles))]
    style = styles[name]
    palette, season = _palette(family, look, style, rng)
    facts = {"style": name, "season": season, "colours": _colours(canvas, palette)}
    picture = _colourise(canvas, palette, style, rng)
    return _sense(picture, style, rng, size), facts


def _draw(rng: np.random.Generator, span: Range) -> float:
    """Draw a number from a range."""
    return span[0] + (span[1] - span[0]) * rng.random()


def _palette(
    family: str, look: str, style: Style, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Return a colour per material, (materials, 3) float32, and the season's or stain's name."""
    together = _CHOSEN_TOGETHER[family]
    names = materials.SEASONS if family == "aerial" else materials.STAINS
    season = int(rng.random() * len(names))
    picks, jitter = rng.random(len(Material)), rng.standard_normal((len(Material), 3)) * 0.025
    palette = np.zeros((len(Material), 3))
    for material, row in colours(family, look).items():
        index = season % len(row) if material in together else int(picks[material] * len(row))
        palette[material] = row[index]
    palette = (palette + jitter) @ _colour_matrix(style, rng) + _tint(style, rng)
    palette = (palette - 0.5) * _draw(rng, style.contrast) + 0.5
    palette *= _draw(rng, style.brightness)
    palette += (1 - palette) * _draw(rng, style.wash)
    return np.clip(palette, 0, 1).astype(np.float32), names[season]


def _tint(style: Style, rng: np.random.Generator) -> np.ndarray:
    """Draw the shift of each colour channel, (3,)."""
    return style.tint * (rng.random(3) * 2 - 1)


def _colour_matrix(style: Style, rng: np.random.Generator) -> np.ndarray:
    """Return a (3, 3) matrix, applied from the right: hue rotation, then saturation."""
    angle = 2 * np.pi * style.hue * (rng.random() * 2 - 1)
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = grey + np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * cross
    return grey + _draw(rng, style.saturation) * (turn - grey)


def _colourise(
    canvas: Canvas, palette: np.ndarray, style: Style, rng: np.random.Generator
) -> np.ndarray:
    """Return colours with grain, light and outlines: (S, S, 3) float32, about 0..1."""
    material, height = canvas.material, canvas.height
    light = np.ones((SIDE, SIDE), np.float32)
    texture, shade, outline = (_draw(rng, s) for s in (style.texture, style.shade, style.outline))
    if texture:
        grain = (0.5 * texture * _GRAIN).take(material)
        for cells in (SIDE // 2, SIDE // 4):
            coarse = rng.standard_normal((cells, 1, cells, 1), np.float32)
            light.reshape(cells, SIDE // cells, cells, SIDE // cells)[:] += (
                grain.reshape(cells, SIDE // cells, cells, SIDE // cells) * coarse
            )
    if shade:
        down, right = ((2, 2), (2, -2), (2, 1), (-2, -2))[int(rng.random() * 4)]
        slope = height - shifted(height, down, right)
        light += np.clip(slope * 0.09, -0.4, 0.35) * shade
        cast = shifted(height, 2 * down, 2 * right) - height > 3.5
        light -= (0.3 * shade) * cast
    if outline:
        border = material != shifted(material, 1, 0)
        border |= material != shifted(material, 0, 1)
        light *= 1 - outline * border
    return palette.take(material, axis=0) * light[..., None]


def _sense(picture: np.ndarray, style: Style, rng: np.random.Generator, size: int) -> Image.Image:
    """Resize a picture and add blur, haze and sensor noise."""
    image = _to_image(picture).resize((size, size), Image.Resampling.BOX)
    blur = _draw(rng, style.blur)
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(blur * size / 64))
    noise, stripes, speckle, haze = (
        _draw(rng, s) for s in (style.noise, style.stripes, style.speckle, style.haze)
    )
    if not (noise or stripes or speckle or haze):
        return image
    pixels = np.asarray(image, np.float32) / 255
    if speckle:
        waves = rng.standard_normal((size, size, 1), np.float32)
        pixels = pixels * np.exp(speckle * waves)
    if haze:
        pixels = pixels + haze * (0.5 + 0.4 * rng.random() - pixels)
    if noise:
        pixels = pixels + noise * rng.standard_normal(pixels.shape, np.float32)
    if stripes:
        pixels = pixels + stripes * rng.standard_normal((1, size, 1), np.float32)
    return _to_image(pixels)


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Convert (S, S, 3) in 0..1 to 8 bits, clipped."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))


def _colours(canvas: Canvas, palette: np.ndarray) -> list[str]:
    """Return the colour names of the (at most three) largest materials, without repeats."""
    cover = np.bincount(canvas.material.ravel(), minlength=len(palette))
    order = np.argsort(-cover, kind="stable")[:3]
    names = (colour_name(*palette[m]) for m in order if cover[m] > 0.06 * SIDE * SIDE)
    return list(dict.fromkeys(names))


def colour_name(red: float, green: float, blue: float) -> str:
    """Return the common name of a colour given in 0..1."""
    hue, saturation, value = colorsys.rgb_to_hsv(float(red), float(green), float(blue))
    if value < 0.2:
        return "black"
    if saturation < 0.14:
        return "white" if value > 0.85 else "gray"
    name = next((n for n, e in zip(COLOUR_NAMES, _HUE_ENDS, strict=True) if hue < e), "red")
    if name in ("red", "orange", "yellow") and saturation < 0.6 and value < 0.7:
        return "brown"
    return "beige" if name in ("orange", "yellow") and saturation < 0.4 else name
