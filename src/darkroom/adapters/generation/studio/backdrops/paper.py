"""Studio backgrounds: paper with a spot on it, and a wall with the shadow of a window."""

import math

import numpy as np

from darkroom.adapters.generation.studio.backdrops.sketch import Draw, Sketch, fractal, ink
from darkroom.adapters.generation.studio.pixels import blur, smoothstep

# Edge colour, spot colour, strength of the mottling.
_PAPERS = {
    "paper_white": ("#d9dadd", "#f7f7f8", 0.02),
    "paper_grey": ("#4f545c", "#a3a8b0", 0.06),
    "paper_charcoal": ("#17181b", "#4c5057", 0.09),
    "paper_navy": ("#0b1430", "#2f4f94", 0.09),
    "paper_beige": ("#a08c74", "#d8c8b0", 0.06),
    "paper_brown": ("#1d120b", "#6e4a2f", 0.14),
    "paper_cream": ("#d8cdb8", "#efe7d8", 0.02),
}


def _paper(key: str) -> Draw:
    edge, spot, mottling = _PAPERS[key]

    def draw(rng: np.random.Generator) -> Sketch:
        sketch = Sketch(rng, edge)
        across, down = sketch.between(0.40, 0.60), sketch.between(0.36, 0.48)
        distance = np.hypot((sketch.x - across) * 0.75, sketch.y - down)
        sketch.tint(1.0 - smoothstep(distance, 0.02, sketch.between(0.56, 0.66)), spot)
        clouds = fractal(rng, (4, 5), octaves=5, decay=0.62) - 0.5
        sketch.times(1.0 + mottling * 4.0 * clouds)
        return sketch

    return draw


def _window_wall(rng: np.random.Generator) -> Sketch:
    sketch = Sketch(rng, "#8d8072")
    sketch.times(1.0 + 0.18 * (fractal(rng, (3, 4)) - 0.5))
    slant = sketch.between(0.16, 0.26)
    left, top = sketch.between(0.02, 0.16), sketch.between(0.04, 0.12)
    across = (sketch.x - left - 0.25 * (sketch.y - top)) / 0.86
    down = (sketch.y - top + slant * (sketch.x - 0.5)) / 0.66
    light = np.zeros_like(across)
    for column in range(3):
        for row in range(3):
            x0, y0 = column / 3 + 0.018, row / 3 + 0.016
            inside = smoothstep(across, x0, x0 + 0.01) * smoothstep(down, y0, y0 + 0.01)
            inside *= 1.0 - smoothstep(across, x0 + 0.287, x0 + 0.297)
            inside *= 1.0 - smoothstep(down, y0 + 0.291, y0 + 0.301)
            light = np.maximum(light, inside)
    leaves = smoothstep(fractal(rng, (7, 9), octaves=3), 0.42, 0.62)
    light = blur((light * (0.72 + 0.28 * leaves)).astype(np.float32), 3.0)
    sketch.canvas = sketch.canvas * (0.62 + light[..., None] * ink("#fff0d2", 1.55))
    return sketch


def _blinds(rng: np.random.Generator) -> Sketch:
    sketch = Sketch(rng, "#2a2a2c")
    slope = math.tan(math.radians(sketch.between(12, 20)))
    phase = (sketch.y + slope * (sketch.x - 0.5)) * 8.5 + sketch.between(0, 1)
    stripe = np.abs(phase - np.floor(phase) - 0.5) * 2.0
    light = smoothstep(stripe, 0.42, 0.62)
    pool = np.exp(-(((sketch.x - 0.55) / 0.62) ** 2) - ((sketch.y - 0.38) / 0.5) ** 2)
    sketch.canvas = sketch.canvas * (0.35 + 7.5 * (light * pool)[..., None]).astype(np.float32)
    return sketch


def _tubes(rng: np.random.Generator) -> Sketch:
    sketch = Sketch(rng, "#0b0714")
    magenta, cyan = "#ff1f9c", "#18d8ff"
    sketch.glow((0.05, 0.35), 0.7, magenta, 0.32)
    sketch.glow((0.95, 0.32), 0.7, cyan, 0.26)
    sketch.times(1.0 + 0.5 * (fractal(rng, (3, 4)) - 0.5))
    for colour, start, lean in ((magenta, 0.05, 0.10), (cyan, 0.83, -0.10)):
        for index in range(3):
            x = start + index * 0.055 + sketch.between(-0.015, 0.015)
            top, bottom = sketch.between(-0.05, 0.14), sketch.between(0.55, 0.95)
            sketch.line([(x, top), (x + lean * 0.6, bottom)], colour, 0.012, 7.0 - 1.6 * index)
            sketch.glow((x, 0.35), 0.16, colour, 0.10)
    y = sketch.between(0.06, 0.12)
    sketch.line(
        [(0.30, y), (0.68, y + sketch.between(-0.06, 0.06))],
        sketch.pick((magenta, cyan)),
        0.012,
        5.0,
    )
    return sketch


def _umber(rng: np.random.Generator) -> Sketch:
    sketch = Sketch(rng, "#3a2a18")
    sketch.glow((sketch.between(0.3, 0.7), 0.36), 0.6, "#a07a48", 0.8)
    strokes = fractal(rng, (9, 7), octaves=3, decay=0.7)
    sketch.tint(smoothstep(strokes, 0.40, 0.85) * 0.30, "#5a5a3c")
    sketch.tint(smoothstep(strokes, 0.60, 0.20) * 0.35, "#7a4f2c")
    sketch.times(1.0 + 0.9 * (fractal(rng, (5, 6), decay=0.6) - 0.5))
    return sketch


DRAWINGS: dict[str, Draw] = {key: _paper(key) for key in _PAPERS} | {
    "window_wall": _window_wall,
    "blinds": _blinds,
    "tubes": _tubes,
    "umber": _umber,
}
