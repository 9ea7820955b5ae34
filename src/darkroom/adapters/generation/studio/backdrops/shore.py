"""Sea, beach, deck and marina."""

import numpy as np

from darkroom.adapters.generation.studio.backdrops.motifs import (
    below,
    clouds,
    discs,
    ridge_line,
    water,
)
from darkroom.adapters.generation.studio.backdrops.sketch import Sketch, fractal
from darkroom.adapters.generation.studio.pixels import smoothstep


def coast(rng: np.random.Generator) -> Sketch:
    """From a yacht's deck: a rocky coast, bright water, a polished rail, a sail overhead."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#4d97d6"), (0.42, "#d4ebf5"), (1.0, "#d4ebf5")])
    clouds(sketch, "#ffffff", 0.3, 0.4)
    cliff = ridge_line(rng, 0.44, 0.16, 2.0) + 0.16 * np.linspace(-0.35, 1.0, 384) ** 2 * 0.8
    mask = below(sketch, cliff.astype(np.float32))
    rock = np.abs(fractal(rng, (16, 8), 4) - 0.5) * 2
    sketch.tint(mask, "#a08d74")
    sketch.times(1.0 + mask * (rock - 0.45) * 1.1)
    green = smoothstep(fractal(rng, (8, 8), 3), 0.5, 0.62) * mask
    sketch.tint(green * (1.0 - smoothstep(sketch.y - cliff[None, :], 0.02, 0.07)), "#5f7a4a")
    water(sketch, 0.45, 1.0, ("#3f9fbc", "#17678f"), 34)
    sketch.soften(3.5)
    sketch.polygon([(-0.02, -0.02), (0.42, -0.02), (-0.02, 0.34)], "#f6f1e4")
    sketch.polygon([(0.36, -0.02), (0.42, -0.02), (-0.02, 0.34), (-0.02, 0.30)], "#cfc7b4")
    _rail(sketch, 0.63)
    deck = 0.86
    sketch.wash([(deck, "#b07a45"), (1.0, "#8a5a30")])
    for plank in range(-8, 18):
        start = 0.5 + (plank / 10 - 0.5) * 1.0
        sketch.line([(start, deck), (0.5 + (plank / 10 - 0.5) * 1.7, 1.0)], "#4a2f1a", 0.004)
    return sketch


def _rail(sketch: Sketch, height: float) -> None:
    tilt = sketch.between(-0.03, 0.03)
    for index in range(6):
        x = 0.02 + index * 0.2
        sketch.line([(x, height + tilt * x), (x, 0.9)], "#f2f4f5", 0.012)
        sketch.line([(x + 0.005, height + tilt * x), (x + 0.005, 0.9)], "#8d979c", 0.004)
    for drop in (0.09, 0.17):
        sketch.line([(0, height + drop), (1, height + drop + tilt)], "#dfe5e8", 0.008)
    sketch.line([(0, height), (1, height + tilt)], "#8a4f22", 0.034)
    sketch.line([(0, height - 0.007), (1, height - 0.007 + tilt)], "#e0a060", 0.010)


def dawn_beach(rng: np.random.Generator) -> Sketch:
    """Pastel sky, a low sun, a thin line of foam and wet sand."""
    sketch = Sketch(rng)
    sketch.wash(
        [(0.0, "#93a6cf"), (0.2, "#cbb4cf"), (0.36, "#f5c3b4"), (0.46, "#ffe0b8"), (1.0, "#ffe0b8")]
    )
    streaks = fractal(rng, (1.5, 16), 4)
    sketch.tint(smoothstep(streaks, 0.52, 0.7) * (1 - smoothstep(sketch.y, 0.2, 0.44)), "#ffc9b8")
    sun = sketch.between(0.14, 0.28)
    sketch.glow((sun, 0.45), 0.42, "#ffb27a", 1.3)
    sketch.lamp((sun, 0.445), 0.035, "#fff0cf", 8.0)
    water(sketch, 0.475, 0.66, ("#c9b8c4", "#8fa6b8"), 8)
    sketch.glow((sun, 0.52), 0.16, "#ffb583", 0.9)
    discs(
        sketch,
        ("#ffe3b8",),
        ((sun - 0.06, 0.48), (sun + 0.06, 0.62)),
        20,
        (4.0, 14.0),
        radius=0.003,
    )
    _shore(sketch, 0.66, ("#bfa592", "#cdb59b", "#a98a72"), "#fff4ec")
    wet = smoothstep(sketch.y, 0.68, 0.72) * (1.0 - smoothstep(sketch.y, 0.74, 0.86))
    sketch.tint(wet * 0.55, "#e9b9a8")
    return sketch


def _shore(sketch: Sketch, top: float, sand: tuple[str, str, str], foam: str) -> None:
    sketch.wash([(top, sand[0]), ((top + 1) / 2, sand[1]), (1.0, sand[2])])
    grains = sketch.y > top
    noise = fractal(sketch.rng, (10, 40), 3) - 0.5
    sketch.times(np.where(grains, 1.0 + 0.3 * noise, 1.0))
    for level, wide in ((top - 0.045, 0.010), (top - 0.005, 0.018), (top + 0.03, 0.026)):
        wave = ridge_line(sketch.rng, level, 0.035, 2.2, 4)
        distance = np.abs(sketch.y - wave[None, :])
        torn = smoothstep(fractal(sketch.rng, (30, 40), 2), 0.3, 0.55)
        sketch.tint((1.0 - smoothstep(distance, wide * 0.3, wide)) * (0.4 + 0.6 * torn), foam)


def beach(rng: np.random.Generator) -> Sketch:
    """A clear day: wide blue horizon, rolling foam, pale sand, a parasol."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#3f94da"), (0.40, "#c6e6f6"), (1.0, "#c6e6f6")])
    clouds(sketch, "#ffffff", 0.45, 0.42)
    water(sketch, 0.42, 0.68, ("#2a83ae", "#6fc0c8"), 26)
    _shore(sketch, 0.68, ("#d9c49a", "#ecdcb8", "#e0cba0"), "#ffffff")
    sketch.soften(3.0)
    x, y = sketch.between(0.80, 0.88), sketch.between(0.40, 0.46)
    sketch.line([(x, y - 0.08), (x + 0.03, 0.80)], "#f2efe6", 0.012)
    for index in range(6):
        left, right = x - 0.20 + index * 0.4 / 6, x - 0.20 + (index + 1) * 0.4 / 6
        colour = "#e8604c" if index % 2 else "#fbf3e6"
        sketch.polygon([(left, y + 0.01), (x, y - 0.10), (right, y + 0.01)], colour)
    sketch.ellipse((x + 0.02, 0.81), (0.15, 0.03), "#b39a70")
    return sketch


def yacht_club(rng: np.random.Generator) -> Sketch:
    """Moored boats with pale masts, royal blue covers, a wooden pier."""
    sketch = Sketch(rng)
    sketch.wash([(0.0, "#3a80cc"), (0.42, "#cfe5f4"), (1.0, "#cfe5f4")])
    clouds(sketch, "#ffffff", 0.4, 0.4)
    hills = below(sketch, ridge_line(rng, 0.47, 0.10, 1.5, 4))
    sketch.tint(hills, "#7f9a98")
    sketch.soften(3.0)
    water(sketch, 0.52, 1.0, ("#4d8fae", "#225a7e"), 22)
    for index in range(13):
        _far_mast(sketch, 0.02 + index * 0.08 + sketch.between(-0.025, 0.025))
    sketch.soften(2.5)
    for x, size in ((0.10, 0.24), (0.90, 0.26), (0.62, 0.15)):
        _boat(sketch, x + sketch.between(-0.03, 0.03), 0.60 + 0.2 * size, size)
    sketch.polygon([(0.0, 0.80), (1.0, 0.74), (1.0, 1.0), (0.0, 1.0)], "#a9794b")
    for board in range(14):
        y = 0.80 + board * board * 0.0016 + board * 0.006
        sketch.line([(0.0, y), (1.0, y - 0.06)], "#5d3d22", 0.005)
    for x in (0.07, 0.93):
        sketch.shaded_box((x - 0.03, 0.66), (x + 0.03, 0.86), ("#c99a66", "#6a4526"))
    return sketch


def _far_mast(sketch: Sketch, x: float) -> None:
    top = sketch.between(0.06, 0.26)
    sketch.line([(x, top), (x, 0.55)], "#e8ecef", 0.006)
    sketch.line([(x, top), (x + 0.035, 0.53)], "#9fb0bb", 0.002)
    sketch.ellipse((x, 0.545), (0.05, 0.014), "#f6f7f7")


def _boat(sketch: Sketch, x: float, y: float, size: float) -> None:
    mast = y - size * 2.3
    sketch.line([(x, mast), (x, y)], "#f4f5f5", 0.013)
    sketch.line([(x + 0.004, mast), (x + 0.004, y)], "#8f9aa0", 0.004)
    for stay in (-0.7, 0.7):
        sketch.line([(x, mast), (x + stay * size, y)], "#b5c0c6", 0.003)
    sketch.line([(x, y - size * 0.45), (x + size * 0.75, y - size * 0.38)], "#1f4fae", 0.03)
    hull = [
        (x - size, y),
        (x + size, y),
        (x + size * 0.75, y + size * 0.32),
        (x - size * 0.7, y + size * 0.32),
    ]
    sketch.polygon(hull, "#fbfbf9")
    stripe = [
        (x - size, y + 0.012),
        (x + size, y + 0.012),
        (x + size * 0.96, y + 0.034),
        (x - size * 0.95, y + 0.034),
    ]
    sketch.polygon(stripe, "#1d48a0")
    sketch.polygon(
        [
            (x - size * 0.5, y),
            (x - size * 0.35, y - size * 0.2),
            (x + size * 0.4, y - size * 0.2),
            (x + size * 0.5, y),
        ],
        "#eef0f0",
    )


DRAWINGS = {
    "coast": coast,
    "dawn_beach": dawn_beach,
    "beach": beach,
    "yacht_club": yacht_club,
}
