"""Pictures of docs/report_gallery.md, and the tool that makes them."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from dplq.errors import UserError
from tests.runner import PROJECT
from tools.make_report_gallery import MARGIN, SECTIONS, alone, cut

FOLDER = PROJECT / "docs/gallery"


def test_the_page_shows_every_section_once():
    page = (PROJECT / "docs/report_gallery.md").read_text(encoding="utf-8")
    assert re.findall(r"\(gallery/(\w+)\.png\)", page) == list(SECTIONS)


def test_the_pictures_are_there_and_small():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.png" for name in SECTIONS}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


def test_a_picture_is_cut_to_what_was_drawn():
    image = Image.new("RGB", (200, 300), "white")
    image.paste("black", (50, 60, 80, 100))
    found = cut(image)
    assert found.size == (30 + 2 * MARGIN, 40 + 2 * MARGIN)
    assert found.getpixel((MARGIN, MARGIN)) == (0, 0, 0)
    assert found.getpixel((MARGIN - 1, MARGIN)) == (255, 255, 255)


def test_an_empty_picture_is_refused():
    with pytest.raises(UserError, match="drew nothing"):
        cut(Image.new("RGB", (20, 20), "white"))


def test_the_other_sections_are_hidden():
    page = alone("<head></head><main><section id='roc'></section></main>", "roc")
    assert "main > :not(#roc)" in page
    assert page.endswith("</style></head><main><section id='roc'></section></main>")
