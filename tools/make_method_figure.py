"""Draw docs/method.svg, the figure of the method: ``python -m tools.make_method_figure``.

The colours follow the reader's light or dark mode.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from dplq.io.atomic import write_bytes_atomically

FILE = Path(__file__).resolve().parents[1] / "docs" / "method.svg"
WIDTH, HEIGHT = 860, 330
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328; text-anchor: middle; }
.small { font-size: 12px; fill: #57606a; }
.frozen { fill: #eaeef2; stroke: #8c959f; }
.learned { fill: #ddf4ff; stroke: #0969da; }
.plain { fill: none; stroke: none; }
.arrow { fill: none; stroke: #57606a; stroke-width: 1.5; marker-end: url(#head); }
#head path { fill: #57606a; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .small { fill: #9198a1; }
  .frozen { fill: #21262d; stroke: #6e7681; }
  .learned { fill: #0c2d6b; stroke: #58a6ff; }
  .arrow { stroke: #9198a1; }
  #head path { fill: #9198a1; }
}
"""
BOXES = [  # x, y, width, height, class, lines
    (10, 130, 90, 60, "plain", ["image"]),
    (130, 30, 160, 60, "frozen", ["domain model", "MAE, DINOv2, ..."]),
    (130, 240, 160, 60, "learned", ["context", '"a photo of a"']),
    (350, 30, 170, 60, "learned", ["vision prompts", "quaternion, per layer"]),
    (350, 240, 170, 60, "learned", ["text prompts", "quaternion"]),
    (580, 30, 150, 60, "frozen", ["CLIP image tower", "prompts in each layer"]),
    (580, 240, 150, 60, "frozen", ["CLIP text tower", "one text per class"]),
    (770, 135, 80, 60, "plain", ["cosine", "class"]),
]
ARROWS = [  # points
    [(70, 135), (70, 60), (128, 60)],  # image -> domain model
    [(290, 60), (348, 60)],  # domain feature -> vision prompts
    [(320, 60), (320, 255), (348, 255)],  # domain feature -> text prompts
    [(290, 285), (348, 285)],  # context -> text prompts
    [(435, 240), (435, 92)],  # hierarchical text prompts -> vision prompts
    [(520, 60), (578, 60)],
    [(520, 270), (578, 270)],
    [(100, 160), (655, 160), (655, 92)],  # image -> image tower
    [(730, 60), (810, 60), (810, 133)],
    [(730, 270), (810, 270), (810, 197)],
]


def box(x: int, y: int, width: int, height: int, kind: str, lines: list[str]) -> str:
    """Return a box with its name and what it is, or has."""
    centre, middle = x + width / 2, y + height / 2
    parts = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>',
        f'<text x="{centre:g}" y="{middle + (5 if len(lines) == 1 else -4):g}">'
        f"{escape(lines[0])}</text>",
    ]
    parts += [
        f'<text class="small" x="{centre:g}" y="{middle + 15:g}">{escape(line)}</text>'
        for line in lines[1:]
    ]
    return "\n".join(parts)


def arrow(points: list[tuple[int, int]]) -> str:
    """Return an arrow along points."""
    return f'<path class="arrow" d="M{" L".join(f"{x},{y}" for x, y in points)}"/>'


def figure() -> str:
    """Return the figure as SVG."""
    body = [arrow(points) for points in ARROWS] + [box(*one) for one in BOXES]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>A frozen domain model's feature conditions the text context and the vision "
            "prompts of a frozen CLIP through quaternion layers</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>',
            *body,
            '<rect class="learned" x="130" y="308" width="12" height="12"/>'
            '<text class="small" x="172" y="318">learned</text>',
            '<rect class="frozen" x="220" y="308" width="12" height="12"/>'
            '<text class="small" x="258" y="318">frozen</text>',
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    write_bytes_atomically(FILE, figure().encode())
