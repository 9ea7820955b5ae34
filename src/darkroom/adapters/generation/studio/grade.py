# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""The last look of the whole picture: tone, colour, glow, vignette and grain."""

from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    smoothstep,
)


@dataclass(frozen=True, slots=True)
class Grade:
    """A recipe. `curve` is the output at inputs 0, .25, .5, .75, 1; tints add to RGB."""

    curve: tuple[float, float, float, float, float] = (0.0, 0.235, 0.5, 0.765, 1.0)
    saturation: float = 1.0
    shadows: tuple[float, float, float] = (0.0, 0.0, 0.0)
    highlights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bloom: float = 0.10
    vignette: float = 0.10
    grain: float = 0.014
    mono: tuple[float, float, float] | None = None


GRADES = {
    "clean": Grade(),
    "crisp": Grade((0.0, 0.215, 0.495, 0.785, 1.0), 1.06, bloom=0.05),
    "warm_film": Grade(
        (0.03, 0.245, 0.51, 0.765, 0.98),
        0.96,
        (0.012, 0.0, -0.012),
        (0.03, 0.012, -0.03),
        grain=0.022,
    ),
    "matte": Grade(
        (0.06, 0.27, 0.51, 0.745, 0.955),
        0.86,
        (0.0, 0.006, 0.014),
        (0.012, 0.006, -0.008),
        bloom=0.06,
        grain=0.02,
    ),
    "golden": Grade(
        (0.015, 0.24, 0.52, 0.785, 1.0),
        1.0,
        (0.014, 0.0, -0.014),
        (0.035, 0.004, -0.03),
        bloom=0.22,
        vignette=0.14,
    ),
    "teal_orange": Grade(
        (0.0, 0.21, 0.49, 0.775, 1.0),
        1.04,
        (-0.03, 0.004, 0.03),
        (0.03, 0.008, -0.026),
        vignette=0.16,
        grain=0.018,
    ),
    "moody": Grade(
        (0.01, 0.19, 0.455, 0.735, 0.965),
        0.88,
        (-0.008, 0.0, 0.014),
        (0.016, 0.004, -0.012),
        vignette=0.24,
        grain=0.022,
    ),
    "high_key": Grade(
        (0.02, 0.28, 0.56, 0.815, 1.0),
        0.95,
        (0.0, 0.0, 0.006),
        bloom=0.14,
        vignette=0.0,
        grain=0.01,
    ),
    "mono": Grade((0.01, 0.225, 0.495, 0.785, 1.0), 0.0, grain=0.03, mono=(1.0, 1.0, 1.0)),
    "hard_mono": Grade(
        (0.0, 0.15, 0.46, 0.82, 1.0), 0.0, vignette=0.3, grain=0.045, mono=(1.0, 1.0, 1.0)
    ),
    "oil": Grade(
        (0.02, 0.22, 0.49, 0.76, 0.98),
        1.05,
        (0.02, 0.008, -0.012),
        (0.03, 0.012, -0.03),
        bloom=0.0,
        vignette=0.2,
        grain=0.004,
    ),
    "varnish": Grade(
        (0.02, 0.215, 0.50, 0.79, 0.98),
        1.08,
        (0.016, 0.006, -0.01),
        (0.025, 0.01, -0.03),
        bloom=0.05,
        vignette=0.3,
        grain=0.006,
    ),
    "neon": Grade(
        (0.0, 0.22, 0.50, 0.78, 1.0),
        1.1,
        (0.0, -0.006, 0.02),
        bloom=0.25,
        vignette=0.2,
        grain=0.016,
    ),
    "sepia": Grade(
        (0.05, 0.26, 0.51, 0.755, 0.96),
        0.0,
        vignette=0.2,
        grain=0.035,
        mono=(1.07, 0.985, 0.82),
    ),
}


def apply_grade(picture: Picture, grade: Grade, rng: np.random.Generator) -> Picture:
    """The graded picture, H x W x 3, 0..1."""
    graded = _bloom(picture, grade.bloom)
    graded = _tone(graded, grade)
    if grade.vignette > 0:
        graded = graded * _vignette(graded, grade.vignette)
    graded = _sharpen(graded)
    return np.clip(graded + _grain(graded, grade, rng), 0.0, 1.0)


def _bloom(picture: Picture, strength: float) -> Picture:
    bright = np.clip(picture - 0.8, 0.0, 1.0)
    return np.clip(picture + blur(bright, 22.0) * (strength * 3.0), 0.0, 1.0)


def _tone(picture: Picture, grade: Grade) -> Picture:
    levels = np.linspace(0.0, 1.0, 1025, dtype=np.float64)
    table = _smooth_curve(levels, grade.curve)
    light = luminance(picture)
    index = np.clip(picture * 1024.0, 0.0, 1024.0)
    floor = np.minimum(index.astype(np.int32), 1023)
    part = index - floor
    toned = (table[floor] * (1.0 - part) + table[floor + 1] * part).astype(np.float32)
    grey = luminance(toned)
    if grade.mono is not None:
        ends = np.minimum(grey[..., None] * np.array(grade.mono, dtype=np.float32), 1.0)
        return mix(ends, np.repeat(grey[..., None], 3, axis=2), smoothstep(grey, 0.8, 1.0) * 0.6)
    toned = grey[..., None] + (toned - grey[..., None]) * np.float32(grade.saturation)
    dark = (1.0 - smoothstep(light, 0.0, 0.55))[..., None]
    bright = smoothstep(light, 0.35, 0.95)[..., None]
    toned = toned + dark * np.array(grade.shadows, dtype=np.float32)
    toned = toned + bright * np.array(grade.highlights, dtype=np.float32)
    return np.clip(toned, 0.0, 1.0)


def _smooth_curve(levels: Picture, outputs: tuple[float, ...]) -> Picture:
    """A monotone cubic through the five points (slopes limited so that it never turns back)."""
    knots = np.linspace(0.0, 1.0, len(outputs))
    values = np.array(outputs, dtype=np.float64)
    rises = np.diff(values) / np.diff(knots)
    slopes = np.concatenate([[rises[0]], (rises[:-1] + rises[1:]) / 2, [rises[-1]]])
    slopes = np.clip(
        slopes,
        0.0,
        3.0 * np.concatenate([[rises[0]], np.minimum(rises[:-1], rises[1:]), [rises[-1]]]),
    )
    piece = np.clip((levels * (len(outputs) - 1)).astype(np.int64), 0, len(outputs) - 2)
    step = 1.0 / (len(outputs) - 1)
    t = levels / step - piece
    start, end = values[piece], values[piece + 1]
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * step * slopes[piece]
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * step * slopes[piece + 1]
    ).astype(np.float32)


def _vignette(picture: Picture, strength: float) -> Picture:
    height, width = picture.shape[:2]
    rows = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    distance = np.sqrt(rows * rows + columns * columns)
    return (1.0 - strength * smoothstep(distance, 0.55, 1.45))[..., None]


def _sharpen(picture: Picture) -> Picture:
    return picture + (picture - blur(picture, 1.1)) * np.float32(0.4)


def _grain(picture: Picture, grade: Grade, rng: np.random.Generator) -> Picture:
    """Film grain: strongest in the middle tones, a little coarser than one pixel."""
    height, width = picture.shape[:2]
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise = noise * np.float32(0.55) + cv2.GaussianBlur(noise, (0, 0), 0.9) * np.float32(1.1)
    light = np.clip(luminance(picture), 0.0, 1.0)
    weight = np.float32(grade.grain) * (0.35 + 2.6 * light * (1.0 - light))
    return (noise * weight)[..., None]
