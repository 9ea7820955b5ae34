"""Cafes, restaurants, cellars and market stalls."""

import math

import numpy as np

from darkroom.adapters.generation.studio.backdrops.motifs import (
    books,
    bulbs,
    crown,
    discs,
    panes,
)
from darkroom.adapters.generation.studio.backdrops.sketch import Place, Sketch, fractal
from darkroom.adapters.generation.studio.pixels import smoothstep


def paris_cafe(rng: np.random.Generator) -> Sketch:
    """A cream front with faded green shutters, an awning, bulbs, rattan chairs."""
    sketch = Sketch(rng, "#d9cbb0")
    sketch.times(1.0 + 0.2 * (fractal(rng, (3, 4)) - 0.5))
    for x in (-0.06, 0.30, 0.66):
        panes(sketch, (x + 0.10, 0.16), (x + 0.25, 0.58), (2, 4), ("#8a7a5c", "#efe6d2"), gain=0.9)
        sketch.glow((x + 0.175, 0.42), 0.12, "#ffc070", 0.5)
        for shutter in (x + 0.035, x + 0.255):
            sketch.box((shutter, 0.15), (shutter + 0.062, 0.59), "#5f7a62")
            for slat in range(15):
                y = 0.165 + slat * 0.028
                sketch.line([(shutter + 0.008, y), (shutter + 0.054, y)], "#46604b", 0.006)
    stripes = 14
    for index in range(stripes):
        left, right = index / stripes, (index + 1) / stripes
        colour = "#7a2024" if index % 2 else "#efe4cf"
        sketch.polygon(
            [
                (left, 0.0),
                (right, 0.0),
                (right + (right - 0.5) * 0.06, 0.10),
                (left + (left - 0.5) * 0.06, 0.10),
            ],
            colour,
        )
        sketch.ellipse(((left + right) / 2, 0.10), (0.036, 0.022), colour)
    sketch.wash([(0.66, "#8f8474"), (1.0, "#6f665a")])
    sketch.soften(2.5)
    for x in (0.11, 0.89):
        _rattan_chair(sketch, x + sketch.between(-0.03, 0.03), 0.60)
    sketch.ellipse((0.28, 0.72), (0.12, 0.022), "#efe9dd")
    sketch.line([(0.28, 0.73), (0.28, 1.0)], "#2a2624", 0.014)
    bulbs(sketch, (-0.02, 0.13), (0.5, 0.14), 0.035, 7, gain=9.0)
    bulbs(sketch, (0.5, 0.14), (1.02, 0.12), 0.035, 7, gain=9.0)
    return sketch


def _rattan_chair(sketch: Sketch, x: float, y: float) -> None:
    sketch.ellipse((x, y), (0.10, 0.125), "#b07a3c")
    sketch.ellipse((x, y + 0.005), (0.080, 0.103), "#e3cfa4")
    for index in range(-3, 4):
        sketch.line(
            [(x + index * 0.023, y - 0.07), (x + index * 0.023, y + 0.08)], "#3f6a58", 0.006
        )
        sketch.line(
            [(x - 0.075, y + index * 0.021), (x + 0.075, y + index * 0.021)], "#3f6a58", 0.006
        )
    for leg in (-0.085, 0.085):
        sketch.line([(x + leg, y + 0.04), (x + leg * 1.1, y + 0.36)], "#9a6830", 0.018)
    sketch.ellipse((x, y + 0.12), (0.11, 0.028), "#c08c4a")


def cafe(rng: np.random.Generator) -> Sketch:
    """Wooden shelves with jars and cups, a dark counter, hanging bulbs."""
    sketch = Sketch(rng, "#4a3424")
    sketch.wash([(0.0, "#5a4030"), (0.6, "#6b4c36"), (1.0, "#2c1f17")])
    for level in (0.20, 0.34, 0.48):
        for start, end in ((-0.02, 0.40), (0.60, 1.02)):
            sketch.box((start, level), (end, level + 0.016), "#a5733f")
            x = start + 0.03
            while x < end - 0.05:
                wide, tall = sketch.between(0.025, 0.05), sketch.between(0.035, 0.085)
                colour = sketch.pick(
                    ("#efe6d6", "#b5793f", "#7a8f86", "#d9c49a", "#3c2a20", "#c9d2cc")
                )
                sketch.shaded_box((x, level - tall), (x + wide, level), (colour, "#5d4632"))
                x += wide * sketch.between(1.15, 1.7)
    sketch.box((0.38, 0.08), (0.62, 0.44), "#1e1d1c")
    for row in range(7):
        y = 0.12 + row * 0.04
        sketch.line([(0.41, y), (0.41 + sketch.between(0.08, 0.17), y)], "#cfc9ba", 0.008)
    sketch.box((0.0, 0.62), (1.0, 0.66), "#b5824a")
    sketch.wash([(0.66, "#2a2522"), (1.0, "#1a1614")])
    sketch.shaded_box((0.70, 0.50), (0.96, 0.62), ("#d0d4d6", "#5c6468"))
    sketch.ellipse((0.06, 0.60), (0.04, 0.018), "#f4efe4")
    sketch.soften(2.5)
    for _ in range(6):
        x, y = sketch.pick(("a", "b")), sketch.between(0.08, 0.22)
        place = sketch.between(0.03, 0.36) if x == "a" else sketch.between(0.64, 0.97)
        _pendant(sketch, (place, y))
    return sketch


def _pendant(sketch: Sketch, place: Place) -> None:
    x, y = place
    sketch.line([(x, 0.0), (x, y)], "#120e0b", 0.005)
    sketch.glow((x, y), 0.13, "#ff9a40", 0.55)
    sketch.ellipse((x, y), (0.022, 0.026), "#ffc069", 5.0)
    sketch.lamp((x, y), 0.008, "#ffe6b8", 16.0)


def fine_dining(rng: np.random.Generator) -> Sketch:
    """Dark panelling, tall candles, crystal and folded linen."""
    sketch = Sketch(rng, "#24120e")
    for column in range(5):
        x = column * 0.22 - 0.05
        for top, bottom in ((0.04, 0.40), (0.44, 0.66)):
            sketch.box((x, top), (x + 0.19, bottom), "#3d2017")
            sketch.box((x + 0.02, top + 0.018), (x + 0.17, bottom - 0.018), "#2b150f")
    for x in (0.16, 0.84):
        sketch.box((x - 0.015, 0.22), (x + 0.015, 0.30), "#b98a3c")
        for arm in (-0.05, 0.05):
            sketch.glow((x + arm, 0.20), 0.11, "#ffa244", 0.6)
            sketch.lamp((x + arm, 0.20), 0.010, "#ffd694", 14.0)
    # To one side: over a head it would be a halo.
    chandelier = sketch.pick((0.10, 0.90)) + sketch.between(-0.03, 0.03)
    for index in range(34):
        angle = 2 * math.pi * index / 34
        place = chandelier + 0.20 * math.cos(angle), 0.07 + 0.035 * math.sin(angle)
        sketch.lamp(
            place, 0.005, sketch.pick(("#ffe2b0", "#ffffff", "#ffc878")), sketch.between(4, 15)
        )
    sketch.soften(3.0)
    sketch.polygon([(-0.1, 0.74), (1.1, 0.74), (1.2, 1.0), (-0.2, 1.0)], "#c9b79c")
    sketch.times(
        np.where(sketch.y > 0.74, 0.75 + 0.25 * np.exp(-(((sketch.x - 0.5) / 0.4) ** 2)), 1.0)
    )
    for x in (0.07, 0.19, 0.80, 0.93):
        _candle(sketch, x + sketch.between(-0.02, 0.02), sketch.between(0.47, 0.58))
    for x in (0.13, 0.27, 0.74, 0.87):
        _wine_glass(sketch, (x, 0.80))
    for x in (0.04, 0.96):
        sketch.polygon([(x - 0.06, 0.84), (x, 0.74), (x + 0.06, 0.84)], "#f4ecdd")
    return sketch


def _candle(sketch: Sketch, x: float, top: float) -> None:
    sketch.shaded_box((x - 0.013, top), (x + 0.013, 0.80), ("#f6e6c4", "#b58a58"))
    sketch.line([(x, 0.78), (x, 0.83)], "#b98a3c", 0.036)
    sketch.glow((x, top - 0.02), 0.17, "#ff9636", 0.75)
    sketch.ellipse((x, top - 0.018), (0.009, 0.022), "#ffcf70", 16.0)


def _wine_glass(sketch: Sketch, foot: Place) -> None:
    x, y = foot
    sketch.line([(x, y), (x, y - 0.07)], "#d8d0c4", 0.006)
    sketch.ellipse((x, y - 0.10), (0.030, 0.042), "#8a7f76")
    sketch.ellipse((x, y - 0.088), (0.025, 0.025), "#5d1420")
    sketch.lamp((x - 0.016, y - 0.115), 0.005, "#ffffff", 11.0)
    sketch.ellipse((x, y), (0.028, 0.006), "#cfc6ba")


def wine_cellar(rng: np.random.Generator) -> Sketch:
    """Stone arches, stacked oak barrels, small iron lanterns."""
    sketch = Sketch(rng, "#2b1d14")
    stones = ("#5f4a38", "#6d5642", "#544030", "#4a382a")
    for row in range(24):
        shift = 0.05 if row % 2 else 0.0
        for column in range(11):
            x, y = column * 0.1 - shift, row * 0.043
            sketch.box(
                (x, y), (x + 0.094, y + 0.039), sketch.pick(stones), sketch.between(0.7, 1.25)
            )
    for radius, colour in ((0.47, "#82684e"), (0.41, "#3a281c"), (0.36, "#1c120c")):
        sketch.ellipse((0.5, 0.40), (radius, radius), colour)
        sketch.box((0.5 - radius, 0.40), (0.5 + radius, 0.9), colour)
    for radius, colour in ((0.24, "#5a4534"), (0.20, "#140d09")):
        sketch.ellipse((0.5, 0.42), (radius, radius), colour)
        sketch.box((0.5 - radius, 0.42), (0.5 + radius, 0.9), colour)
    sketch.glow((0.5, 0.42), 0.22, "#ff9d4a", 0.25)
    sketch.soften(2.0)
    for x, y, size in (
        (0.03, 0.56, 0.13),
        (0.97, 0.56, 0.13),
        (0.16, 0.76, 0.15),
        (0.84, 0.76, 0.15),
        (-0.08, 0.78, 0.15),
        (1.08, 0.78, 0.15),
    ):
        _barrel(sketch, (x + sketch.between(-0.01, 0.01), y), size)
    for x in (0.10, 0.90):
        y = sketch.between(0.20, 0.26)
        sketch.glow((x, y), 0.32, "#ff9a3e", 1.1)
        sketch.line([(x, 0.0), (x, y - 0.05)], "#0e0a08", 0.007)
        sketch.box((x - 0.034, y - 0.05), (x + 0.034, y + 0.05), "#17110c")
        sketch.box((x - 0.022, y - 0.034), (x + 0.022, y + 0.036), "#ffb95e", 6.0)
        sketch.line([(x, y - 0.04), (x, y + 0.04)], "#17110c", 0.008)
    return sketch


def _barrel(sketch: Sketch, centre: Place, size: float) -> None:
    x, y = centre
    sketch.ellipse(centre, (size, size), "#2a2320")
    sketch.ellipse(centre, (size * 0.93, size * 0.93), "#8a5c32")
    for index in range(-4, 5):
        offset = index * size * 0.2
        half = math.sqrt(max((size * 0.9) ** 2 - offset * offset, 0.0)) * 0.75
        sketch.line([(x + offset, y - half), (x + offset, y + half)], "#5a3a1e", 0.006)
    sketch.ellipse((x - size * 0.2, y - size * 0.2), (size * 0.4, size * 0.4), "#a87442")
    sketch.line([(x - size * 0.8, y), (x + size * 0.8, y)], "#4a3018", 0.012)


def market(rng: np.random.Generator) -> Sketch:
    """Striped awnings, crates of oranges, tomatoes and herbs, hanging lamps."""
    sketch = Sketch(rng, "#7a5a40")
    sketch.wash([(0.0, "#b89468"), (0.4, "#8a6444"), (1.0, "#5d4430")])
    for level in (0.34, 0.46):
        for start, end in ((-0.02, 0.36), (0.64, 1.02)):
            books(
                sketch,
                (start, level - 0.09),
                (end, level),
                ("#c9412c", "#e0a82c", "#4f7a3a", "#d9c8a4"),
            )
            sketch.box((start, level), (end, level + 0.012), "#5a3c24")
    stripes = 11
    for index in range(stripes):
        left, right = index / stripes, (index + 1) / stripes
        colour = "#cf3527" if index % 2 else "#f7efe0"
        lean = 0.12
        sketch.polygon(
            [
                (left, -0.02),
                (right, -0.02),
                (right + (right - 0.5) * lean, 0.17),
                (left + (left - 0.5) * lean, 0.17),
            ],
            colour,
            1.15 if index % 2 else 1.3,
        )
        middle = (left + right) / 2
        sketch.ellipse((middle + (middle - 0.5) * lean, 0.17), (0.05, 0.03), colour)
    sketch.soften(2.5)
    fruit = (
        ("#f08a1c", "#ffa53a"),
        ("#d9301f", "#ef5a3c"),
        ("#4f8f34", "#86bb4a"),
        ("#e8c22c", "#f6dc62"),
        ("#7a2a5c", "#a84a86"),
    )
    for row in range(4):
        y = 0.58 + row * 0.115
        for column in range(5):
            left = column * 0.21 - 0.03
            kind = fruit[int(rng.integers(len(fruit)))]
            sketch.box((left, y), (left + 0.20, y + 0.10), "#8a6238")
            for _ in range(26):
                place = left + sketch.between(0.015, 0.185), y + sketch.between(-0.015, 0.055)
                sketch.ellipse(place, (0.020, 0.020), kind[0])
                sketch.ellipse((place[0] - 0.005, place[1] - 0.005), (0.009, 0.008), kind[1], 1.5)
            sketch.box((left, y + 0.068), (left + 0.20, y + 0.10), "#b5864c")
    for x in (0.08, 0.92):
        crown(sketch, (x, 0.55), 0.10, ("#3f7a2c", "#5f9a3c", "#86b84a"), 60)
    for x in (0.14, 0.38, 0.64, 0.87):
        sketch.glow((x, 0.25), 0.10, "#ffb45c", 0.6)
        sketch.lamp((x, 0.25), 0.011, "#ffe2a8", 12.0)
    discs(sketch, ("#fff0d0",), ((0.0, 0.2), (1.0, 0.5)), 10, (2.0, 6.0))
    sketch.times(1.0 + 0.15 * smoothstep(sketch.y, 0.2, 0.5))
    return sketch


DRAWINGS = {
    "paris_cafe": paris_cafe,
    "cafe": cafe,
    "fine_dining": fine_dining,
    "wine_cellar": wine_cellar,
    "market": market,
}
