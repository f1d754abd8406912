"""Eight kinds of stained tissue, drawn with the same canvas as the aerial scenes."""

from __future__ import annotations

import numpy as np

from dplq.demo.canvas import Canvas, Pen
from dplq.demo.materials import Material as M


def adipose_tissue(c: Canvas) -> None:
    """Draw large pale cells with thin walls."""
    cells = c.cells(c.uniform(18, 32), 0.7)
    c.material[:] = M.ADIPOSE
    wall = cells.second - cells.nearest < c.uniform(1.6, 3)
    c.fill(wall, M.WALL, 2)
    _scatter_nuclei(c, c.integer(4, 14), 1.4, {M.WALL})


def lymphocytes(c: Canvas) -> None:
    """Draw small round dark nuclei, side by side."""
    c.material[:] = c.pick((M.PLASMA, M.PINK))
    spacing = c.uniform(8, 11)
    cells = c.cells(spacing, 0.7)
    nuclei = (cells.nearest < spacing * 0.4) & (cells.key < c.uniform(0.75, 0.97))
    c.fill(nuclei, M.NUCLEUS, 2)
    c.fill(nuclei & (cells.nearest < 1.2), M.PALE_NUCLEUS, 2)


def mucus(c: Canvas) -> None:
    """Draw pale pools with thin flowing strands."""
    u, v = c.pen().uv()
    flow = v + c.uniform(10, 18) * c.noise(3, 2) + 0.2 * u
    strand = flow % c.uniform(14, 22)
    c.material[:] = M.MUCIN
    c.fill((strand < c.uniform(1.5, 3)) & (c.noise(6) > -0.25), M.PLASMA, 1)
    c.fill(c.noise(4) > c.uniform(0.35, 0.6), M.LUMEN, -1)
    _scatter_nuclei(c, c.integer(0, 6), 1.6, {M.MUCIN, M.PLASMA})


def smooth_muscle(c: Canvas) -> None:
    """Draw parallel fibres with long nuclei along them."""
    pen = c.pen()
    u, v = pen.uv()
    bend = c.uniform(1, 4) * np.sin(u * c.uniform(0.04, 0.08)) + 2 * c.noise(4)
    c.material[:] = M.PINK
    c.fill((v + bend) % c.uniform(8, 12) < c.uniform(1.8, 3.2), M.FIBRE, -1)
    for _ in range(c.integer(24, 44)):
        spot = c.anywhere()
        Pen(c, spot.x, spot.y, pen.angle + c.uniform(-0.12, 0.12)).ellipse(6, 1.5, M.NUCLEUS, 1)


def tumor_epithelium(c: Canvas) -> None:
    """Draw nests of crowded pale nuclei of unequal size."""
    c.material[:] = c.pick((M.PLASMA, M.FIBRE))
    nests = c.noise(c.integer(3, 4), 2) > c.uniform(-0.45, -0.1)
    c.fill(nests, M.PINK)
    spacing = c.uniform(13, 18)
    cells = c.cells(spacing)
    size = spacing * (0.24 + 0.34 * cells.key)
    c.fill(nests & (cells.nearest < size), M.NUCLEUS, 2)
    c.fill(nests & (cells.nearest < size - 1.4), M.PALE_NUCLEUS, 2)
    c.fill(nests & (cells.nearest < size * 0.3) & (cells.key > 0.4), M.NUCLEUS, 2)


def debris(c: Canvas) -> None:
    """Draw crumbs and holes without order."""
    c.material[:] = M.NECROSIS
    c.fill(c.noise(10, 2) > c.uniform(0.3, 0.5), M.PLASMA)
    c.fill(c.noise(7, 3) > c.uniform(0.55, 0.75), M.LUMEN, -1)
    cells = c.cells(c.uniform(7, 11), 1.0)
    crumbs = cells.nearest * (1 + 0.7 * c.noise(32)) < 2.6 * cells.key
    c.fill(crumbs, M.NUCLEUS, 1)
    c.fill(c.noise(24) > 0.62, M.PALE_NUCLEUS, 1)


def stroma(c: Canvas) -> None:
    """Draw loose fibres that swirl and cross, with a few thin nuclei."""
    c.material[:] = M.PLASMA
    pen = c.pen()
    swirl = 26 * c.noise(3) + 3 * c.noise(9)
    for turn in (0.0, c.uniform(0.5, 1.0)):
        _, v = pen.at(0, 0, turn).uv()
        fibres = (v + swirl) % c.uniform(11, 16) < c.uniform(2, 4)
        c.fill(fibres & (c.noise(5) > -0.3), M.FIBRE, 1)
    for _ in range(c.integer(5, 14)):
        c.anywhere().ellipse(4.5, 0.9, M.NUCLEUS, 1)


def normal_mucosa(c: Canvas) -> None:
    """Draw round glands in cross-section: nuclei along the rim, pale cells, a hollow middle."""
    step = c.uniform(30, 42)
    glands, nuclei = c.cells(step, 0.3), c.cells(5.5, 0.6)
    depth = 1 - glands.nearest / (step * (0.36 + 0.07 * glands.key))
    c.material[:] = c.pick((M.PLASMA, M.FIBRE))
    c.fill(depth > 0, M.PINK, 1)
    c.fill((depth > 0.04) & (depth < 0.28) & (nuclei.nearest < 2.4), M.NUCLEUS, 2)
    c.fill(depth > c.uniform(0.35, 0.45), M.MUCIN)
    c.fill(depth > c.uniform(0.65, 0.8), M.LUMEN, -1)


def _scatter_nuclei(c: Canvas, number: int, radius: float, where: set[int]) -> None:
    """Scatter up to six times `number` nuclei, drawn only on the materials `where`."""
    for _ in range(number * 6):
        spot = c.anywhere()
        if c.material_at(spot) in where:
            spot.ellipse(radius * 1.5, radius, M.NUCLEUS, 1)


SCENES = {
    "adipose tissue": adipose_tissue,
    "debris": debris,
    "lymphocytes": lymphocytes,
    "mucus": mucus,
    "normal mucosa": normal_mucosa,
    "smooth muscle": smooth_muscle,
    "stroma": stroma,
    "tumor epithelium": tumor_epithelium,
}
