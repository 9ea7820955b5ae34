"""Things that several backdrops share: leaves, trunks, clouds, ridges, skylines, lamps, facades."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.adapters.generation.studio.backdrops.sketch import (
    SKETCH_HEIGHT_PX,
    SKETCH_WIDTH_PX,
    Place,
    Sketch,
    fractal,
)
from darkroom.adapters.generation.studio.pixels import Picture, smoothstep


def clouds(sketch: Sketch, colour: str, amount: float, bottom: float) -> None:
    """Fair-weather clouds above height `bottom`; `amount` 0..1."""
    noise = fractal(sketch.rng, (2, 5), octaves=5, decay=0.55)
    weight = smoothstep(noise, 0.62 - 0.25 * amount, 0.80 - 0.15 * amount)
    sketch.tint(weight * (1.0 - smoothstep(sketch.y, bottom * 0.6, bottom)), colour)


def ridge_line(
    rng: np.random.Generator, base: float, height: float, jags: float, octaves: int = 6
) -> Picture:
    """Height of a ridge at every column, in parts of the canvas height (smaller is higher)."""
    columns = np.arange(SKETCH_WIDTH_PX) / SKETCH_WIDTH_PX
    total = np.zeros(SKETCH_WIDTH_PX)
    weight = 1.0
    for octave in range(octaves):
        knots = max(int(jags * 2**octave), 1) + 2
        values = rng.random(knots)
        total += weight * np.interp(columns * (knots - 1), np.arange(knots), values)
        weight *= 0.5
    return (base - height * (total / 2.0 - 0.25)).astype(np.float32)


def below(sketch: Sketch, line: Picture) -> Picture:
    """H x W weight: 1 under a ridge line, soft over one pixel."""
    return smoothstep(sketch.y - line[None, :], -0.5 / SKETCH_HEIGHT_PX, 1.0 / SKETCH_HEIGHT_PX)


def foliage(
    sketch: Sketch,
    colours: Sequence[str],
    area: tuple[Place, Place],
    count: int,
    size: tuple[float, float] = (0.008, 0.03),
) -> None:
    """Leaves thrown over an area, the later ones on top."""
    (x0, y0), (x1, y1) = area
    for _ in range(count):
        centre = sketch.between(x0, x1), sketch.between(y0, y1)
        long = sketch.between(*size)
        radii = long, long * sketch.between(0.35, 0.8)
        gain = sketch.between(0.6, 1.35)
        sketch.ellipse(centre, radii, sketch.pick(colours), gain, sketch.between(0, 180))


def crown(sketch: Sketch, centre: Place, radius: float, colours: Sequence[str], count: int) -> None:
    """The leaves of one tree, darker below."""
    for _ in range(count):
        turn, reach = sketch.between(0, 2 * math.pi), math.sqrt(sketch.between(0, 1)) * radius
        x, y = centre[0] + reach * math.cos(turn), centre[1] + 0.75 * reach * math.sin(turn)
        shade = 0.75 - 0.5 * (y - centre[1]) / radius
        size = sketch.between(0.012, 0.035)
        gain = max(shade, 0.2) * sketch.between(0.7, 1.3)
        sketch.ellipse(
            (x, y), (size, size * 0.6), sketch.pick(colours), gain, sketch.between(0, 180)
        )


def trunk(sketch: Sketch, foot: Place, top: Place, width: float, colours: tuple[str, str]) -> None:
    """A tree trunk with a lit and a shaded side."""
    (x0, y0), (x1, y1) = foot, top
    half = width / 2
    sketch.polygon(
        [(x0 - half, y0), (x1 - half * 0.7, y1), (x1 + half * 0.7, y1), (x0 + half, y0)], colours[1]
    )
    sketch.polygon([(x0 - half, y0), (x1 - half * 0.7, y1), (x1, y1), (x0, y0)], colours[0])


def pine(sketch: Sketch, foot: Place, height: float, colours: Sequence[str]) -> None:
    """A conifer: ragged drooping boughs, wider and darker below."""
    x, y = foot
    sketch.line([(x, y), (x, y - height * 0.9)], "#2a2118", 0.010)
    for _ in range(int(260 * height)):
        part = sketch.between(0.0, 1.0) ** 1.25
        level = y - height * (0.08 + 0.92 * part)
        half = height * 0.30 * (1.0 - part) * sketch.between(0.15, 1.0) + 0.004
        side = 1.0 if sketch.between(0, 1) < 0.5 else -1.0
        size = sketch.between(0.012, 0.030) * (1.15 - 0.7 * part)
        place = x + side * half, level + 0.25 * half
        gain = sketch.between(0.55, 1.3) * (0.8 + 0.5 * part)
        sketch.ellipse(place, (size, size * 0.38), sketch.pick(colours), gain, side * 24.0)


def palm(sketch: Sketch, foot: Place, top: Place, colours: tuple[str, str]) -> None:
    """A palm with drooping fronds."""
    bend = (foot[0] + 0.35 * (top[0] - foot[0]), (foot[1] + top[1]) / 2)
    sketch.line([foot, bend, top], colours[0], 0.022)
    for index in range(11):
        angle = math.radians(-190 + index * 20 + sketch.between(-8, 8))
        reach = sketch.between(0.13, 0.18)
        points: list[Place] = []
        for step in range(5):
            part = step / 4
            drop = 0.075 * part * part
            points.append(
                (
                    top[0] + reach * part * math.cos(angle),
                    top[1] + 0.7 * reach * part * math.sin(angle) + drop,
                )
            )
        sketch.line(points, colours[1], 0.016)


def discs(
    sketch: Sketch,
    colours: Sequence[str],
    area: tuple[Place, Place],
    count: int,
    gain: tuple[float, float],
    *,
    radius: float = 0.006,
) -> None:
    """Points of light that the lens turns into discs."""
    (x0, y0), (x1, y1) = area
    for _ in range(count):
        centre = sketch.between(x0, x1), sketch.between(y0, y1)
        sketch.lamp(
            centre, radius * sketch.between(0.7, 1.3), sketch.pick(colours), sketch.between(*gain)
        )


def bulbs(
    sketch: Sketch, start: Place, end: Place, sag: float, count: int, *, gain: float = 14.0
) -> None:
    """A string of warm bulbs hanging between two places."""
    wire: list[Place] = []
    for step in range(25):
        part = step / 24
        drop = 4.0 * sag * part * (1.0 - part)
        wire.append(
            (start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part + drop)
        )
    sketch.line(wire, "#1c1613", 0.005)
    for index in range(count):
        part = (index + 0.5) / count
        drop = 4.0 * sag * part * (1.0 - part) + 0.012
        x = start[0] + (end[0] - start[0]) * part
        y = start[1] + (end[1] - start[1]) * part + drop
        sketch.glow((x, y), 0.05, "#ff9a3c", 0.22)
        sketch.lamp((x, y), 0.010, "#ffcf8a", gain)


@dataclass(frozen=True, slots=True)
class Skyline:
    """Towers on a horizon: their colours, the colour of their windows, and how many are lit."""

    colours: Sequence[str]
    windows: str
    lit: float
    gain: float = 1.0


def skyline(sketch: Sketch, foot: float, tallest: float, towers: int, look: Skyline) -> None:
    """A row of towers standing on height `foot`."""
    x = -0.05
    while x < 1.05:
        width = sketch.between(0.6, 1.4) / towers
        height = tallest * sketch.between(0.35, 1.0)
        # Lower in the middle, where the head will be.
        height *= 0.55 + 0.9 * abs(x + width / 2 - 0.5)
        top = foot - height
        sketch.box((x, top), (x + width, foot), sketch.pick(look.colours))
        if look.lit > 0:
            _lit_windows(sketch, (x, top), (x + width, foot), look)
        x += width * sketch.between(0.95, 1.15)


def _lit_windows(sketch: Sketch, start: Place, end: Place, look: Skyline) -> None:
    columns = max(int((end[0] - start[0]) / 0.022), 1)
    rows = max(int((end[1] - start[1]) / 0.02), 1)
    for column in range(columns):
        for row in range(rows):
            if sketch.rng.random() > look.lit:
                continue
            x = start[0] + (column + 0.5) * (end[0] - start[0]) / columns
            y = start[1] + (row + 0.6) * (end[1] - start[1]) / rows
            gain = look.gain * sketch.between(0.5, 1.5)
            sketch.box((x - 0.004, y - 0.005), (x + 0.004, y + 0.005), look.windows, gain)


@dataclass(frozen=True, slots=True)
class Facade:
    """A house front seen along a street: wall, window and frame colours, floors and bays."""

    wall: str
    window: str
    frame: str
    floors: int = 4
    bays: int = 3


def street_front(
    sketch: Sketch, near_x: float, far_x: float, vanishing: Place, facade: Facade
) -> None:
    """One front between two uprights of a street that runs to the vanishing point."""

    def at(x: float, level: float) -> Place:
        # `level` 0 is the pavement, 1 the roof, drawn at x = -0.15 or 1.15 over the canvas height.
        edge = -0.15 if x < vanishing[0] else 1.15
        part = (x - vanishing[0]) / (edge - vanishing[0])
        height = 1.05 + (-0.35 - 1.05) * level
        return x, vanishing[1] + (height - vanishing[1]) * part

    sketch.polygon([at(near_x, 0), at(far_x, 0), at(far_x, 1), at(near_x, 1)], facade.wall)
    span = far_x - near_x
    for floor in range(facade.floors):
        low = 0.24 + 0.74 * floor / facade.floors
        high = low + 0.48 / facade.floors
        for bay in range(facade.bays):
            start = near_x + span * (bay + 0.22) / facade.bays
            end = near_x + span * (bay + 0.78) / facade.bays
            outer = [at(start, low), at(end, low), at(end, high), at(start, high)]
            sketch.polygon(outer, facade.frame)
            trim = span * 0.05 / facade.bays
            inner_low, inner_high = low + 0.012, high - 0.012
            inner = [
                at(start + trim, inner_low),
                at(end - trim, inner_low),
                at(end - trim, inner_high),
                at(start + trim, inner_high),
            ]
            sketch.polygon(inner, facade.window, sketch.between(0.6, 1.5))


def panes(
    sketch: Sketch,
    start: Place,
    end: Place,
    grid: tuple[int, int],
    colours: tuple[str, str],
    *,
    gain: float = 1.0,
) -> None:
    """A window of `grid` (across, down) panes; colours of glass and frame."""
    (x0, y0), (x1, y1) = start, end
    sketch.box(start, end, colours[1])
    bar = 0.008
    for column in range(grid[0]):
        for row in range(grid[1]):
            left = x0 + (x1 - x0) * column / grid[0] + bar
            right = x0 + (x1 - x0) * (column + 1) / grid[0] - bar
            top = y0 + (y1 - y0) * row / grid[1] + bar * 0.75
            bottom = y0 + (y1 - y0) * (row + 1) / grid[1] - bar * 0.75
            sketch.box((left, top), (right, bottom), colours[0], gain)


def plant(sketch: Sketch, foot: Place, height: float, colours: Sequence[str], pot: str) -> None:
    """A leafy plant in a pot."""
    x, y = foot
    for _ in range(46):
        angle = math.radians(sketch.between(-165, -15))
        reach = height * sketch.between(0.35, 1.0)
        tip = x + 0.55 * reach * math.cos(angle), y - 0.12 + reach * math.sin(angle)
        size = sketch.between(0.02, 0.045)
        turn = math.degrees(angle)
        sketch.ellipse(
            tip, (size, size * 0.42), sketch.pick(colours), sketch.between(0.6, 1.3), turn
        )
    sketch.polygon([(x - 0.06, y - 0.1), (x + 0.06, y - 0.1), (x + 0.045, y), (x - 0.045, y)], pot)


def books(sketch: Sketch, start: Place, end: Place, colours: Sequence[str]) -> None:
    """A row of books standing on a shelf."""
    x, bottom = start[0], end[1]
    room = end[1] - start[1]
    while x < end[0]:
        width = sketch.between(0.016, 0.042)
        height = room * sketch.between(0.68, 0.96)
        if sketch.rng.random() < 0.05:
            x += width
            continue
        colour = sketch.pick(colours)
        sketch.box(
            (x, bottom - height),
            (min(x + width * 0.93, end[0]), bottom),
            colour,
            sketch.between(0.6, 1.25),
        )
        band = bottom - height * sketch.between(0.7, 0.85)
        sketch.box((x, band), (min(x + width * 0.93, end[0]), band + 0.006), "#c9a24a", 0.6)
        x += width


def water(sketch: Sketch, top: float, bottom: float, colours: tuple[str, str], glints: int) -> None:
    """Sea from horizon to shore with waves that grow nearer, and glints of sun."""
    sketch.wash([(top, colours[0]), (bottom, colours[1])])
    inside = (sketch.y >= top) & (sketch.y <= bottom)
    depth = np.clip((sketch.y - top) / max(bottom - top, 1e-3), 0.0, 1.0)
    fine, coarse = fractal(sketch.rng, (8, 90), octaves=2), fractal(sketch.rng, (4, 26), octaves=3)
    waves = 1.0 + (0.5 * (fine - 0.5) * (1 - depth) + 0.9 * (coarse - 0.5) * depth)
    sketch.times(np.where(inside, waves, 1.0))
    discs(
        sketch,
        ("#ffffff", "#fff4dc"),
        ((0.0, top + 0.01), (1.0, top + 0.6 * (bottom - top))),
        glints,
        (2.0, 9.0),
        radius=0.003,
    )
