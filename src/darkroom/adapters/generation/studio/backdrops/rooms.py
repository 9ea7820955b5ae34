"""Offices, libraries, studios and homes."""

import numpy as np

from darkroom.adapters.generation.studio.backdrops.motifs import (
    Skyline,
    books,
    discs,
    panes,
    plant,
    skyline,
)
from darkroom.adapters.generation.studio.backdrops.sketch import Place, Sketch, fractal
from darkroom.adapters.generation.studio.pixels import smoothstep

_LEAVES = ("#3f7a3a", "#5c9a4a", "#2c5a2c", "#86b86a")
_OLD_SPINES = (
    "#5a1f1c",
    "#6b3a1e",
    "#2f3a2a",
    "#8a5a2c",
    "#3a2418",
    "#7a6a4a",
    "#1f2c3c",
    "#94702f",
)
_MUTED_SPINES = (
    "#8a6a4a",
    "#5f6f66",
    "#a08a68",
    "#6a4a3c",
    "#46545c",
    "#b8a684",
    "#4a5a44",
    "#7a3a30",
)


def library(rng: np.random.Generator) -> Sketch:
    """Tall oak shelves of leather spines in shadow, a green reading lamp."""
    sketch = Sketch(rng, "#2a190e")
    _shelves(sketch, _OLD_SPINES, ("#6b4324", "#3c2413"), 5, 3)
    shade = 1.15 - 0.75 * smoothstep(np.abs(sketch.x - 0.5), 0.1, 0.6)
    sketch.times(shade * (1.25 - 0.5 * sketch.y))
    side = sketch.pick(("left", "right"))
    x = 0.12 if side == "left" else 0.88
    y = sketch.between(0.55, 0.60)
    sketch.soften(3.0)
    sketch.glow((x, y + 0.06), 0.30, "#ffb861", 1.0)
    sketch.box((0.0, 0.78), (1.0, 1.0), "#4a2c16")
    sketch.line([(x, y), (x, 0.79)], "#b58a3c", 0.014)
    sketch.ellipse((x, 0.785), (0.07, 0.014), "#a87f36")
    sketch.polygon(
        [(x - 0.08, y), (x + 0.08, y), (x + 0.12, y + 0.045), (x - 0.12, y + 0.045)], "#1f8a58", 1.6
    )
    sketch.box((x - 0.11, y + 0.045), (x + 0.11, y + 0.056), "#ffe2a0", 7.0)
    discs(sketch, ("#ffcf8a",), ((0.0, 0.0), (1.0, 0.35)), 7, (2.0, 6.0))
    return sketch


def library_wall(rng: np.random.Generator) -> Sketch:
    """Even rows of muted spines, brightly and evenly lit, one warm shelf lamp."""
    sketch = Sketch(rng, "#5d4129")
    _shelves(sketch, _MUTED_SPINES, ("#a47c50", "#63452a"), 6, 3)
    sketch.times(1.25 - 0.35 * sketch.y)
    x = sketch.pick(("left", "right")) == "left"
    sketch.glow((0.14 if x else 0.86, 0.16), 0.24, "#ffc980", 1.1)
    return sketch


def _shelves(
    sketch: Sketch, spines: tuple[str, ...], wood: tuple[str, str], rows: int, columns: int
) -> None:
    height, width = 1.0 / rows, 1.0 / columns
    start = sketch.between(-0.12, 0.0)
    for column in range(columns + 1):
        left = start + column * width
        for row in range(rows):
            top = row * height + 0.01
            sketch.box((left, top), (left + width, top + height), "#1c110a")
            books(
                sketch,
                (left + 0.03, top + 0.02),
                (left + width - 0.012, top + height - 0.022),
                spines,
            )
            sketch.box((left, top + height - 0.022), (left + width, top + height), wood[0])
        sketch.shaded_box((left - 0.012, 0.0), (left + 0.026, 1.0), (wood[0], wood[1]))


def office(rng: np.random.Generator) -> Sketch:
    """A window band with a skyline, bright ceiling panels, pale desks, monitors, a tall plant."""
    sketch = Sketch(rng, "#cfd3d4")
    sketch.wash([(0.0, "#b9bec2"), (0.16, "#dfe2e3")])
    for y, half, spread in ((0.02, 0.15, 0.36), (0.095, 0.085, 0.24)):
        for centre in (0.5 - spread, 0.5, 0.5 + spread):
            sketch.box((centre - half, y), (centre + half, y + 0.22 * half), "#ffffff", 2.2)
    sketch.wash([(0.18, "#cfe3f2"), (0.55, "#eef5f8")], 1.25)
    towers = Skyline(("#a9bccb", "#bccad5", "#98aebf"), "#ffffff", 0.12, 1.2)
    skyline(sketch, 0.56, 0.26, 10, towers)
    for x in np.arange(0.02, 1.0, 0.19):
        sketch.box((float(x), 0.17), (float(x) + 0.014, 0.56), "#59636a")
    sketch.box((0.0, 0.165), (1.0, 0.185), "#8a9398")
    sketch.wash([(0.56, "#d9d5cd"), (1.0, "#a59c90")])
    for desk in (0.04, 0.58):
        y = sketch.between(0.62, 0.66)
        sketch.box((desk, y), (desk + 0.40, y + 0.03), "#dcc096")
        sketch.box((desk + 0.02, y + 0.03), (desk + 0.04, 0.9), "#f0f0ee")
        sketch.box((desk + 0.36, y + 0.03), (desk + 0.38, 0.9), "#f0f0ee")
        for screen in (0.05, 0.21):
            sketch.box((desk + screen, y - 0.10), (desk + screen + 0.14, y - 0.015), "#20262b")
            sketch.box(
                (desk + screen + 0.01, y - 0.094), (desk + screen + 0.13, y - 0.024), "#4a7a9c"
            )
    sketch.soften(2.0)
    plant(sketch, (sketch.between(0.03, 0.10), 0.80), 0.44, _LEAVES, "#e8e6e0")
    return sketch


def corner_office(rng: np.random.Generator) -> Sketch:
    """Floor-to-ceiling panes on two sides, a wide walnut desk, towers in haze."""
    sketch = Sketch(rng, "#c6ccd1")
    sketch.wash([(0.0, "#a9c4da"), (0.5, "#dfeaf1"), (0.72, "#e8edee"), (1.0, "#e8edee")], 1.15)
    skyline(sketch, 0.74, 0.54, 9, Skyline(("#a9bccb", "#b7c6d2", "#9ab0c2"), "#ffffff", 0.10))
    skyline(sketch, 0.76, 0.36, 7, Skyline(("#7f97aa", "#8ba1b2", "#728ba0"), "#eef4f8", 0.14))
    sketch.soften(2.5)
    corner = sketch.between(0.66, 0.76)
    sketch.polygon([(0, 0), (1, 0), (1, 0.02), (corner, 0.09), (0, 0.05)], "#7d858b")
    sketch.polygon([(0, 0.76), (corner, 0.73), (1, 0.80), (1, 1), (0, 1)], "#8b7a6a")
    for x in (0.02, 0.23, 0.45):
        sketch.box((x, 0.04), (x + 0.016, 0.77), "#3e474e")
    for x in (0.86, 0.99):
        sketch.box((x, 0.02), (x + 0.02, 0.80), "#3e474e")
    sketch.box((corner - 0.018, 0.05), (corner + 0.018, 0.78), "#2f363c")
    sketch.line([(0.0, 0.44), (corner, 0.43), (1.0, 0.46)], "#4a535a", 0.010)
    sketch.polygon([(-0.02, 0.77), (0.40, 0.755), (0.42, 0.80), (-0.02, 0.83)], "#7a4f30")
    sketch.polygon([(-0.02, 0.83), (0.42, 0.80), (0.42, 1.0), (-0.02, 1.0)], "#4d2f1b")
    sketch.box((0.06, 0.64), (0.22, 0.75), "#1d2327")
    sketch.box((0.13, 0.75), (0.15, 0.775), "#9aa2a6")
    plant(sketch, (0.93, 0.86), 0.36, _LEAVES, "#3a3d40")
    return sketch


def glass_lobby(rng: np.random.Generator) -> Sketch:
    """Tall clear panels, thin steel columns, a pale stone floor that mirrors the light."""
    sketch = Sketch(rng, "#dfe8ea")
    sketch.wash([(0.0, "#bfdfe8"), (0.5, "#f0f8f8"), (0.66, "#f4f8f6"), (1.0, "#d8d6cf")], 1.2)
    towers = Skyline(("#b9d2da", "#c8dde2", "#aac8d2"), "#ffffff", 0.2, 1.2)
    skyline(sketch, 0.66, 0.42, 8, towers)
    sketch.soften(4.0)
    centre = sketch.between(0.42, 0.58)
    for part in (-1.0, -0.68, -0.42, -0.22, 0.22, 0.42, 0.68, 1.0):
        x = centre + part * 0.60
        top = 0.30 - 0.34 * abs(part)
        foot = 0.64 + 0.20 * abs(part)
        sketch.line([(x, top), (x, foot)], "#75878d", 0.006 + 0.022 * abs(part))
        sketch.line(
            [(x + 0.006, foot), (x + 0.02 * part, 1.0)], "#c2c6c4", 0.010 + 0.02 * abs(part)
        )
    for level in (0.26, 0.48):
        for side in (-1, 1):
            far, near = centre + side * 0.13, centre + side * 0.62
            rise = 0.34 * (level - 0.45)
            sketch.line(
                [(far, level * 0.5 + 0.24), (near, level + rise * 1.6 - 0.02)], "#8fa3a8", 0.009
            )
    floor = sketch.y > 0.66
    sketch.times(np.where(floor, 0.92 + 0.2 * (fractal(rng, (3, 30), 3) - 0.5), 1.0))
    discs(sketch, ("#ffffff", "#eaffff"), ((0.1, 0.0), (0.9, 0.10)), 16, (3.0, 8.0), radius=0.008)
    side = 0.05 if sketch.between(0, 1) < 0.5 else 0.95
    plant(sketch, (side, 0.86), 0.30, _LEAVES, "#f2f2ee")
    return sketch


def art_studio(rng: np.random.Generator) -> Sketch:
    """North skylights over easels, canvases and jars of brushes."""
    sketch = Sketch(rng, "#d3cfc6")
    sketch.wash([(0.0, "#c4c5c2"), (0.7, "#dad6cc"), (0.78, "#b8ab97"), (1.0, "#9c8d76")])
    panes(sketch, (0.03, 0.02), (0.46, 0.34), (3, 2), ("#eaf3fa", "#7d7f80"), gain=1.9)
    panes(sketch, (0.56, 0.02), (0.99, 0.34), (3, 2), ("#e4eff8", "#7d7f80"), gain=1.7)
    sketch.soften(2.0)
    _easel(sketch, (sketch.between(0.78, 0.82), 0.36), 0.34, ("#2647a8", "#d8432a", "#f0e6d2"))
    _easel(sketch, (sketch.between(0.02, 0.06), 0.44), 0.25, ("#c9a23c", "#2f6f6a", "#ece2d0"))
    sketch.polygon([(0.30, 0.50), (0.42, 0.49), (0.43, 0.72), (0.30, 0.73)], "#efe8da")
    sketch.box((0.0, 0.80), (0.26, 0.83), "#8a6238")
    for jar in (0.03, 0.11, 0.19):
        sketch.box((jar, 0.73), (jar + 0.055, 0.80), sketch.pick(("#9fb4b8", "#d0c8b4", "#5d7480")))
        for brush in range(5):
            x = jar + 0.008 + brush * 0.01
            tip = x + sketch.between(-0.02, 0.02), sketch.between(0.62, 0.67)
            sketch.line([(x, 0.74), tip], "#b08a52", 0.006)
            sketch.ellipse(
                tip, (0.006, 0.014), sketch.pick(("#d8432a", "#2647a8", "#e0b02c", "#3a2c22"))
            )
    for _ in range(50):
        x, y = sketch.between(0, 1), sketch.between(0.84, 1.0)
        size = sketch.between(0.003, 0.012)
        sketch.ellipse(
            (x, y), (size, size * 0.5), sketch.pick(("#d8432a", "#2647a8", "#f4efe4", "#e0b02c"))
        )
    return sketch


def _easel(sketch: Sketch, corner: Place, size: float, paints: tuple[str, str, str]) -> None:
    x, y = corner
    height = size * 0.85
    for foot in (-0.03, size * 0.62, size + 0.01):
        sketch.line(
            [(x + size * 0.32, y - 0.10), (x + foot * 0.9, y + height + 0.22)], "#7a5530", 0.016
        )
    sketch.box((x - 0.01, y + height), (x + size * 0.66 + 0.01, y + height + 0.018), "#8a6238")
    sketch.box((x, y), (x + size * 0.66, y + height), paints[2])
    for _ in range(26):
        centre = x + sketch.between(0.1, 0.56) * size, y + sketch.between(0.12, 0.88) * height
        reach = size * sketch.between(0.04, 0.15)
        sketch.ellipse(
            centre, (reach, reach * 0.55), sketch.pick(paints), 1.0, sketch.between(0, 180)
        )


def kitchen(rng: np.random.Generator) -> Sketch:
    """Pale cabinets, a bright window, hanging copper pans, a bowl of lemons, tiles."""
    sketch = Sketch(rng, "#ece6d8")
    tile = 0.052
    for row in range(9):
        for column in range(20):
            x, y = column * tile * 1.0, 0.34 + row * tile * 0.75
            sketch.box(
                (x, y),
                (x + tile - 0.005, y + tile * 0.75 - 0.004),
                "#f3eee2",
                sketch.between(0.88, 1.06),
            )
    panes(sketch, (0.30, 0.06), (0.66, 0.50), (2, 2), ("#f4faff", "#ffffff"), gain=2.0)
    for x0, x1 in ((-0.02, 0.26), (0.70, 1.02)):
        sketch.box((x0, 0.0), (x1, 0.22), "#d6d5c4")
        middle = (x0 + x1) / 2
        for left, right in ((x0 + 0.012, middle - 0.006), (middle + 0.006, x1 - 0.012)):
            sketch.box((left, 0.012), (right, 0.205), "#e6e4d6")
            sketch.box((left + 0.025, 0.03), (right - 0.025, 0.185), "#dcdacb")
        sketch.lamp((middle - 0.02, 0.17), 0.008, "#c98a4a", 1.2)
        sketch.lamp((middle + 0.02, 0.17), 0.008, "#c98a4a", 1.2)
    sketch.line([(0.0, 0.275), (0.28, 0.275)], "#4a4440", 0.010)
    sketch.line([(0.70, 0.275), (1.0, 0.275)], "#4a4440", 0.010)
    for x in (0.06, 0.17, 0.77, 0.88, 0.97):
        _copper_pan(sketch, (x, 0.28), sketch.between(0.038, 0.052))
    sketch.box((0.0, 0.66), (1.0, 0.70), "#f1efea")
    sketch.wash([(0.70, "#c3cbbf"), (1.0, "#aab3a6")])
    for x in (0.22, 0.48, 0.74):
        sketch.box((x, 0.70), (x + 0.006, 1.0), "#7f877c")
    bowl = sketch.pick(("left", "right"))
    _bowl_of_lemons(sketch, 0.15 if bowl == "left" else 0.85)
    plant(sketch, (0.90 if bowl == "left" else 0.10, 0.665), 0.20, _LEAVES, "#b5663c")
    return sketch


def _copper_pan(sketch: Sketch, hook: Place, size: float) -> None:
    x, y = hook
    sketch.line([(x, y), (x, y + 0.075)], "#6a4a38", 0.010)
    sketch.ellipse((x, y + 0.075 + size * 0.75), (size, size), "#a85a2c")
    sketch.ellipse(
        (x - size * 0.2, y + 0.07 + size * 0.65), (size * 0.55, size * 0.55), "#e8a068", 1.3
    )


def _bowl_of_lemons(sketch: Sketch, x: float) -> None:
    for _ in range(16):
        place = x + sketch.between(-0.085, 0.085), 0.63 + sketch.between(-0.035, 0.005)
        sketch.ellipse(
            place,
            (0.03, 0.024),
            sketch.pick(("#f5d021", "#ffe14a", "#e0b010")),
            1.1,
            sketch.between(0, 90),
        )
    sketch.polygon(
        [(x - 0.13, 0.62), (x + 0.13, 0.62), (x + 0.07, 0.672), (x - 0.07, 0.672)], "#5a86a8"
    )


def home_window(rng: np.random.Generator) -> Sketch:
    """A tall bright window with sheer curtains, a linen sofa, a leafy plant."""
    sketch = Sketch(rng, "#d8d0c2")
    sketch.wash([(0.0, "#d9d2c5"), (0.8, "#e2dbce"), (1.0, "#b59a78")])
    panes(sketch, (0.03, 0.03), (0.44, 0.66), (2, 3), ("#f2f8fa", "#f7f5f0"), gain=1.9)
    folds = np.sin(sketch.x * 90.0 + 3.0 * fractal(rng, (3, 2), 2)) * 0.5 + 0.5
    for start, end in ((-0.02, 0.12), (0.36, 0.52)):
        inside = smoothstep(sketch.x, start, start + 0.02) * (
            1 - smoothstep(sketch.x, end - 0.02, end)
        )
        sketch.tint(inside * (0.45 + 0.35 * folds) * (sketch.y < 0.82), "#fbf7ee", 1.2)
    sketch.box((0.62, 0.14), (0.80, 0.34), "#8a7a62")
    sketch.box((0.635, 0.15), (0.785, 0.33), "#efe8da")
    sketch.ellipse((0.71, 0.24), (0.045, 0.05), "#b5826a")
    sketch.box((0.84, 0.18), (0.96, 0.32), "#8a7a62")
    sketch.box((0.852, 0.19), (0.948, 0.31), "#a9b7a0")
    sketch.soften(2.0)
    sketch.box((0.46, 0.62), (1.05, 0.80), "#b8ab97")
    for cushion in (0.50, 0.70, 0.90):
        colour = sketch.pick(("#cfc4b0", "#a3ae92", "#d9cdb8"))
        sketch.box((cushion, 0.60), (cushion + 0.17, 0.74), colour)
    sketch.box((0.44, 0.76), (1.05, 0.90), "#c6baa6")
    plant(
        sketch,
        (sketch.between(0.86, 0.94), 0.66),
        0.36,
        ("#7a9470", "#5f7d58", "#9db48c"),
        "#d8c8b4",
    )
    sketch.glow((0.22, 0.34), 0.5, "#fff4e0", 0.35)
    return sketch


def music_studio(rng: np.random.Generator) -> Sketch:
    """Acoustic foam in the dark, thin violet and cyan lines of light, a mixing console."""
    sketch = Sketch(rng, "#0d0c14")
    cell = 0.075
    for row in range(12):
        for column in range(15):
            x, y = column * cell - 0.03, row * cell * 0.75
            light, dark = ("#2c2936", "#15131c") if (row + column) % 2 else ("#211f2b", "#0e0d14")
            sketch.polygon([(x, y), (x + cell, y), (x + cell / 2, y + cell * 0.37)], light)
            sketch.polygon(
                [
                    (x, y + cell * 0.75),
                    (x + cell, y + cell * 0.75),
                    (x + cell / 2, y + cell * 0.37),
                ],
                dark,
            )
    violet, cyan = "#a03cff", "#22d8ff"
    sketch.glow((0.0, 0.3), 0.55, violet, 0.22)
    sketch.glow((1.0, 0.34), 0.55, cyan, 0.16)
    tilt = sketch.between(-0.03, 0.03)
    sketch.line([(0.07, 0.03), (0.07, 0.72)], violet, 0.014, 7.0)
    sketch.line([(0.93, 0.03), (0.93, 0.72)], cyan, 0.014, 6.0)
    sketch.line([(0.07, 0.045), (0.42, 0.045 + tilt)], violet, 0.012, 6.0)
    sketch.line([(0.58, 0.045 - tilt), (0.93, 0.045)], cyan, 0.012, 5.0)
    sketch.soften(2.5)
    for x in (0.20, 0.80):
        sketch.box((x - 0.085, 0.40), (x + 0.085, 0.66), "#1d1c22")
        sketch.ellipse((x, 0.455), (0.032, 0.032), "#4a4954")
        sketch.ellipse((x, 0.57), (0.066, 0.066), "#3b3a44")
        sketch.ellipse((x, 0.57), (0.030, 0.030), "#6f6e7c")
    sketch.polygon([(-0.05, 0.72), (1.05, 0.72), (1.15, 1.0), (-0.15, 1.0)], "#26252d")
    lamps = ("#ff4a3c", "#4aff8a", "#ffc23c", "#22d8ff", "#d8d8e4")
    for row in range(5):
        for column in range(22):
            if rng.random() < 0.55:
                place = (column + 0.5) / 22, 0.75 + row * 0.05
                sketch.lamp(place, 0.004, sketch.pick(lamps), sketch.between(1.0, 7.0))
    return sketch


DRAWINGS = {
    "library": library,
    "library_wall": library_wall,
    "office": office,
    "corner_office": corner_office,
    "glass_lobby": glass_lobby,
    "art_studio": art_studio,
    "kitchen": kitchen,
    "home_window": home_window,
    "music_studio": music_studio,
}
