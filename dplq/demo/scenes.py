"""Twenty aerial scenes, each a small function that arranges materials on a canvas.

Surroundings and materials are shared between the classes as far as they make sense, so that shape
and arrangement distinguish them. Colours are assigned later, in `looks`.
"""

from __future__ import annotations

import math

import numpy as np

from dplq.demo.canvas import GAP, SIDE, Canvas, Pen, shifted
from dplq.demo.materials import Material as M

GROUNDS = (M.GRASS, M.MEADOW, M.SOIL, M.CROP_A, M.CROP_B, M.SAND, M.CONCRETE, M.GRAVEL)
NATURAL_GROUNDS = (M.GRASS, M.MEADOW, M.SOIL, M.CROP_B, M.SAND, M.ROCK)
GREENS = (M.GRASS, M.MEADOW, M.CROP_B, M.TREE_A, M.SOIL)
CROPS = (M.CROP_A, M.CROP_B, M.CROP_C, M.GRASS, M.SOIL)
FAR = 100.0  # half length of what runs through the whole picture


def ground(c: Canvas, grounds: tuple[M, ...] = GROUNDS) -> None:
    """Cover the canvas with one material, sometimes with patches of another."""
    c.material[:] = c.pick(grounds)
    if c.chance(0.6):
        c.fill(c.noise(c.integer(2, 5)) > c.uniform(0.0, 0.5), c.pick(grounds))


def tree(pen: Pen, radius: float, kind: M) -> None:
    """Draw a round crown."""
    pen.ellipse(radius, radius, kind, radius, dome=True)


def trees(c: Canvas, number: int) -> None:
    """Scatter single trees anywhere."""
    kind = c.pick((M.TREE_A, M.TREE_B))
    for _ in range(number):
        tree(c.anywhere(), c.uniform(2, 5), kind)
    c.mention("trees")


def house(pen: Pen, long: float, wide: float, roof: M) -> None:
    """Draw a house with a ridge along u."""
    pen.rect(long, wide, roof, 5, gable=0.8)


def houses(c: Canvas, number: int) -> None:
    """Scatter single houses, all turned alike."""
    turn = c.pen()
    for _ in range(number):
        pen = c.anywhere()
        pen = Pen(c, pen.x, pen.y, turn.angle)
        house(pen, c.uniform(4, 7), c.uniform(3, 4.5), c.pick((M.ROOF_A, M.ROOF_B)))
    c.mention("houses")


def road(pen: Pen, half_width: float = 4.0, surface: M = M.ASPHALT) -> None:
    """Draw a straight road along u through the whole picture, with a dashed middle line."""
    pen.rect(FAR, half_width, surface)
    pen.rect(FAR, max(0.5, half_width / 10), M.PAINT, stripe=9)


def side_road(c: Canvas) -> None:
    """Draw a narrow road anywhere."""
    pen = c.anywhere()
    road(pen, c.uniform(2, 3.5), c.pick((M.ASPHALT, M.SOIL, M.CONCRETE)))
    c.mention("a road")


def thicket(c: Canvas) -> None:
    """Draw a small wood on one side."""
    c.fill(c.noise(3, 3) > 0.55, M.TREE_A, 4)
    c.mention("woods")


def clutter(c: Canvas, most: int = 2) -> None:
    """Draw up to `most` kinds of surroundings, before the scene itself."""
    for _ in range(c.integer(0, most)):
        thing = c.integer(0, 3)
        if thing == 0:
            trees(c, c.integer(4, 14))
        elif thing == 1:
            houses(c, c.integer(2, 7))
        elif thing == 2:
            side_road(c)
        else:
            thicket(c)


def cars(c: Canvas, pen: Pen, number: int, reach: float, lane: float) -> None:
    """Draw cars on both lanes of a road along u."""
    for _ in range(number):
        side = c.pick((-lane, lane))
        spot = pen.at(c.uniform(-reach, reach), side)
        spot.rect(2.2, 1.1, c.pick((M.CAR_A, M.CAR_B)), 1.5)


def meander(c: Canvas, u: np.ndarray, strength: float) -> np.ndarray:
    """Return a winding offset (S, S), in pixels, as a function of u."""
    bend = strength * np.sin(u * c.uniform(0.03, 0.07) + c.uniform(0, 6.3))
    return bend + 0.35 * strength * np.sin(u * c.uniform(0.09, 0.14) + c.uniform(0, 6.3))


def blob(c: Canvas, radius: float) -> np.ndarray:
    """Return about the distance (S, S) in pixels to a rugged round shore, negative inside."""
    u, v = c.pen(10).uv()
    stretch = c.uniform(1.0, 1.7)
    distance = np.sqrt((u / stretch) ** 2 + (v * stretch**0.3) ** 2)
    return distance - radius * (1 + 0.55 * c.noise(c.integer(3, 5), 3))


def farmland(c: Canvas) -> None:
    """Draw a patchwork of fields in rows, or of circles watered by pivots."""
    c.material[:] = c.pick((M.SOIL, M.GRASS, M.MEADOW))
    pen = c.pen()
    pivots = c.chance(0.25)
    step_u, step_v = (34.0, 34.0) if pivots else (c.uniform(22, 50), c.uniform(14, 34))
    number = 0
    for i in c.steps(-FAR, FAR, step_u):
        slip = 0.0 if pivots else c.uniform(0, step_v)
        for j in c.steps(-FAR, FAR, step_v):
            cell = pen.at(i + step_u / 2, j + slip)
            if max(abs(cell.x), abs(cell.y)) > SIDE / 2 + step_u / 2:
                continue
            number += 1
            _field(c, cell, step_u / 2 - 0.8, step_v / 2 - 0.8, pivots)
    c.count("field", number)
    if c.chance(0.4):
        houses(c, c.integer(1, 3))
    if c.chance(0.4):
        side_road(c)


def _field(c: Canvas, cell: Pen, half_u: float, half_v: float, pivot: bool) -> None:
    """Draw one field: in rows, plain, or a circle."""
    crop, rows = c.pick(CROPS), c.pick(CROPS)
    if pivot:
        cell.ellipse(half_u, half_u, crop)
        cell.at(0, 0, c.uniform(0, 6)).line(half_u, 0, 0.7, M.SOIL)
    elif c.chance(0.7):
        cell.rect(half_u, half_v, (crop, rows), stripe=c.uniform(1.6, 3), duty=1)
    else:
        cell.rect(half_u, half_v, crop)


def forest(c: Canvas) -> None:
    """Draw crowns side by side, at times with a clearing or a path."""
    c.material[:] = c.pick((M.TREE_A, M.TREE_B, M.GRASS, M.SOIL, M.MEADOW))
    spacing = c.uniform(6, 13)
    crowns = c.cells(spacing)
    radius = spacing * c.uniform(0.5, 0.75) * (0.6 + 0.4 * crowns.key)
    inside = crowns.nearest < radius
    if c.chance(0.4):
        inside &= c.noise(3, 2) < 0.55
        c.mention("a clearing")
    mixed = np.where(crowns.key * 7 % 1 < c.uniform(0.2, 0.9), M.TREE_A, M.TREE_B)
    c.material[inside] = mixed[inside]
    c.height[inside] = (np.sqrt(np.clip(radius**2 - crowns.nearest**2, 0, None)))[inside]
    if c.chance(0.3):
        c.anywhere(30).rect(FAR, 1.8, M.SOIL)
        c.mention("a path")


def _river_mask(c: Canvas, pen: Pen, half_width: float, strength: float) -> np.ndarray:
    """Return about the distance (S, S) in pixels to a winding band along u, negative inside."""
    u, v = pen.uv()
    width = half_width * (1 + 0.25 * np.sin(u * 0.06 + c.uniform(0, 6)))
    return abs(v - meander(c, u, strength)) - width + 1.5 * c.noise(16)


def river(c: Canvas) -> None:
    """Draw a winding band of water through the whole picture."""
    ground(c, (*NATURAL_GROUNDS, M.TREE_A))
    clutter(c)
    distance = _river_mask(c, c.pen(14), c.uniform(6, 15), c.uniform(12, 28))
    c.fill(distance < c.uniform(1, 4), c.pick((M.SAND, M.SOIL, M.MEADOW, M.TREE_B)))
    c.fill(distance < 0, M.WATER, -2)


def lake(c: Canvas) -> None:
    """Draw water with land all round."""
    ground(c, (*NATURAL_GROUNDS, M.TREE_A))
    clutter(c)
    distance = blob(c, c.uniform(26, 42))
    c.fill(distance < c.uniform(1, 5), c.pick((M.SAND, M.SOIL, M.MEADOW, M.TREE_B)))
    c.fill(distance < 0, M.WATER, -2)


def beach(c: Canvas) -> None:
    """Draw land, sand, surf and sea along one shore."""
    ground(c, (M.GRASS, M.MEADOW, M.TREE_A, M.CONCRETE, M.ROCK, M.SAND))
    pen = c.pen(10)
    if c.chance(0.5):
        houses(c, c.integer(3, 9))
    if c.chance(0.5):
        trees(c, c.integer(5, 15))
    u, v = pen.uv()
    shore = v - meander(c, u, c.uniform(2, 9)) + c.noise(12)
    sand = c.uniform(16, 34)
    c.fill(shore < sand, M.SAND)
    for _ in range(c.integer(0, 14)):
        spot = pen.at(c.uniform(-70, 70), c.uniform(sand * 0.4, sand * 0.9))
        spot.ellipse(1.8, 1.8, c.pick((M.CAR_A, M.CAR_B, M.ROOF_A)), 2)
    c.fill(shore < 0, M.FOAM)
    c.fill(shore < -c.uniform(1.5, 3), M.SHALLOW)
    c.fill(shore < -c.uniform(6, 14), M.WATER)
    wave = (shore + 2 * c.noise(10)) % c.uniform(9, 16) < 1.4
    c.fill(wave & (shore < -3) & (shore > -c.uniform(14, 40)), M.FOAM)


def _roadside(c: Canvas) -> None:
    """Draw the surroundings of a road: ground, houses, trees."""
    ground(c)
    if c.chance(0.7):
        houses(c, c.integer(4, 12))
    if c.chance(0.7):
        trees(c, c.integer(5, 16))


def intersection(c: Canvas) -> None:
    """Draw two roads that cross, with crosswalks and cars."""
    _roadside(c)
    pen = c.pen(12)
    other = pen.at(0, 0, c.uniform(1.2, 1.94))
    half, half_other = c.uniform(6, 11), c.uniform(5, 10)
    road(pen, half)
    road(other, half_other)
    pen.rect(half_other, half, M.ASPHALT)
    if c.chance(0.7):
        for side in (-1, 1):
            walk = pen.at(side * (half_other + 5), 0, math.pi / 2)
            walk.rect(half - 1, 2, M.PAINT, stripe=3.2)
            walk = other.at(side * (half + 5), 0, math.pi / 2)
            walk.rect(half_other - 1, 2, M.PAINT, stripe=3.2)
    number = c.integer(0, 8)
    cars(c, pen, number, 60, half / 2)
    cars(c, other, number // 2, 60, half_other / 2)
    c.count("car", number + number // 2)


def roundabout(c: Canvas) -> None:
    """Draw a ring road with an island in its middle and three to five arms."""
    _roadside(c)
    pen = c.pen(10)
    outer, half = c.uniform(22, 34), c.uniform(4, 7)
    arms = c.integer(3, 5)
    for arm in range(arms):
        spoke = pen.at(0, 0, (arm + c.uniform(-0.15, 0.15)) * 2 * math.pi / arms)
        spoke.at(FAR, 0).rect(FAR, half, M.ASPHALT)
        spoke.at(FAR + outer, 0).rect(FAR, 0.6, M.PAINT, stripe=9)
        cars(c, spoke.at(55, 0), 1, 18, half / 2)
    pen.ellipse(outer, outer, M.ASPHALT)
    inner = outer - c.uniform(8, 12)
    pen.ellipse(inner + 1, inner + 1, M.PAINT)
    pen.ellipse(inner, inner, c.pick((M.GRASS, M.PITCH, M.SOIL, M.CONCRETE)))
    if c.chance(0.6):
        middle = c.uniform(2, inner * 0.5)
        pen.ellipse(middle, middle, c.pick((M.TREE_A, M.TREE_B, M.WATER, M.CONCRETE)), 3, dome=True)
    c.count("road", arms)


def storage_tank(c: Canvas) -> None:
    """Draw round tanks in a grid, joined by a pipe."""
    ground(c)
    clutter(c)
    pen = c.pen(8)
    columns, rows = c.integer(1, 4), c.integer(1, 3)
    radius = min(c.uniform(9, 24), 62 / max(columns, rows))
    step = radius * c.uniform(2.25, 2.7)
    if c.chance(0.6):
        floor = c.pick((M.CONCRETE, M.GRAVEL, M.SOIL, M.SAND))
        pen.rect(columns * step / 2 + 3, rows * step / 2 + 3, floor)
    kind = c.pick((M.METAL, M.METAL, M.CONCRETE, M.ROOF_A))
    pen.rect(columns * step / 2, 0.9, M.DARK)
    number = 0
    for i in range(columns):
        for j in range(rows):
            if number and c.chance(0.12):
                continue
            number += 1
            spot = pen.at((i - (columns - 1) / 2) * step, (j - (rows - 1) / 2) * step)
            _tank(c, spot, radius * c.uniform(0.85, 1), kind)
    c.count("tank", number)


def _tank(c: Canvas, spot: Pen, radius: float, kind: M) -> None:
    """Draw a tank with a dark rim and a ladder."""
    spot.ellipse(radius, radius, M.DARK, 8)
    spot.ellipse(radius - 1, radius - 1, kind, 8)
    spot.ellipse(radius * 0.8, radius * 0.8, M.DARK, 8, hole=0.93)
    spot.ellipse(1.5, 1.5, M.DARK, 9)
    spot.line(radius * 0.8, 0, 0.6, M.DARK, 8)


def residential_area(c: Canvas) -> None:
    """Draw streets with rows of houses on both sides."""
    ground(c, (M.GRASS, M.MEADOW, M.SOIL, M.CONCRETE, M.GRAVEL))
    if c.chance(0.5):
        trees(c, c.integer(10, 20))
    pen = c.pen()
    block, lot = c.uniform(36, 50), c.uniform(12, 20)
    roofs = c.pick(((M.ROOF_A,), (M.ROOF_B,), (M.ROOF_A, M.ROOF_B)))
    wide, share = c.uniform(3.5, 5.5), c.uniform(0.5, 0.75)
    for street in (-1, 0, 1):
        lane = pen.at(0, street * block)
        lane.rect(FAR, 3, M.ASPHALT)
        for side in (-1, 1):
            row = _row(c, 17, 0.88, roofs)
            plots = lane.at(c.uniform(0, lot), side * c.uniform(10, 13))
            plots.rect(FAR, wide, row, 5, gable=0.8, stripe=lot, duty=share)
    pen.at(c.uniform(-30, 30), 0, math.pi / 2).rect(FAR, 3, M.ASPHALT)


def parking_lot(c: Canvas) -> None:
    """Draw rows of marked bays, part of them occupied."""
    ground(c)
    clutter(c)
    pen = c.pen(8)
    rows = c.integer(2, 5)
    depth, bay = 6.0, c.uniform(4.6, 6)
    bays = c.integer(12, 24)
    length, step = bays * bay / 2, depth * 2 + c.uniform(7, 10)
    surface, crowd = c.pick((M.ASPHALT, M.ASPHALT, M.CONCRETE, M.GRAVEL)), c.uniform(0.3, 0.95)
    pen.rect(length + 5, rows * step / 2 + 2, surface)
    number = 0
    for row in range(rows):
        lane = pen.at(0, (row - (rows - 1) / 2) * step)
        lane.rect(length, depth, M.PAINT, stripe=bay, duty=0.16)
        lane.rect(length, 0.5, M.PAINT)
        for side in (-1, 1):
            parked = _row(c, bays, crowd, (M.CAR_A, M.CAR_B, M.METAL))
            number += bays - parked.count(GAP)
            lane.at(bay * 0.28, side * depth / 2).rect(
                length, 2.3, parked, 1.5, stripe=bay, duty=0.58
            )
    c.count("car", number)


def _row(c: Canvas, slots: int, occupied: float, kinds: tuple[M, ...]) -> list[int]:
    """Draw the material of each slot of a row, `GAP` for an empty one."""
    return [c.pick(kinds) if c.chance(occupied) else GAP for _ in range(slots)]


def plane(pen: Pen, skin: M = M.METAL) -> None:
    """Draw an aeroplane of about 16 x 16, nose towards +u."""
    for side in (-1, 1):
        pen.at(1.5, 0).line(-4.5, side * 8, 1.2, skin, 3)
        pen.at(-6, 0).line(-2, side * 3.2, 0.8, skin, 3)
    pen.ellipse(8.5, 1.5, skin, 4)


def airport(c: Canvas) -> None:
    """Draw a runway with a taxiway, and aeroplanes before a terminal."""
    ground(c, (M.GRASS, M.MEADOW, M.SOIL, M.CONCRETE, M.SAND))
    pen = c.pen(4)
    surface = c.pick((M.ASPHALT, M.ASPHALT, M.CONCRETE))
    strip = pen.at(0, -c.uniform(16, 32))
    strip.rect(FAR, c.uniform(6, 9), surface)
    strip.rect(FAR, 0.8, M.PAINT, stripe=14)
    if c.chance(0.6):
        strip.at(c.uniform(-40, 40), 0).rect(4, 5, M.PAINT)
    pen.at(c.uniform(-30, 30), -10, math.pi / 2).rect(24, 3, surface)
    pen.at(0, 14).rect(c.uniform(45, 80), 17, c.pick((surface, M.CONCRETE)))
    hall = pen.at(0, c.uniform(34, 40))
    hall.rect(c.uniform(25, 50), 7, c.pick((M.ROOF_A, M.ROOF_B, M.METAL)), 6)
    number, size = c.integer(2, 5), c.uniform(0.9, 1.35)
    for i in range(number):
        spot = pen.at((i - (number - 1) / 2) * 20 * size, c.uniform(14, 18), math.pi / 2, size)
        plane(spot)
    if c.chance(0.4):
        number += 1
        plane(strip.at(c.uniform(-35, 35), 0, 0, size))
    c.count("plane", number)


def boat(pen: Pen, length: float, skin: M) -> None:
    """Draw a boat with a cabin, bow towards +u."""
    pen.ellipse(length, length * 0.33, skin, 2)
    pen.at(-length * 0.2, 0).rect(length * 0.3, length * 0.15, M.WOOD, 3)


def harbor(c: Canvas) -> None:
    """Draw a quay with sheds, and jetties with moored boats."""
    c.material[:] = M.WATER
    pen = c.pen(4)
    land = c.uniform(10, 30)
    quay = pen.at(0, FAR + land)
    quay.rect(FAR * 1.5, FAR, c.pick((M.CONCRETE, M.GRASS, M.ASPHALT, M.SAND, M.GRAVEL)))
    pen.at(0, land + 2).rect(FAR, 2, M.CONCRETE, 2)
    for i in range(c.integer(1, 5)):
        shed = pen.at(i * 24 - 40, land + c.uniform(13, 18))
        house(shed, c.uniform(7, 11), c.uniform(5, 7), c.pick((M.ROOF_A, M.ROOF_B, M.METAL)))
    step, pier, number = c.uniform(20, 30), c.uniform(30, 55), 0
    deck, size = c.pick((M.WOOD, M.CONCRETE)), c.uniform(4, 6)
    for place in c.steps(-70, 70, step):
        jetty = pen.at(place, land - pier / 2, math.pi / 2)
        jetty.rect(pier / 2, 1.5, deck, 1.5)
        berths = int(pier / size) - 1
        for side in (-1, 1):
            moored = _row(c, berths, 0.7, (M.METAL, M.METAL, M.CAR_A))
            number += berths - moored.count(GAP)
            jetty.at(0, side * (2.5 + size * 0.8)).rect(
                berths * size / 2, size * 0.9, moored, 2, stripe=size, duty=0.62
            )
    for _ in range(c.integer(0, 2)):
        number += 1
        boat(pen.at(c.uniform(-50, 50), land - pier - 12, c.uniform(-1, 1)), size * 1.6, M.METAL)
    c.count("boat", number)


def stadium(c: Canvas) -> None:
    """Draw oval stands round a track and a pitch."""
    ground(c)
    clutter(c)
    pen = c.pen(8, 0.85, 1.2)
    long, wide = c.uniform(40, 48), c.uniform(30, 38)
    if c.chance(0.5):
        pen.ellipse(long + 8, wide + 8, c.pick((M.CONCRETE, M.ASPHALT)))
    pen.ellipse(long, wide, M.SEATS, 10)
    for share in (0.92, 0.82, 0.72):
        pen.ellipse(long * share, wide * share, M.DARK, 9 * share, hole=0.97)
    pen.ellipse(long, wide, M.DARK, 8, spokes=(c.integer(12, 20), 0.12))
    if c.chance(0.5):
        pen.ellipse(long, wide, c.pick((M.ROOF_B, M.METAL)), 12, hole=c.uniform(0.8, 0.88))
    infield_u, infield_v = long * 0.64, wide * 0.64
    pen.ellipse(infield_u, infield_v, c.pick((M.TRACK, M.TRACK, M.PITCH, M.SAND)))
    pen.ellipse(infield_u * 0.88, infield_v * 0.85, M.PITCH)
    half_u, half_v = infield_u * 0.66, infield_v * 0.6
    _outline(pen, half_u, half_v, M.PITCH, 0.7)
    pen.rect(half_u, half_v, M.FAIRWAY, stripe=half_u / 3)
    pen.rect(0.7, half_v, M.PAINT)
    pen.ellipse(4, 4, M.PAINT, hole=0.8)


def _outline(pen: Pen, half_u: float, half_v: float, inner: M, line: float) -> None:
    """Draw a painted rectangle round a filled one."""
    pen.rect(half_u + line, half_v + line, M.PAINT)
    pen.rect(half_u - line, half_v - line, inner)


def tennis_court(c: Canvas) -> None:
    """Draw one to six marked courts on a common apron."""
    ground(c)
    clutter(c)
    columns, rows = c.integer(1, 3), c.integer(1, 2)
    scale = min(c.uniform(1.0, 2.0), 54 / (columns * 16), 58 / (rows * 28))
    pen = c.pen(8).at(0, 0, 0, scale)
    apron = c.pick((M.APRON, M.APRON, M.COURT, M.CONCRETE, M.PITCH))
    pen.rect(rows * 29 + 1, columns * 17 + 1, apron)
    for i in range(columns):
        for j in range(rows):
            spot = pen.at((j - (rows - 1) / 2) * 58, (i - (columns - 1) / 2) * 34)
            _court(spot, 0.9 / scale + 0.25)
    c.count("court", columns * rows)


def _court(spot: Pen, line: float) -> None:
    """Draw a marked court with a net."""
    _outline(spot, 23, 12, M.COURT, line)
    for side in (-1, 1):
        spot.at(0, side * 9).rect(23, line * 0.7, M.PAINT)
        spot.at(side * 12, 0).rect(line * 0.7, 9, M.PAINT)
    spot.rect(12, line * 0.7, M.PAINT)
    spot.rect(line * 0.8, 14, M.DARK, 2)


def desert(c: Canvas) -> None:
    """Draw dunes: long ridges, gentle on one side and steep on the other."""
    c.material[:] = c.pick((M.SAND, M.SAND, M.SAND, M.SOIL))
    u, v = c.pen().uv()
    period = c.uniform(14, 30)
    phase = (v + meander(c, u, c.uniform(4, 9)) + 9 * c.noise(4)) / period % 1
    ridge = np.where(phase < 0.7, phase / 0.7, (1 - phase) / 0.3)
    c.fill(phase > c.uniform(0.7, 0.9), c.pick((M.SAND, M.SOIL, M.GRAVEL)))
    c.height += (ridge * period * (0.55 + 0.2 * c.noise(3))).astype(np.float32)
    if c.chance(0.4):
        c.fill(c.noise(4, 3) > 0.75, c.pick((M.ROCK, M.SOIL)), 3)
    number = c.integer(0, 8)
    for _ in range(number):
        tree(c.anywhere(), c.uniform(1, 2.2), c.pick((M.TREE_B, M.MEADOW)))
    if number > 3:
        c.mention("shrubs")
    if c.chance(0.2):
        c.anywhere(25).rect(FAR, 2, M.ASPHALT)
        c.mention("a road")


def bridge(c: Canvas) -> None:
    """Draw a straight stretch of water with a road on piers across it."""
    ground(c, (*GROUNDS, M.TREE_A))
    clutter(c)
    pen = c.pen(10)
    half = c.uniform(20, 36)
    distance = _river_mask(c, pen, half, c.uniform(2, 6))
    c.fill(distance < 2, c.pick((M.SAND, M.SOIL, M.CONCRETE)))
    c.fill(distance < 0, M.WATER, -2)
    span = pen.at(c.uniform(-12, 12), 0, math.pi / 2 + c.uniform(-0.35, 0.35))
    width = c.uniform(4, 8)
    span.rect(FAR, width, M.ASPHALT, 1)
    for i in range(-2, 3):
        span.at(i * half * 0.45, 0).rect(2.4, width + 3, M.CONCRETE, 4)
    span.rect(half + 6, width + 1.2, M.CONCRETE, 7)
    span.rect(FAR, width - 0.6, M.ASPHALT, 6)
    span.rect(FAR, 0.6, M.PAINT, 6, stripe=9)
    if c.chance(0.35):
        span.rect(half, width, M.METAL, 10, stripe=8, duty=0.2)
    number = c.integer(0, 6)
    cars(c, span, number, 60, width / 2)
    c.count("car", number)


def railway(c: Canvas) -> None:
    """Draw parallel tracks with sleepers, at times with a train."""
    ground(c)
    clutter(c, 3)
    pen = c.pen(10)
    number, step = c.integer(1, 5), c.uniform(12, 15)
    bed = c.pick((M.GRAVEL, M.GRAVEL, M.SOIL, M.CONCRETE))
    pen.rect(FAR, number * step / 2 + 2, bed)
    trains = 0
    for i in range(number):
        line = pen.at(0, (i - (number - 1) / 2) * step)
        line.rect(FAR, 4.8, M.WOOD, stripe=5, duty=0.45)
        for side in (-2.6, 2.6):
            line.at(0, side).rect(FAR, 0.8, M.DARK, 1)
        if c.chance(0.3):
            trains += 1
            skin = c.pick((M.CAR_A, M.CAR_B, M.METAL, M.ROOF_A))
            line.at(c.uniform(-50, 50), 0).rect(50, 4, skin, 5, gable=0.4, stripe=22, duty=0.93)
    c.count("track", number)
    if trains:
        c.count("train", trains)


def island(c: Canvas) -> None:
    """Draw land with water all round."""
    c.material[:] = M.WATER
    _, v = c.pen().uv()
    wave = (v + 3 * c.noise(8)) % c.uniform(9, 16) < 1.0
    c.fill(wave & (c.noise(6) > 0.3), M.SHALLOW)
    distance = blob(c, c.uniform(18, 32))
    c.fill(distance < c.uniform(4, 10), M.SHALLOW)
    c.fill(distance < c.uniform(0.8, 2), M.FOAM)
    c.fill(distance < 0, c.pick((M.SAND, M.SAND, M.ROCK, M.SOIL)), 1)
    land = distance < -c.uniform(2, 6)
    c.fill(land, c.pick((M.GRASS, M.MEADOW, M.TREE_A, M.SAND, M.ROCK)), 2)
    if c.chance(0.7):
        woods = (distance < -5) & (c.noise(6, 2) > c.uniform(-0.3, 0.3))
        c.fill(woods, c.pick((M.TREE_A, M.TREE_B)), 5)
        c.mention("trees")
    if c.chance(0.3):
        boat(c.anywhere(10), c.uniform(4, 6), M.METAL)
        c.mention("a boat")


def golf_course(c: Canvas) -> None:
    """Draw curved fairways between woods, with greens and bunkers at their ends."""
    ground(c, (M.GRASS, M.MEADOW, M.TREE_A, M.SOIL))
    woods = c.noise(4, 3) > c.uniform(0.1, 0.45)
    c.fill(woods, c.pick((M.TREE_A, M.TREE_B)), 4)
    pen = c.pen(4)
    holes = c.integer(2, 3)
    for i in range(holes):
        lane = pen.at(0, (i - (holes - 1) / 2) * 42, c.uniform(-0.25, 0.25))
        _hole(c, lane)
    if c.chance(0.4):
        pond = c.anywhere(20)
        pond.ellipse(c.uniform(7, 13), c.uniform(5, 8), M.WATER, -1)
        c.mention("a pond")
    c.count("hole", holes)


def _hole(c: Canvas, lane: Pen) -> None:
    """Draw a fairway along u with a green and bunkers at one end."""
    u, v = lane.uv()
    length = c.uniform(42, 60)
    bend = c.uniform(-9, 9) * np.cos(u / 22)
    narrowing = np.sqrt(np.clip(1 - (u / length) ** 2, 0, 1))
    c.fill(abs(v - bend) < 11 * narrowing, M.FAIRWAY)
    end = lane.at(c.pick((-1, 1)) * length * 0.8, 0)
    end.ellipse(8, 7, M.PITCH)
    end.ellipse(1, 1, M.PAINT, 3)
    for _ in range(c.integer(2, 5)):
        bunker = end.at(c.uniform(-16, 16), c.pick((-1, 1)) * c.uniform(8, 13), c.uniform(0, 3))
        bunker.ellipse(c.uniform(3.5, 6), c.uniform(2.5, 4), M.SAND, -1)
        bunker.at(3, 2).ellipse(3, 2.2, M.SAND, -1)


def mountain(c: Canvas) -> None:
    """Draw ridges with light and dark faces, snow above and green below."""
    ridges = 1 - 1.6 * abs(c.noise(c.integer(2, 4), 4))
    u, v = c.pen(16).uv()
    peak = np.clip(1 - np.sqrt(u * u + v * v) / c.uniform(70, 100), 0, 1)
    relief = ridges * 0.6 + peak
    slope = relief - shifted(relief, c.pick((-5, 5)), c.pick((-5, 0, 5)))
    c.material[:] = M.ROCK
    c.fill(slope > 0.04, c.pick((M.GRAVEL, M.DARK, M.SOIL)))
    c.fill(relief < c.uniform(0.1, 0.7), c.pick((M.TREE_A, M.GRASS, M.SOIL, M.MEADOW)))
    c.fill(relief > c.uniform(0.8, 1.5), M.SNOW)
    c.height += (relief * c.uniform(34, 50)).astype(np.float32)
    if (c.material == M.SNOW).mean() > 0.05:
        c.mention("snow")


SCENES = {
    "farmland": farmland,
    "forest": forest,
    "river": river,
    "lake": lake,
    "beach": beach,
    "intersection": intersection,
    "roundabout": roundabout,
    "storage tank": storage_tank,
    "residential area": residential_area,
    "parking lot": parking_lot,
    "airport": airport,
    "harbor": harbor,
    "stadium": stadium,
    "tennis court": tennis_court,
    "desert": desert,
    "bridge": bridge,
    "railway": railway,
    "island": island,
    "golf course": golf_course,
    "mountain": mountain,
}
