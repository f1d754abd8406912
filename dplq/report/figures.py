"""Figures of a page: inline SVG in the page's own colours, and inline pictures.

matplotlib draws in the colours of `COLOURS`, which stand for variables of ``style.css``, so that a
figure follows light and dark mode. The same figure gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from dplq.report.templating import fill
from dplq.results.figures import new_figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Colours to draw in; none is used for itself.
INK, SOFT, LINE, PAPER = "#010101", "#010102", "#010103", "#010104"
ACCENT, WARM, THIRD = "#010105", "#010106", "#010107"  # told apart by colour-blind readers
COLOURS = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
    ACCENT: "var(--accent)",
    WARM: "var(--warm)",
    THIRD: "var(--third)",
}
RC: dict[Any, Any] = {  # matplotlib's types name every key
    "svg.fonttype": "none",
    "font.size": 9,
    "text.parse_math": False,  # a class may be called $x$
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.5,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the style of the pages; figures are made and saved inside this context."""
    import matplotlib

    with matplotlib.rc_context(RC), warnings.catch_warnings():
        # the browser has the letters that matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_chart(width: float, height: float) -> Any:
    """Return an empty figure, inside `drawing`; width and height in inches."""
    return new_figure((width, height), "the report")


def svg_figure(
    figure: Any, name: str, label: str, caption: str = "", *, wide: int = 0, most: int = 0
) -> Markup:
    """Return a matplotlib figure as a ``<figure>`` with inline SVG; call it inside `drawing`.

    Args:
        figure: of `new_chart`.
        name: unique in the page: it begins the ids in the SVG.
        label: what is seen, in words, for those who do not see it.
        caption: below the figure, plain text.
        wide: least width in CSS pixels; on narrower screens the figure scrolls in its own box.
        most: largest width in CSS pixels; 0: that of the page.
    """
    return fill(
        "figure.html",
        svg=Markup(_svg(figure, name)),  # matplotlib's, which escapes all text
        label=label,
        caption=caption,
        wide=wide,
        most=most,
    )


def picture_url(image: Image.Image, quality: int = 80) -> str:
    """Return an RGB image as a ``data:`` URL with a JPEG."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _svg(figure: Any, name: str) -> str:
    """Return a figure as the SVG element of a page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())  # without comments
    for child in [c for c in root.iter() if c.tag.endswith(("}metadata", "}style"))]:
        _parent_of(root, child).remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        element.attrib = {
            key.removeprefix(f"{{{XLINK}}}"): _attribute(key, value, name)
            for key, value in element.attrib.items()
        }
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("aria-hidden", "true")  # the element around it has the label
    return ElementTree.tostring(root, encoding="unicode")


def _parent_of(root: ElementTree.Element, child: ElementTree.Element) -> ElementTree.Element:
    return next(parent for parent in root.iter() if child in list(parent))


def _attribute(key: str, value: str, name: str) -> str:
    """Return the value of an attribute: ids begin with `name`, colours and fonts are the page's."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href"):
        return value.replace("#", f"#{name}-", 1)
    if key == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    if key in ("style", "fill", "stroke"):
        for colour, variable in COLOURS.items():
            value = value.replace(colour, variable)
    return value.replace("url(#", f"url(#{name}-")
