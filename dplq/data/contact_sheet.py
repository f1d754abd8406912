"""Contact sheet: some images of every class in one picture, under the class's prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dplq.errors import UserError
from dplq.images.reader import read_image
from dplq.io.atomic import atomic_write

BACKGROUND, TEXT, GREY = "white", "black", "#777777"
MARGIN, LINE, FONT_SIZE = 8, 18, 13  # pixels
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Cell(NamedTuple):
    """Cell of one class: caption, remark in grey below it, and paths of the images."""

    caption: str
    remark: str
    images: Sequence[str]


def draw(title: str, cells: Sequence[Cell], *, per_class: int = 4, size: int = 96) -> Image.Image:
    """Return the sheet as a picture.

    Args:
        title: the first line.
        cells: one per class, in label order; filled down the columns.
        per_class: images per class, evenly spaced in its list.
        size: of a thumbnail, pixels.

    Returns:
        An RGB picture that is about as wide as high.
    """
    width, height = per_class * (size + 2) + MARGIN, 2 * LINE + size + MARGIN
    columns = max(1, round(math.sqrt(len(cells) * height / width)))
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new(
        "RGB", (columns * width + MARGIN, rows * height + LINE + 2 * MARGIN), color=BACKGROUND
    )
    pen, font = ImageDraw.Draw(sheet), _font()
    pen.text((MARGIN, MARGIN), _printable(title, font), TEXT, font)
    for i, cell in enumerate(cells):
        x, y = MARGIN + i // rows * width, LINE + 2 * MARGIN + i % rows * height
        available = width - MARGIN
        pen.text((x, y), _fitting(f"{i} {cell.caption}", available, pen, font), TEXT, font)
        pen.text((x, y + LINE), _fitting(cell.remark, available, pen, font), GREY, font)
        for k, path in enumerate(evenly(cell.images, per_class)):
            sheet.paste(_thumbnail(path, size), (x + k * (size + 2), y + 2 * LINE))
    return sheet


def evenly(items: Sequence[str], number: int) -> list[str]:
    """Return up to `number` of the items, evenly spaced in the list."""
    if len(items) <= number:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * number)] for k in range(number)]


def write(sheet: Image.Image, path: Path) -> None:
    """Write a picture atomically.

    Raises:
        UserError: the file extension is not of an image format, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            sheet.save(temporary)
    except (OSError, ValueError) as error:
        raise UserError(f"The contact sheet cannot be written to {path}: {error}.") from error


def _thumbnail(path: str, size: int) -> Image.Image:
    """Return the centre of the image as a square; a crossed box if it cannot be decoded."""
    try:
        return ImageOps.fit(read_image(path, edge=size), (size, size))
    except UserError:
        box = Image.new("RGB", (size, size), "#eeeeee")
        pen = ImageDraw.Draw(box)
        pen.line([(0, 0), (size, size)], "red")
        pen.line([(0, size), (size, 0)], "red")
        return box


def _font() -> Font:
    try:
        return ImageFont.load_default(FONT_SIZE)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def _printable(text: str, font: Font) -> str:
    """Return the text without what a bitmap font cannot show."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")


def _fitting(text: str, available: int, pen: ImageDraw.ImageDraw, font: Font) -> str:
    text = _printable(text, font)
    length = pen.textlength(text, font)
    if length <= available:
        return text
    keep = int(len(text) * available / length)
    while keep and pen.textlength(f"{text[:keep]}...", font) > available:
        keep -= 1
    return f"{text[:keep]}..."
