"""Streets, roofs, bridges and stadiums."""

import math
from itertools import pairwise

import numpy as np

from darkroom.adapters.generation.studio.backdrops.motifs import (
    Facade,
    Skyline,
    bulbs,
    clouds,
    crown,
    discs,
    palm,
    skyline,
    street_front,
)
from darkroom.adapters.generation.studio.backdrops.sketch import Place, Sketch, fractal
from darkroom.adapters.generation.studio.pixels import blur, smoothstep


def _street(
    sketch: Sketch, fronts: tuple[tuple[Facade, ...], tuple[Facade, ...]], end: Place
) -> None:
    for facades, edge in ((fronts[0], -0.15), (fronts[1], 1.15)):
        steps = [0.0, 0.40, 0.64, 0.79, 0.90]
        uprights = [edge + (end[0] - edge) * step for step in steps]
        for index in range(len(uprights) - 2, -1, -1):
            facade = facades[index % len(facades)]
            street_front(sketch, uprights[index], uprights[index + 1], end, facade)


def soho_street(rng: np.random.Generator) -> Sketch:
    """Cast-iron fronts, fire escapes and shop windows running to a bright gap of sky."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#a9c9e4"), (0.4, "#fff1d6"), (0.5, "#ffe2b0"), (1.0, "#6f6a66")])
    end = (sketch.between(0.46, 0.54), 0.47)
    brick = Facade("#8c4634", "#3f525c", "#d8c7ad", 5, 3)
    iron = Facade("#5c6066", "#93a7b0", "#b9b6ac", 5, 4)
    stone = Facade("#b39a7c", "#46555e", "#e0d3ba", 5, 3)
    teal = Facade("#3f5f60", "#a9b7b4", "#24393b", 5, 3)
    _street(sketch, ((brick, iron, stone, brick), (iron, brick, teal, stone)), end)
    sketch.polygon(
        [(end[0] - 0.02, 0.5), (end[0] + 0.02, 0.5), (1.1, 1.05), (-0.1, 1.05)], "#77726e"
    )
    sketch.glow((end[0], 0.42), 0.22, "#ffe0a8", 1.3)
    sketch.soften(3.0)
    for base, side in ((0.03, 1), (0.97, -1)):
        for floor in range(5):
            y, drop = 0.04 + floor * 0.13, 0.13
            sketch.line([(base - 0.09, y), (base + 0.09, y)], "#1d1f22", 0.010)
            sketch.line([(base - 0.08 * side, y), (base + 0.08 * side, y + drop)], "#26282b", 0.008)
    for outer, inner in ((-0.02, 0.15), (1.02, 0.85)):
        shop = [(outer, 0.64), (inner, 0.615), (inner, 0.72), (outer, 0.84)]
        sketch.polygon(shop, "#1d1c1d")
        for part in (0.06, 0.38, 0.70):
            left, right = outer + (inner - outer) * part, outer + (inner - outer) * (part + 0.24)
            glass = [(left, 0.655), (right, 0.648), (right, 0.735), (left, 0.765)]
            sketch.polygon(
                glass, sketch.pick(("#ffca80", "#ffdca8", "#e8b070")), sketch.between(0.5, 1.6)
            )
        awning = [(outer, 0.60), (inner, 0.585), (inner, 0.625), (outer, 0.66)]
        sketch.polygon(awning, sketch.pick(("#6a211c", "#1f4a44", "#2b3040")))
    discs(sketch, ("#ffdca0", "#ff5a3c", "#fff0d0"), ((0.34, 0.50), (0.66, 0.60)), 26, (2.0, 8.0))
    sketch.box((0.57, 0.53), (0.66, 0.575), "#f2b91c")
    return sketch


def town_street(rng: np.random.Generator) -> Sketch:
    """Old town houses in pastel colours with balconies, greenery and a bicycle."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#8fbfe6"), (0.42, "#eaf3f4"), (1.0, "#b3a697")])
    end = (sketch.between(0.45, 0.55), 0.48)
    houses = (
        Facade("#d88a66", "#5f7078", "#f3e6d2", 4, 3),
        Facade("#e6cd9a", "#66787c", "#8fa6a0", 4, 3),
        Facade("#9db4c4", "#56666e", "#f0ead8", 4, 3),
        Facade("#e0b0a0", "#5d6c72", "#7a9483", 4, 3),
    )
    _street(sketch, (houses, houses[2:] + houses[:2]), end)
    sketch.polygon(
        [(end[0] - 0.03, 0.5), (end[0] + 0.03, 0.5), (1.1, 1.05), (-0.1, 1.05)], "#b8ab9c"
    )
    for side in (0.06, 0.94):
        for floor in (0.22, 0.46):
            sketch.box((side - 0.10, floor), (side + 0.10, floor + 0.05), "#34383a")
            crown(sketch, (side, floor), 0.08, ("#5f8a44", "#7fa65a", "#c9475a"), 40)
    sketch.soften(3.0)
    wheel = 0.80 if end[0] < 0.5 else 0.10
    for x in (wheel, wheel + 0.14):
        sketch.ellipse((x, 0.78), (0.058, 0.058), "#2a2c2e")
        sketch.ellipse((x, 0.78), (0.046, 0.046), "#a89c8e")
    sketch.line(
        [(wheel, 0.78), (wheel + 0.05, 0.71), (wheel + 0.12, 0.71), (wheel + 0.14, 0.78)],
        "#2f6f8f",
        0.012,
    )
    discs(sketch, ("#fff3d8",), ((0.4, 0.42), (0.6, 0.56)), 12, (1.5, 4.0))
    return sketch


def _water_tank(sketch: Sketch, x: float, foot: float, size: float) -> None:
    for leg in (-0.7, 0.0, 0.7):
        sketch.line(
            [(x + leg * size, foot), (x + leg * size * 0.8, foot - size * 0.7)], "#1a1716", 0.008
        )
    top = foot - size * 2.1
    sketch.shaded_box((x - size, top), (x + size, foot - size * 0.7), ("#6b4a38", "#241a16"))
    sketch.polygon(
        [(x - size * 1.1, top), (x, top - size * 0.75), (x + size * 1.1, top)], "#2b211d"
    )


def rooftop(rng: np.random.Generator) -> Sketch:
    """Dusk over a wide skyline, water tanks, a parapet, a string of bulbs."""
    sketch = Sketch(rng)
    sketch.wash(
        [
            (0.0, "#3b5680"),
            (0.28, "#8f93b4"),
            (0.46, "#f0b78e"),
            (0.56, "#ffd2a0"),
            (1.0, "#ffd2a0"),
        ]
    )
    streaks = smoothstep(fractal(rng, (1.5, 14), 4), 0.5, 0.72)
    sketch.tint(streaks * (1 - smoothstep(sketch.y, 0.3, 0.5)) * 0.6, "#e8a08c")
    far = Skyline(("#7f8099", "#8d8aa0", "#747690"), "#ffe0a8", 0.10, 1.5)
    near = Skyline(("#3a4258", "#454a5c", "#31384c"), "#ffcf86", 0.28, 3.0)
    skyline(sketch, 0.70, 0.34, 13, far)
    sketch.soften(2.0)
    skyline(sketch, 0.74, 0.26, 9, near)
    sketch.soften(3.0)
    _water_tank(sketch, sketch.between(0.84, 0.9), 0.62, 0.075)
    _water_tank(sketch, sketch.between(0.06, 0.12), 0.60, 0.06)
    sketch.box((0.0, 0.73), (1.0, 1.0), "#4d4a4c")
    sketch.box((0.0, 0.715), (1.0, 0.745), "#7d7672")
    bulbs(sketch, (-0.02, 0.06), (0.52, 0.10), 0.05, 7, gain=9.0)
    bulbs(sketch, (0.48, 0.10), (1.02, 0.03), 0.05, 7, gain=9.0)
    return sketch


def rooftop_night(rng: np.random.Generator) -> Sketch:
    """Blue hour: towers as glowing discs, a string of lamps on the railing."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#0d1233"), (0.35, "#1f2a63"), (0.58, "#4a4a8c"), (1.0, "#181a30")])
    towers = Skyline(("#10142c", "#161b36", "#0c1026"), "#ffc878", 0.20, 5.0)
    skyline(sketch, 0.80, 0.56, 9, towers)
    colours = ("#ffb65c", "#ffdca6", "#7fb4ff", "#ff6a4a", "#ffe9c8")
    discs(sketch, colours, ((0.0, 0.42), (1.0, 0.74)), 90, (3.0, 14.0), radius=0.006)
    sketch.soften(3.0)
    sketch.box((0.0, 0.80), (1.0, 1.0), "#0d0e1a")
    sketch.line([(0.0, 0.745), (1.0, 0.745)], "#23263c", 0.02)
    bulbs(sketch, (-0.02, 0.05), (0.46, 0.16), 0.05, 6, gain=18.0)
    bulbs(sketch, (0.42, 0.15), (1.02, 0.02), 0.06, 7, gain=18.0)
    return sketch


def rainy_city(rng: np.random.Generator) -> Sketch:
    """Evening rain: discs of traffic light, their long reflections on wet asphalt."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#14262f"), (0.4, "#2c4a55"), (0.56, "#1c333c"), (1.0, "#0c171c")])
    dim = Skyline(("#16262d", "#1c3038", "#121f26"), "#ffc27a", 0.16, 2.2)
    skyline(sketch, 0.62, 0.62, 7, dim)
    colours = ("#ff4a32", "#ffb04a", "#4ad0c0", "#ffe2b0", "#ff7a3c", "#7fd8ff")
    for _ in range(44):
        x, y = sketch.between(0, 1), sketch.between(0.40, 0.63)
        colour, gain = sketch.pick(colours), sketch.between(3.0, 15.0)
        sketch.lamp((x, y), sketch.between(0.005, 0.010), colour, gain)
        sketch.box(
            (x - 0.006, 0.66), (x + 0.006, 0.66 + sketch.between(0.08, 0.3)), colour, gain * 0.08
        )
    for x, colour in ((0.10, "#ffb04a"), (0.90, "#36c9bc")):
        sketch.box((x - 0.07, 0.16), (x + 0.07, 0.34), colour, 0.55)
        sketch.box((x - 0.06, 0.66), (x + 0.06, 0.95), colour, 0.5)
    wet = sketch.y > 0.64
    ripples = fractal(rng, (10, 90), 2)
    smeared = blur(sketch.canvas, 5.0)
    sketch.canvas = np.where(wet[..., None], smeared * (0.5 + ripples[..., None]), sketch.canvas)
    sketch.canvas = sketch.canvas.astype(np.float32)
    for area in ((0.0, 0.36), (0.64, 1.0)):
        for _ in range(2):
            x = sketch.between(*area)
            y = sketch.between(0.42, 0.52)
            sketch.ellipse((x, y + 0.02), (0.12, 0.065), "#0b1316")
            sketch.box((x - 0.13, y + 0.02), (x + 0.13, y + 0.07), "#16262d")
    sketch.soften(5.0)
    for _ in range(170):
        x, y = sketch.between(0, 1), sketch.between(-0.05, 1.0)
        fall = sketch.between(0.04, 0.11)
        sketch.line([(x, y), (x - 0.012, y + fall)], "#a9c6cf", 0.0026, 0.55)
    return sketch


def foggy_bridge(rng: np.random.Generator) -> Sketch:
    """Railings, lamp posts and towers fading step by step into mist."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#b4bdc2"), (0.5, "#d3d9db"), (1.0, "#a7aeb1")])
    end = (sketch.between(0.44, 0.56), 0.50)
    grey = ("#c3cacd", "#adb5b9", "#8f989d", "#646d73", "#3f474d")
    sketch.polygon([(end[0], end[1]), (1.25, 1.05), (-0.25, 1.05)], "#a3aaad")
    for step, colour in enumerate(grey):
        part = (0.16, 0.28, 0.44, 0.70, 1.0)[step]
        half = 0.62 * part
        if step in {1, 3}:
            _bridge_tower(sketch, end, part, colour)
        for side in (-1, 1):
            x = end[0] + side * half
            foot, top = end[1] + 0.42 * part, end[1] - 0.42 * part
            sketch.line([(x, foot), (x, top)], colour, 0.030 * part)
            sketch.ellipse((x, top), (0.045 * part, 0.045 * part), "#fff6e0", 1.1)
    for side in (-1, 1):
        for level in (0.18, 0.30, 0.42):
            near, far = end[0] + side * 0.80, end[0] + side * 0.10
            drop = (end[1] + level * 1.3, end[1] + level * 0.16)
            sketch.line([(near, drop[0]), (far, drop[1])], "#5d666b", 0.016)
        for post in range(1, 15):
            part = 0.10 + 0.70 * (post / 14) ** 1.8
            x = end[0] + side * part
            scale = part / 0.62
            sketch.line(
                [(x, end[1] + 0.17 * scale), (x, end[1] + 0.44 * scale)], "#6f787d", 0.010 * scale
            )
    # The mist thickens towards the far end.
    distance = np.hypot(sketch.x - end[0], (sketch.y - end[1]) * 1.1)
    sketch.tint((1.0 - smoothstep(distance, 0.02, 0.55)) * 0.9, "#d5dbdd")
    drift = smoothstep(fractal(rng, (2, 4), 4), 0.45, 0.75)
    sketch.tint(drift * 0.45, "#d9dfe1")
    return sketch


def _bridge_tower(sketch: Sketch, end: Place, part: float, colour: str) -> None:
    half, top = 0.42 * part + 0.05, end[1] - 0.85 * part - 0.06
    for side in (-1, 1):
        x = end[0] + side * half
        sketch.box(
            (x - 0.035 * part - 0.01, top), (x + 0.035 * part + 0.01, end[1] + 0.2 * part), colour
        )
        sketch.line([(x, top), (x + side * 0.55, end[1] + 0.25 * part)], colour, 0.008)
    for level in (0.05, 0.35):
        y = top + level * part
        sketch.box((end[0] - half, y), (end[0] + half, y + 0.05 * part), colour)


def running_track(rng: np.random.Generator) -> Sketch:
    """Red lanes and white lines sweeping away to empty stands under a clear sky."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#3d8bd8"), (0.36, "#cfe6f5"), (1.0, "#cfe6f5")])
    clouds(sketch, "#ffffff", 0.3, 0.3)
    sketch.polygon([(0.0, 0.26), (1.0, 0.30), (1.0, 0.47), (0.0, 0.47)], "#9aa4ad")
    for row in range(7):
        y = 0.30 + row * 0.024
        sketch.line([(0, y), (1, y + 0.02)], sketch.pick(("#3f6fae", "#d8dde0", "#5e86ba")), 0.016)
    sketch.polygon([(-0.05, 0.20), (1.05, 0.25), (1.05, 0.28), (-0.05, 0.24)], "#e9edf0")
    for x in (0.08, 0.94):
        sketch.line([(x, 0.02), (x, 0.46)], "#69737a", 0.012)
        for lamp in range(4):
            sketch.lamp((x - 0.03 + lamp * 0.02, 0.03), 0.008, "#ffffff", 5.0)
    sketch.wash([(0.465, "#6fae4a"), (0.53, "#5a9a3c"), (0.535, "#b5432c"), (1.0, "#a3341f")])
    track = sketch.y > 0.535
    sketch.times(np.where(track, 1.0 + 0.16 * (fractal(rng, (40, 60), 2) - 0.5), 1.0))
    vanish = sketch.between(0.30, 0.36)
    for lane in range(-3, 9):
        points: list[Place] = []
        for step in range(13):
            part = step / 12
            bend = 0.10 * math.sin(part * math.pi)
            x = vanish + 0.10 + (lane * 0.27 - 0.52) * part**1.15 + lane * 0.014 + bend * (1 - part)
            points.append((x, 0.535 + 0.47 * part))
        for start, stop in pairwise(points):
            sketch.line([start, stop], "#ffffff", 0.004 + 0.018 * (start[1] - 0.535))
    return sketch


def vintage_car(rng: np.random.Generator) -> Sketch:
    """Sunset, palms, and the rounded turquoise wing of an old car with its chrome."""
    sketch = Sketch(rng)
    sketch.wash(
        [
            (0.0, "#f0a868"),
            (0.25, "#f7bd84"),
            (0.46, "#ffe0ae"),
            (0.56, "#f3c08a"),
            (1.0, "#a87a5c"),
        ]
    )
    sun = sketch.between(0.68, 0.8)
    sketch.glow((sun, 0.44), 0.35, "#ffd08a", 1.6)
    sketch.polygon(
        [(0, 0.55), (0.3, 0.50), (0.6, 0.54), (1, 0.51), (1, 0.62), (0, 0.62)], "#b08468"
    )
    sketch.wash([(0.60, "#b08f78"), (1.0, "#8c6f60")])
    sketch.soften(3.0)
    for x, top in ((0.10, 0.16), (0.27, 0.30), (0.90, 0.13), (0.76, 0.31)):
        lean = sketch.between(-0.04, 0.04)
        palm(
            sketch, (x + lean, 0.62), (x, top + sketch.between(-0.03, 0.03)), ("#6a4632", "#5f5236")
        )
    sketch.soften(3.5)
    _car(sketch)
    return sketch


def _car(sketch: Sketch) -> None:
    body, shade, light = "#25b0ac", "#157773", "#8fe6de"
    # Glasshouse with a wrapped windscreen, then the long low body.
    sketch.polygon([(0.30, 0.62), (0.37, 0.50), (0.80, 0.49), (0.90, 0.62)], "#f3ead6")
    sketch.polygon([(0.33, 0.62), (0.39, 0.515), (0.58, 0.51), (0.58, 0.62)], "#b9d6d8")
    sketch.polygon([(0.61, 0.62), (0.61, 0.51), (0.78, 0.508), (0.86, 0.62)], "#a5c4c8")
    sketch.polygon(
        [(-0.02, 0.66), (0.10, 0.62), (0.92, 0.61), (1.02, 0.64), (1.02, 0.88), (-0.02, 0.88)], body
    )
    sketch.polygon(
        [(-0.02, 0.67), (0.10, 0.63), (0.92, 0.62), (1.02, 0.645), (1.02, 0.665), (-0.02, 0.69)],
        light,
    )
    sketch.box((-0.02, 0.80), (1.02, 0.88), shade)
    sketch.box((-0.02, 0.745), (1.02, 0.765), "#f4f6f6", 1.3)
    sketch.box((-0.02, 0.765), (1.02, 0.772), "#6f7b80")
    sketch.ellipse((0.10, 0.70), (0.075, 0.075), "#e9eef0", 1.2)
    sketch.ellipse((0.10, 0.70), (0.058, 0.058), "#fff6dc", 2.6)
    sketch.box((-0.02, 0.85), (0.24, 0.885), "#f2f5f6", 1.5)
    for x in (0.22, 0.88):
        sketch.ellipse((x, 0.885), (0.115, 0.115), "#191a1c")
        sketch.ellipse((x, 0.885), (0.078, 0.078), "#efe9dc")
        sketch.ellipse((x, 0.885), (0.046, 0.046), "#dfe5e8", 1.5)
    discs(sketch, ("#ffffff", "#fff0d0"), ((0.0, 0.64), (1.0, 0.76)), 16, (4.0, 14.0), radius=0.004)


DRAWINGS = {
    "soho_street": soho_street,
    "town_street": town_street,
    "rooftop": rooftop,
    "rooftop_night": rooftop_night,
    "rainy_city": rainy_city,
    "foggy_bridge": foggy_bridge,
    "running_track": running_track,
    "vintage_car": vintage_car,
}
