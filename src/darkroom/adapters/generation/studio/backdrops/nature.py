"""Mountains, woods, parks and gardens."""

import math
from itertools import pairwise

import numpy as np

from darkroom.adapters.generation.studio.backdrops.motifs import (
    below,
    clouds,
    crown,
    discs,
    foliage,
    pine,
    ridge_line,
    trunk,
)
from darkroom.adapters.generation.studio.backdrops.sketch import Sketch, fractal
from darkroom.adapters.generation.studio.pixels import smoothstep


def alpine(rng: np.random.Generator) -> Sketch:
    """Layered snowy ridges under a clear sky, a green slope with pines in front."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#3f78c0"), (0.35, "#8fbbe6"), (0.55, "#dcebf6"), (1.0, "#dcebf6")])
    clouds(sketch, "#ffffff", 0.35, 0.45)
    ridges = (
        (0.44, 0.40, 2.0, "#8096b8", 0.16),
        (0.50, 0.32, 2.4, "#5a7090", 0.09),
        (0.62, 0.24, 3.0, "#3f5b6c", 0.02),
    )
    for base, height, jags, rock, snow_depth in ridges:
        line = ridge_line(rng, base, height, jags)
        mask = below(sketch, line)
        # Folded noise looks like buttresses and gullies.
        folds = np.abs(fractal(rng, (10, 6), octaves=5, decay=0.62) - 0.5) * 4.0
        lit = np.clip(0.35 + 0.75 * folds, 0.25, 1.0)
        sketch.tint(mask, rock)
        sketch.times(1.0 + mask * (lit - 0.8) * 0.9)
        depth = sketch.y - line[None, :] + 0.30 * (folds - 0.55)
        cover = mask * (1.0 - smoothstep(depth, snow_depth * 0.3, snow_depth + 0.02))
        sketch.tint(cover * (0.3 + 0.7 * lit), "#f6f9ff", 1.0)
        sketch.tint(mask * smoothstep(sketch.y, base - 0.08, base + 0.16) * 0.5, "#b9cde2")
    meadow = ridge_line(rng, 0.80, 0.16, 1.5, 4)
    mask = below(sketch, meadow)
    sketch.tint(mask, "#5d7f43")
    sketch.times(1.0 + mask * 0.9 * (fractal(rng, (14, 20)) - 0.5))
    sketch.soften(3.0)
    for side in (0.02, 0.12, 0.90, 0.99):
        foot = side + sketch.between(-0.03, 0.03), sketch.between(0.86, 0.98)
        pine(sketch, foot, sketch.between(0.26, 0.38), ("#1f3a2c", "#2b4a34", "#17301f"))
    return sketch


def golden_park(rng: np.random.Generator) -> Sketch:
    """Low sun through lindens, tall grass, discs of light between the leaves."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#b9803a"), (0.45, "#ffc98a"), (0.62, "#dfa860"), (1.0, "#7d6030")])
    sun = sketch.between(0.12, 0.3), sketch.between(0.2, 0.32)
    leaves = ("#b9862a", "#8c7a22", "#d9a63c", "#6f6a1e", "#e6bd55")
    foliage(sketch, leaves, ((0.0, 0.0), (1.0, 0.5)), 420, (0.012, 0.04))
    sketch.glow(sun, 0.42, "#ffc98a", 2.2)
    for x in (0.06, 0.24, 0.80, 0.95):
        lean = sketch.between(-0.03, 0.03)
        trunk(
            sketch,
            (x + lean, 0.72),
            (x, -0.02),
            sketch.between(0.035, 0.08),
            ("#7a5426", "#3d2a14"),
        )
    sketch.soften(4.0)
    crowns = ("#8f7a1f", "#b5912c", "#d9ae42", "#65601a")
    crown(sketch, (0.02, 0.1), 0.26, crowns, 150)
    crown(sketch, (0.98, 0.12), 0.26, crowns, 150)
    discs(
        sketch,
        ("#ffe9b0", "#fff3cf", "#ffd27a"),
        ((0.0, 0.0), (1.0, 0.5)),
        48,
        (2.0, 9.0),
        radius=0.005,
    )
    _grass(sketch, 0.66, ("#a88c2c", "#c9a63c", "#7d7a26", "#e0c25c"))
    sketch.glow(sun, 0.75, "#ffa858", 0.55)
    return sketch


def _grass(sketch: Sketch, top: float, colours: tuple[str, ...]) -> None:
    for _ in range(520):
        x, y = sketch.between(-0.02, 1.02), sketch.between(top, 1.05)
        height = sketch.between(0.05, 0.12)
        lean = sketch.between(-0.03, 0.03)
        colour, gain = sketch.pick(colours), sketch.between(0.5, 1.4)
        sketch.line([(x, y), (x + lean, y - height)], colour, 0.006, gain)


def park(rng: np.random.Generator) -> Sketch:
    """A mown lawn in the sun, broad oaks, a bench; shade close by."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#9cc7e8"), (0.4, "#e3f1ee"), (0.5, "#cfe3a8"), (1.0, "#5c8a3a")])
    greens = ("#4f8a35", "#3b7029", "#79ad48", "#2c5a22", "#a3c75c")
    for x, y, radius in (
        (0.1, 0.3, 0.24),
        (0.36, 0.36, 0.14),
        (0.66, 0.35, 0.15),
        (0.9, 0.28, 0.26),
    ):
        crown(sketch, (x, y), radius, greens, 260)
    sketch.box((0.0, 0.49), (1.0, 0.53), "#5d8f3c")
    sketch.wash([(0.53, "#bfd482"), (0.66, "#8cab57"), (1.0, "#52743a")])
    lawn = sketch.y > 0.53
    sketch.times(np.where(lawn, 1.0 + 0.35 * (fractal(rng, (5, 24)) - 0.5), 1.0))
    for x in (0.09, 0.9):
        trunk(sketch, (x, 0.60), (x + 0.01, 0.28), 0.045, ("#6b5436", "#3a2d1d"))
    bench = sketch.between(0.72, 0.78)
    for level in (0.56, 0.58, 0.615):
        sketch.box((bench, level), (bench + 0.22, level + 0.011), "#7a4c2a")
    for leg in (0.01, 0.2):
        sketch.box((bench + leg, 0.56), (bench + leg + 0.012, 0.66), "#2c2c2c")
    sketch.soften(4.0)
    crown(sketch, (0.0, 0.04), 0.24, greens, 150)
    crown(sketch, (1.0, 0.02), 0.22, greens, 150)
    for area in (((0.0, 0.02), (0.28, 0.4)), ((0.74, 0.02), (1.0, 0.4))):
        discs(sketch, ("#f4ffd8", "#fffbe0", "#e4f5a0"), area, 15, (1.5, 6.0))
    return sketch


def autumn_forest(rng: np.random.Generator) -> Sketch:
    """Copper beeches, dark trunks, a pale clearing and drifting leaves."""
    copper = ("#b5521b", "#d9832b", "#8c3a14", "#e6a23c", "#a86a22", "#6f4a1c", "#c9702a")
    return _autumn(rng, ("#e9d3a2", "#8a5a26"), copper, ("#3a2a1e", "#1d1510"))


def autumn_avenue(rng: np.random.Generator) -> Sketch:
    """An avenue of yellow and crimson maples with a carpet of leaves."""
    maples = ("#e8b21e", "#d43a1c", "#f0c93a", "#b3221a", "#ee7a1e", "#f6dc6a")
    return _autumn(rng, ("#fff0cc", "#c98c34"), maples, ("#6a4a34", "#35241a"))


def _autumn(
    rng: np.random.Generator, air: tuple[str, str], leaves: tuple[str, ...], bark: tuple[str, str]
) -> Sketch:
    sketch = Sketch(rng)
    sketch.wash([(0.0, air[1]), (0.42, air[0]), (0.6, air[1]), (1.0, "#6e3f1c")])
    sketch.glow((sketch.between(0.35, 0.65), 0.42), 0.4, air[0], 1.4)
    foliage(sketch, leaves, ((0.0, 0.0), (1.0, 0.42)), 420, (0.012, 0.035))
    for x in (0.30, 0.70):
        trunk(sketch, (x, 0.64), (x, 0.0), 0.03, bark)
    sketch.soften(4.0)
    for x in (0.07, 0.19, 0.83, 0.96):
        shift = sketch.between(-0.025, 0.025)
        trunk(sketch, (x + shift, 0.82), (x, -0.02), sketch.between(0.05, 0.085), bark)
    foliage(sketch, leaves, ((0.0, 0.0), (0.36, 0.3)), 210, (0.016, 0.045))
    foliage(sketch, leaves, ((0.64, 0.0), (1.0, 0.3)), 210, (0.016, 0.045))
    foliage(sketch, leaves, ((0.0, 0.66), (1.0, 1.0)), 520, (0.012, 0.034))
    foliage(sketch, leaves, ((0.0, 0.25), (1.0, 0.75)), 40, (0.010, 0.022))
    discs(sketch, ("#fff0c8", "#ffd98a"), ((0.05, 0.02), (0.95, 0.36)), 30, (1.5, 6.0))
    return sketch


def hike(rng: np.random.Generator) -> Sketch:
    """Green hills, a trail climbing through ferns, boulders and tall pines."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#6fa4d8"), (0.3, "#bcd9ee"), (0.5, "#e6f0ee"), (1.0, "#e6f0ee")])
    clouds(sketch, "#ffffff", 0.7, 0.4)
    hills = ((0.40, 0.20, "#86a9a8"), (0.47, 0.18, "#6c9a6a"), (0.56, 0.16, "#578a45"))
    for base, height, colour in hills:
        mask = below(sketch, ridge_line(rng, base, height, 1.4, 5))
        sketch.tint(mask, colour)
        sun = smoothstep(fractal(rng, (3, 6)), 0.5, 0.7)
        sketch.times(1.0 + mask * (0.7 * sun - 0.2 + 0.4 * (fractal(rng, (30, 40), 2) - 0.5)))
    sketch.wash([(0.62, "#79a83f"), (1.0, "#44702c")])
    turns = [(0.62, 0.62), (0.70, 0.68), (0.60, 0.75), (0.72, 0.84), (0.80, 1.02)]
    for (x0, y0), (x1, y1) in pairwise(turns):
        wide = 0.03 + 0.22 * (y0 - 0.6), 0.03 + 0.22 * (y1 - 0.6)
        sketch.polygon([(x0, y0), (x0 + wide[0], y0), (x1 + wide[1], y1), (x1, y1)], "#c9ad80")
    sketch.soften(3.0)
    dark = ("#1e4427", "#2c5a30", "#234d2a", "#386b3a")
    for x in (0.03, 0.15, 0.88, 0.98):
        pine(sketch, (x + sketch.between(-0.02, 0.02), 0.74), sketch.between(0.5, 0.68), dark)
    for _ in range(7):
        side = 0.0 if sketch.between(0, 1) < 0.6 else 0.82
        stone = side + sketch.between(0.02, 0.2), sketch.between(0.74, 0.95)
        size = sketch.between(0.05, 0.09)
        sketch.ellipse(stone, (size, size * 0.65), "#7c8076")
        sketch.ellipse((stone[0], stone[1] - 0.02), (size * 0.8, size * 0.35), "#86a04e")
    foliage(sketch, ("#5f9a36", "#3f7a2a", "#86b84a"), ((0.0, 0.72), (0.3, 1.0)), 120)
    foliage(sketch, ("#5f9a36", "#3f7a2a", "#86b84a"), ((0.75, 0.78), (1.0, 1.0)), 90)
    return sketch


def zen_garden(rng: np.random.Generator) -> Sketch:
    """A screen of bamboo over raked sand with a few dark stones."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#b9cda2"), (0.5, "#7f9c62"), (0.62, "#5d7a48"), (1.0, "#d8cdb2")])
    foliage(sketch, ("#7fa65a", "#5f8a44", "#a3c27a", "#4a7038"), ((0.0, 0.0), (1.0, 0.55)), 260)
    sketch.soften(4.0)
    x = -0.01
    while x < 1.02:
        width = sketch.between(0.026, 0.042)
        left, right = (("#a9c46c", "#4c6e30"), ("#8fae58", "#3d5c28"), ("#c2cf86", "#66803c"))[
            int(rng.integers(3))
        ]
        sketch.shaded_box((x, 0.0), (x + width, 0.6), (left, right))
        node = sketch.between(0.02, 0.12)
        while node < 0.6:
            sketch.box((x - 0.003, node), (x + width + 0.003, node + 0.007), "#39502a")
            node += sketch.between(0.12, 0.17)
        x += width * sketch.between(1.15, 2.4)
    foliage(sketch, ("#86ad5e", "#b5cf8a", "#55803c"), ((0.0, 0.0), (1.0, 0.25)), 110, (0.02, 0.04))
    sketch.box((0.0, 0.585), (1.0, 0.615), "#4e4638")
    _raked_sand(sketch)
    for side in (0.1, 0.9):
        stone = side + sketch.between(-0.04, 0.04), sketch.between(0.68, 0.74)
        size = sketch.between(0.09, 0.13)
        sketch.ellipse((stone[0], stone[1] + 0.02), (size * 1.1, size * 0.5), "#a3977c")
        sketch.ellipse(stone, (size, size * 0.62), "#3b3d3c")
        sketch.ellipse((stone[0] - 0.02, stone[1] - 0.02), (size * 0.6, size * 0.28), "#6a6c68")
    return sketch


def _raked_sand(sketch: Sketch) -> None:
    sand = sketch.y > 0.615
    depth = np.clip((sketch.y - 0.60), 0.01, 1.0)
    waves = np.sin((2.2 / depth + 1.2 * np.sin(sketch.x * 2.4 * math.pi) * 1.6) * 5.0)
    shade = 1.0 + 0.16 * waves
    base = Sketch(sketch.rng, "#e2d8bf").canvas
    sketch.canvas = np.where(sand[..., None], base * shade[..., None], sketch.canvas).astype(
        np.float32
    )


DRAWINGS = {
    "alpine": alpine,
    "golden_park": golden_park,
    "park": park,
    "autumn_forest": autumn_forest,
    "autumn_avenue": autumn_avenue,
    "hike": hike,
    "zen_garden": zen_garden,
}
