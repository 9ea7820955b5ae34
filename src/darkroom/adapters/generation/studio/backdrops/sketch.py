# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Drawing in linear light on a small canvas that a lens then blurs.

Places are given in parts of the canvas: x 0..1 of its width, y 0..1 of its height; sizes are in
parts of its width. Colours are "#rrggbb" as a display shows them, times a gain that may exceed
one: lamps and sky glints bloom to discs in the blur.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias, TypeVar

import cv2
import numpy as np

from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    shoulder,
    smoothstep,
    to_display,
)

SKETCH_WIDTH_PX, SKETCH_HEIGHT_PX = 384, 512
_RIM = 0.35
_PALER = 0.14

Choice = TypeVar("Choice")
Place: TypeAlias = tuple[float, float]


def ink(colour: str, gain: float = 1.0) -> Picture:
    """Linear RGB of a display colour such as "#ffcc00"."""
    values = [int(colour[start : start + 2], 16) / 255.0 for start in (1, 3, 5)]
    return np.array([value**2.2 * gain for value in values], dtype=np.float32)


@cache
def _disc(radius_px: float) -> Picture:
    reach = int(np.ceil(radius_px)) + 1
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    distance = np.hypot(rows, columns)
    inside = np.clip(radius_px + 0.5 - distance, 0.0, 1.0)
    rim = 1.0 + _RIM * smoothstep(distance, radius_px * 0.6, radius_px)
    kernel = (inside * rim).astype(np.float32)
    return kernel / kernel.sum()


def lens_blur(picture: Picture, radius_px: float) -> Picture:
    """Out of focus: a disc with a slightly brighter rim, as real lenses draw it."""
    if radius_px < 0.8:
        return picture
    return cv2.filter2D(picture, -1, _disc(round(radius_px, 2)), borderType=cv2.BORDER_REFLECT_101)


def fractal(
    rng: np.random.Generator, cells: tuple[float, float], octaves: int = 4, decay: float = 0.5
) -> Picture:
    """Cloudy noise 0..1 (mean about 0.5) with `cells` lumps across and down."""
    total = np.zeros((SKETCH_HEIGHT_PX, SKETCH_WIDTH_PX), dtype=np.float32)
    weight, sum_of_weights = 1.0, 0.0
    for octave in range(octaves):
        across = min(max(int(cells[0] * 2**octave), 1) + 2, SKETCH_WIDTH_PX)
        down = min(max(int(cells[1] * 2**octave), 1) + 2, SKETCH_HEIGHT_PX)
        grid = rng.random((down, across), dtype=np.float32)
        size = (SKETCH_WIDTH_PX, SKETCH_HEIGHT_PX)
        total += np.float32(weight) * cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
        sum_of_weights += weight
        weight *= decay
    return np.clip(total / np.float32(sum_of_weights), 0.0, 1.0)


class Sketch:
    """A canvas under work; every call draws over what is there."""

    def __init__(self, rng: np.random.Generator, ground: str = "#808080") -> None:
        self.rng = rng
        self.canvas: Picture = np.empty((SKETCH_HEIGHT_PX, SKETCH_WIDTH_PX, 3), dtype=np.float32)
        self.canvas[:] = ink(ground)
        rows, columns = np.mgrid[0:SKETCH_HEIGHT_PX, 0:SKETCH_WIDTH_PX].astype(np.float32)
        self.x: Picture = (columns + 0.5) / SKETCH_WIDTH_PX
        self.y: Picture = (rows + 0.5) / SKETCH_HEIGHT_PX

    def wash(self, stops: Sequence[tuple[float, str]], gain: float = 1.0) -> None:
        """Fill from top to bottom through colours at heights; leaves above the first stop."""
        heights = [stop for stop, _ in stops]
        colours = np.array([ink(colour, gain) for _, colour in stops])
        column = self.y[:, 0]
        filled = np.stack(
            [np.interp(column, heights, colours[:, channel]) for channel in range(3)], axis=1
        ).astype(np.float32)
        start, end = heights[0], heights[-1]
        chosen = (column >= start) & (column <= end) if start > 0 or end < 1 else column >= 0
        self.canvas[chosen] = filled[chosen][:, None, :]

    def polygon(self, places: Sequence[Place], colour: str, gain: float = 1.0) -> None:
        """A filled polygon."""
        cv2.fillPoly(self.canvas, [_to_pixels(places)], ink(colour, gain).tolist())

    def box(self, start: Place, end: Place, colour: str, gain: float = 1.0) -> None:
        """A filled upright rectangle between two corners."""
        (x0, y0), (x1, y1) = start, end
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, gain)

    def shaded_box(self, start: Place, end: Place, colours: tuple[str, str]) -> None:
        """A rectangle whose colour runs from the left edge to the right one: a round thing."""
        (x0, y0), (x1, y1) = start, end
        left, right = (
            max(round(x0 * SKETCH_WIDTH_PX), 0),
            min(round(x1 * SKETCH_WIDTH_PX), SKETCH_WIDTH_PX),
        )
        top, bottom = max(round(y0 * SKETCH_HEIGHT_PX), 0), round(y1 * SKETCH_HEIGHT_PX)
        if right <= left or bottom <= top:
            return
        ramp = np.linspace(0.0, 1.0, right - left, dtype=np.float32)[:, None]
        self.canvas[top:bottom, left:right] = ink(colours[0]) * (1 - ramp) + ink(colours[1]) * ramp

    def ellipse(
        self,
        centre: Place,
        radii: tuple[float, float],
        colour: str,
        gain: float = 1.0,
        turn_degrees: float = 0.0,
    ) -> None:
        """A filled ellipse; both radii in parts of the width."""
        middle = (round(centre[0] * SKETCH_WIDTH_PX), round(centre[1] * SKETCH_HEIGHT_PX))
        axes = tuple(max(round(radius * SKETCH_WIDTH_PX), 1) for radius in radii)
        cv2.ellipse(self.canvas, middle, axes, turn_degrees, 0, 360, ink(colour, gain).tolist(), -1)

    def line(self, places: Sequence[Place], colour: str, width: float, gain: float = 1.0) -> None:
        """An open line of `width` parts of the canvas width."""
        thickness = max(round(width * SKETCH_WIDTH_PX), 1)
        cv2.polylines(
            self.canvas, [_to_pixels(places)], False, ink(colour, gain).tolist(), thickness
        )

    def lamp(self, centre: Place, radius: float, colour: str, gain: float) -> None:
        """A small bright disc, added to what is there."""
        middle = (round(centre[0] * SKETCH_WIDTH_PX), round(centre[1] * SKETCH_HEIGHT_PX))
        reach = max(round(radius * SKETCH_WIDTH_PX), 1)
        cv2.circle(self.canvas, middle, reach, ink(colour, gain).tolist(), -1)

    def glow(self, centre: Place, radius: float, colour: str, gain: float) -> None:
        """A soft round light added around a place."""
        ratio = SKETCH_HEIGHT_PX / SKETCH_WIDTH_PX
        distance = np.hypot(self.x - centre[0], (self.y - centre[1]) * ratio) / radius
        halo = np.exp(-distance * distance * 2.0)
        self.canvas += halo[..., None].astype(np.float32) * ink(colour, gain)

    def tint(self, weight: Picture, colour: str, gain: float = 1.0) -> None:
        """Mix a colour in by an H x W weight 0..1."""
        self.canvas = mix(self.canvas, np.broadcast_to(ink(colour, gain), (1, 1, 3)), weight)

    def times(self, factor: Picture) -> None:
        """Light or shade by an H x W factor."""
        self.canvas = self.canvas * factor[..., None].astype(np.float32)

    def soften(self, radius_px: float) -> None:
        """Throw what is drawn so far out of focus; what comes later stays nearer."""
        self.canvas = lens_blur(self.canvas, radius_px)

    def haze(self, sigma_px: float, weight: float) -> None:
        """Light scattered around bright parts."""
        self.canvas = mix(self.canvas, blur(self.canvas, sigma_px), weight)

    def between(self, low: float, high: float) -> float:
        """One number of the sketch's chance."""
        return float(self.rng.uniform(low, high))

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One of the choices, by chance."""
        return choices[int(self.rng.integers(len(choices)))]


Draw: TypeAlias = Callable[[np.random.Generator], Sketch]


def _to_pixels(places: Sequence[Place]) -> Picture:
    scale = np.array([SKETCH_WIDTH_PX, SKETCH_HEIGHT_PX], dtype=np.float64)
    return np.round(np.array(places, dtype=np.float64) * scale).astype(np.int32).reshape(-1, 1, 2)


def develop(sketch: Sketch, radius_px: float, size: tuple[int, int]) -> Picture:
    """Blur by the lens, roll highlights off and enlarge to display values 0..1."""
    uneven = 0.88 + 0.24 * fractal(sketch.rng, (1.5, 2), octaves=2)
    seen = lens_blur(np.clip(sketch.canvas * uneven[..., None], 0.0, 25.0), radius_px)
    picture = to_display(shoulder(seen))
    # Drawn colours are purer than photographed ones.
    picture = mix(picture, luminance(picture)[..., None], _PALER)
    return np.clip(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
