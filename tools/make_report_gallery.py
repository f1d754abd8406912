"""Pictures of docs/report_gallery.md: ``python -m tools.make_report_gallery RUN``.

RUN is a finished run; the pictures in docs/ are of this one:

dplq train --trainer QuaternionPrompt --seed 1 --output-dir output/tissue \
    --dataset-config-file demo_tissue --config-file demo DATASET.NUM_SHOTS 16

Its page is made as `dplq report` makes it. A headless Chromium draws each section alone, and the
picture is cut to what was drawn, with few colours, so that it stays small.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageChops

from dplq.errors import UserError
from dplq.io.atomic import atomic_write
from dplq.io.exit_code import exit_code
from tools.browser import NAMES, browse, find_browser

FOLDER = Path(__file__).resolve().parents[1] / "docs/gallery"
SECTIONS = {  # and their numbers of colours: few where there are photographs
    **dict.fromkeys(("results", "confusion", "classes", "calibration", "roc", "training"), 64),
    **{"images": 24, "features": 256, "explanations": 32},
}
WIDTH, HEIGHT, MARGIN = 800, 3000, 12
ALONE = """<style>
:root {{ color-scheme: light only; }}
body > :not(main), main > :not(#{section}), h1, h2, nav, footer {{ display: none !important; }}
details:not([open]), .path {{ display: none; }}
.gallery li:nth-child(n+4), .strips li:nth-child(n+3) {{ display: none; }}
</style></head>"""


def alone(page: str, section: str) -> str:
    """Return the page with one of its sections only.

    Left out are what is folded away, paths of images, and all pictures but the first ones.
    """
    return page.replace("</head>", ALONE.format(section=section), 1)


def picture(browser: str, page: str) -> Image.Image:
    """Return what a browser draws of a page, without the empty space around it."""
    with tempfile.TemporaryDirectory() as folder:
        source, drawn = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8")
        flags = ["--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={drawn}"]
        browse(browser, source.as_uri(), *flags)
        with Image.open(drawn) as image:
            return cut(image.convert("RGB"))


def cut(image: Image.Image) -> Image.Image:
    """Return the part of an image that differs from its first pixel, with a margin."""
    empty = Image.new("RGB", image.size, image.getpixel((0, 0)))
    box = ImageChops.difference(image, empty).getbbox()
    if box is None:
        raise UserError("The browser drew nothing: has the run this section?")
    left, top, right, bottom = box
    right, bottom = min(right + MARGIN, image.width), min(bottom + MARGIN, image.height)
    return image.crop((max(left - MARGIN, 0), max(top - MARGIN, 0), right, bottom))


def make(run: Path, out: Path) -> int:
    """Write a PNG of each section; return the exit code."""
    from dplq.report import RunPage, render_run

    browser = find_browser()
    if browser is None:
        raise UserError(f"A browser is needed: one of {', '.join(NAMES)}.")
    page = render_run(RunPage.read(run))
    out.mkdir(parents=True, exist_ok=True)
    for section, colours in SECTIONS.items():
        image = picture(browser, alone(page, section)).quantize(colours, dither=Image.Dither.NONE)
        path = out / f"{section}.png"
        with atomic_write(path) as temporary:
            image.save(temporary, format="PNG", optimize=True)
        print(f"{path}: {image.width} x {image.height}, {path.stat().st_size:,} bytes")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.make_report_gallery",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pictures")
    args = parser.parse_args(argv)
    return exit_code(lambda: make(args.run, args.out))


if __name__ == "__main__":
    sys.exit(main())
