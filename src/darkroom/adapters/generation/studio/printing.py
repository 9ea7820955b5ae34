# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Poster, halftone and duotone: pictures made of a few inks. Luminance is cut, never channels."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from darkroom.adapters.generation.studio.paint import kuwahara, paper_grain
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    smoothstep,
)
from darkroom.adapters.generation.studio.sitter import Sitter

# Ground, disc, then the inks of the figure from shadow to light.
_POSTERS = {
    "lemon": (
        "#f7e14a",
        "#e6318a",
        ("#1b1036", "#4a1e6b", "#d4307c", "#ff8a4a", "#ffd04f", "#fff7d6"),
    ),
    "cyan": (
        "#1fb5d8",
        "#ffe04a",
        ("#1a1038", "#5a1a6e", "#e0287a", "#ff7d5c", "#ffc65c", "#fff6da"),
    ),
    "pink": (
        "#ff5fa2",
        "#35d0d8",
        ("#160f30", "#2c2a7a", "#a02a8a", "#f4685a", "#ffc84a", "#fffbe0"),
    ),
}
_SPOT_RED = "#d8362a"


def _colour(code: str) -> Picture:
    return np.array([int(code[start : start + 2], 16) / 255.0 for start in (1, 3, 5)], np.float32)


def _levels(light: Picture, steps: Sequence[float], softness: float) -> Picture:
    """Stairs 0..len(steps) over the luminance, each edge soft by `softness`."""
    total = np.zeros_like(light)
    for step in steps:
        total = total + smoothstep(light, step - softness, step + softness)
    return total


def _balanced(light: Picture, sitter: Sitter, middle_tone: float = 0.62) -> Picture:
    """Luminance stretched so that the face spans the range whatever the photo's exposure."""
    inside = sitter.face > 0.5
    if int(inside.sum()) < 256:
        return light
    low, middle, high = (float(value) for value in np.percentile(light[inside], (3, 50, 97)))
    scaled = np.clip((light - low * 0.6) / max(high - low * 0.6, 0.15), 0.0, 1.0)
    centre = min(max((middle - low * 0.6) / max(high - low * 0.6, 0.15), 0.05), 0.95)
    power = math.log(middle_tone) / math.log(centre)
    return cv2.pow(scaled.astype(np.float32), min(max(power, 0.5), 2.0))


def poster(
    picture: Picture, sitter: Sitter, rng: np.random.Generator, colours: str = "lemon"
) -> Picture:
    """Flat inks, thick contours, a disc behind the head. `colours` is lemon, cyan or pink."""
    ground, disc, inks = _POSTERS[colours]
    height, width = sitter.matte.shape
    fine = np.clip(sitter.features + 0.4 * sitter.face, 0.0, 1.0)
    flat = mix(kuwahara(kuwahara(picture, 6), 4), kuwahara(picture, 2), fine)
    light = _balanced(luminance(flat), sitter, 0.72)
    stairs = _levels(blur(light, 0.8), (0.13, 0.28, 0.46, 0.66, 0.85), 0.012)
    palette = np.stack([_colour(ink) for ink in inks])
    floor = np.minimum(stairs.astype(np.int32), len(inks) - 2)
    figure = mix(palette[floor], palette[floor + 1], np.clip(stairs - floor, 0.0, 1.0))
    lines = smoothstep(blur(light, 2.2) - blur(light, 0.9), 0.02, 0.075)
    figure = mix(figure, np.broadcast_to(palette[0], figure.shape), lines * 0.9)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = sitter.mesh.centre
    distance = np.hypot(columns - float(centre[0]), rows - float(centre[1]))
    radius = min(sitter.mesh.height * 1.35, 0.47 * width)
    behind = np.broadcast_to(_colour(ground), figure.shape)
    dots = _screen((height, width), 20.0, 30.0)
    fade = np.clip((rows / height - 0.35) * 1.1, 0.0, 0.55)
    behind = mix(
        behind,
        np.broadcast_to(_colour(disc), figure.shape),
        smoothstep(fade - dots, -0.03, 0.03) * 0.55,
    )
    behind = mix(
        behind,
        np.broadcast_to(_colour(disc), figure.shape),
        smoothstep(radius - distance, -1.0, 1.0),
    )
    ring = smoothstep(9.0 - np.abs(distance - radius - 20.0), -1.0, 1.0)
    behind = mix(behind, np.broadcast_to(palette[0], figure.shape), ring)
    edge = smoothstep(blur(sitter.matte, 3.0), 0.06, 0.22)
    matte = smoothstep(sitter.matte, 0.35, 0.65)
    outlined = mix(behind, np.broadcast_to(palette[0], figure.shape), edge)
    grain = paper_grain(rng, (height, width), 1.0)
    return np.clip(mix(outlined, figure, matte) * (1.0 + 0.012 * grain[..., None]), 0.0, 1.0)


def _screen(shape: tuple[int, int], pitch_px: float, angle_degrees: float) -> Picture:
    """Threshold 0..1 of a dot screen: ink stands where coverage exceeds it."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    angle = math.radians(angle_degrees)
    turn = np.float32(2 * math.pi / pitch_px)
    u = (columns * math.cos(angle) + rows * math.sin(angle)) * turn
    v = (-columns * math.sin(angle) + rows * math.cos(angle)) * turn
    return (0.5 - 0.25 * (np.cos(u) + np.cos(v))).astype(np.float32)


def halftone(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Black dots on warm paper, one red spot behind; smaller dots on eyes and mouth."""
    height, width = sitter.matte.shape
    shape = (height, width)
    light = luminance(picture)
    light = np.clip(light + (light - blur(light, 3.0)) * 0.9, 0.0, 1.0)
    light = _balanced(light, sitter)
    light = mix(np.ones_like(light), light, smoothstep(sitter.matte, 0.2, 0.7))
    cover = cv2.pow((1.0 - light).astype(np.float32), 1.15)
    coarse, fine = _screen(shape, 9.0, 45.0), _screen(shape, 5.0, 45.0)
    near = np.clip(sitter.features * 1.2, 0.0, 1.0)
    dots = mix(smoothstep(cover - coarse, -0.09, 0.09), smoothstep(cover - fine, -0.15, 0.15), near)
    dots = np.maximum(dots, smoothstep(cover, 0.86, 0.95))
    dots = dots * smoothstep(cover, 0.03, 0.08)
    grain = paper_grain(rng, shape, 1.0)
    page = np.array([0.955, 0.925, 0.85], dtype=np.float32) * (1.0 + 0.014 * grain[..., None])
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = (
        sitter.mesh.centre
        + np.array([rng.uniform(-0.25, 0.25), rng.uniform(-0.35, -0.1)]) * sitter.mesh.height
    )
    distance = np.hypot(columns - float(centre[0]), rows - float(centre[1]))
    spot = smoothstep(sitter.mesh.height * 1.15 - distance, -1.0, 1.0)
    spot = spot * (1.0 - smoothstep(sitter.matte, 0.35, 0.65)) * (0.94 + 0.03 * grain)
    page = mix(page, page * _colour(_SPOT_RED), np.clip(spot, 0.0, 1.0))
    ink = np.array([0.075, 0.07, 0.08], dtype=np.float32)
    return np.clip(
        mix(page, np.broadcast_to(ink, page.shape), dots * (0.96 + 0.02 * grain)), 0.0, 1.0
    )


def duotone(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Deep violet shadows, warm peach lights, and their mixtures."""
    light = _balanced(luminance(picture), sitter)
    light = mix(luminance(picture), light, 0.7)
    shift = float(rng.uniform(-0.02, 0.02))
    shadow = np.array([0.14 + shift, 0.05, 0.30], dtype=np.float32)
    middle = np.array([0.72, 0.25 + shift, 0.43], dtype=np.float32)
    peach = np.array([1.0, 0.87, 0.74], dtype=np.float32)
    low = smoothstep(light, 0.0, 0.58)[..., None]
    high = smoothstep(light, 0.40, 1.0)[..., None]
    toned = shadow + (middle - shadow) * low
    toned = toned + (peach - toned) * high
    noise = paper_grain(rng, (light.shape[0], light.shape[1]), 0.7)
    return np.clip(toned + 0.014 * noise[..., None], 0.0, 1.0)
