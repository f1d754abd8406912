"""A contact sheet: a few images of every class in one picture, under the prompt the class gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dplq.errors import UserError
from dplq.io.atomic import atomic_write

PAPER, INK, FAINT = "white", "black", "#777777"
MARGIN, LINE, FONT_SIZE = 8, 18, 13


class Cell(NamedTuple):
    """A class: what is written over its images, what stands for it in grey, and the images."""

    caption: str
    remark: str
    images: Sequence[str]


def draw(title: str, cells: Sequence[Cell], *, per_class: int = 4, size: int = 96) -> Image.Image:
    """Draw the sheet.

    Args:
        title: the first line.
        cells: one per class, in label order; filled down the columns.
        per_class: images per class, taken evenly from those there are.
        size: of a thumbnail, pixels.

    Returns:
        An RGB picture that is about as wide as high.
    """
    width, height = per_class * (size + 2) + MARGIN, 2 * LINE + size + MARGIN
    columns = max(1, round(math.sqrt(len(cells) * height / width)))
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new(
        "RGB", (columns * width + MARGIN, rows * height + LINE + 2 * MARGIN), color=PAPER
    )
    pen, font = ImageDraw.Draw(sheet), _font()
    pen.text((MARGIN, MARGIN), _printable(title, font), INK, font)
    for i, cell in enumerate(cells):
        x, y = MARGIN + i // rows * width, LINE + 2 * MARGIN + i % rows * height
        room = width - MARGIN
        pen.text((x, y), _fitting(f"{i} {cell.caption}", room, pen, font), INK, font)
        pen.text((x, y + LINE), _fitting(cell.remark, room, pen, font), FAINT, font)
        for k, path in enumerate(evenly(cell.images, per_class)):
            sheet.paste(_thumbnail(path, size), (x + k * (size + 2), y + 2 * LINE))
    return sheet


def evenly(items: Sequence[str], number: int) -> list[str]:
    """Up to `number` of the items, from all over the list."""
    if len(items) <= number:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def write(sheet: Image.Image, path: Path) -> None:
    """Write a picture in one step.

    Raises:
        UserError: the file name's ending is none of a picture, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            sheet.save(aside)
    except (OSError, ValueError) as error:
        raise UserError(f"The contact sheet cannot be written to {path}: {error}.") from error


def _thumbnail(path: str, size: int) -> Image.Image:
    """The middle of the image as a square; a crossed box if it cannot be decoded."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # a JPEG is decoded at a fraction of its size
            return ImageOps.fit(image.convert("RGB"), (size, size))
    except Exception:  # Pillow's plugins raise nearly anything on damaged data
        box = Image.new("RGB", (size, size), "#eeeeee")
        pen = ImageDraw.Draw(box)
        pen.line([(0, 0), (size, size)], "red")
        pen.line([(0, size), (size, 0)], "red")
        return box


def _font() -> Any:
    try:
        return ImageFont.load_default(FONT_SIZE)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _printable(text: str, font: Any) -> str:
    """What a bitmap font can show of the text."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")


def _fitting(text: str, room: int, pen: ImageDraw.ImageDraw, font: Any) -> str:
    text = _printable(text, font)
    length = pen.textlength(text, font)
    if length <= room:
        return text
    keep = int(len(text) * room / length)
    while keep and pen.textlength(f"{text[:keep]}...", font) > room:
        keep -= 1
    return f"{text[:keep]}..."
