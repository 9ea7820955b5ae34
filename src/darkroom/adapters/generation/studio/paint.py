# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Oil, watercolour and pencil, by classical filters. Finer where the likeness lives."""

import math

import cv2
import numpy as np

from darkroom.adapters.generation.studio.grade import GRADES, apply_grade
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    smoothstep,
    stretch,
)
from darkroom.adapters.generation.studio.sitter import Sitter


def kuwahara(picture: Picture, radius_px: int) -> Picture:
    """Each pixel takes the mean of the calmest of its four quadrants: flat dabs, firm edges."""
    side = radius_px + 1
    grey = luminance(picture)
    square = grey * grey
    best_mean: Picture | None = None
    best_variance: Picture | None = None
    for anchor in ((0, 0), (radius_px, 0), (0, radius_px), (radius_px, radius_px)):
        border = cv2.BORDER_REFLECT_101
        mean = cv2.blur(picture, (side, side), anchor=anchor, borderType=border)
        level = cv2.blur(grey, (side, side), anchor=anchor, borderType=border)
        spread = cv2.blur(square, (side, side), anchor=anchor, borderType=border) - level * level
        if best_mean is None or best_variance is None:
            best_mean, best_variance = mean, spread
            continue
        calmer = spread < best_variance
        best_mean = np.where(calmer[..., None], mean, best_mean)
        best_variance = np.where(calmer, spread, best_variance)
    return np.asarray(best_mean, dtype=np.float32)


def flow_noise(picture: Picture, rng: np.random.Generator, length_px: int) -> Picture:
    """Noise 0..1 smeared along the edges of the picture: the hair of a brush."""
    height, width = picture.shape[:2]
    half = (width // 2, height // 2)
    grey = cv2.resize(luminance(picture), half, interpolation=cv2.INTER_AREA)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = blur(across * across, 5.0), blur(down * down, 5.0), blur(across * down, 5.0)
    # Where nothing leads, strokes follow a slow swirl instead of standing upright.
    swirl = cv2.resize(
        rng.random((7, 5), dtype=np.float32), half, interpolation=cv2.INTER_CUBIC
    ) * np.float32(2 * math.pi)
    weak = np.float32(2e-4)
    angle = 0.5 * np.arctan2(2 * xy + weak * np.sin(swirl), xx - yy + weak * np.cos(swirl))
    step_x, step_y = -np.sin(angle), np.cos(angle)
    noise = rng.random((half[1], half[0]), dtype=np.float32)
    rows, columns = np.mgrid[0 : half[1], 0 : half[0]].astype(np.float32)
    total = noise.copy()
    for direction in (-1.0, 1.0):
        x, y = columns.copy(), rows.copy()
        for _ in range(length_px // 4):
            x += step_x.astype(np.float32) * np.float32(direction * 1.5)
            y += step_y.astype(np.float32) * np.float32(direction * 1.5)
            total += cv2.remap(noise, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    spread = total - blur(total, 9.0)
    normal = np.clip(0.5 + spread / (4.0 * float(spread.std()) + 1e-6), 0.0, 1.0)
    return stretch(normal.astype(np.float32), width, height)


def canvas_weave(shape: tuple[int, int], pitch_px: float) -> Picture:
    """Threads of a canvas, -1..1."""
    rows = np.sin(np.arange(shape[0], dtype=np.float32) * (2 * math.pi / pitch_px))
    columns = np.sin(np.arange(shape[1], dtype=np.float32) * (2 * math.pi / pitch_px))
    return np.maximum.outer(rows, -np.ones(shape[1], np.float32)) * 0.5 + columns[None, :] * 0.5


def paper_grain(rng: np.random.Generator, shape: tuple[int, int], size_px: float) -> Picture:
    """Tooth of a paper, mean 0, deviation 1."""
    noise = blur(rng.standard_normal(shape, dtype=np.float32), size_px)
    return noise / max(float(noise.std()), 1e-6)


def oil(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Bristle strokes on canvas, smaller on the face, smallest on eyes and mouth."""
    face, fine = sitter.face, sitter.features
    wide = kuwahara(kuwahara(picture, 8), 5)
    middle = kuwahara(picture, 4)
    small = kuwahara(picture, 2)
    painted = mix(wide, middle, np.clip(face * 0.95 + sitter.matte * 0.25, 0.0, 1.0))
    painted = mix(painted, small, np.clip(fine * 0.9, 0.0, 1.0))
    grey = luminance(painted)[..., None]
    painted = np.clip(grey + (painted - grey) * 1.18, 0.0, 1.0)
    painted = apply_grade(painted, GRADES["oil"], rng)
    bristles = flow_noise(painted, rng, 44)
    relief = cv2.Sobel(bristles, cv2.CV_32F, 1, 0) + cv2.Sobel(bristles, cv2.CV_32F, 0, 1)
    strength = 0.20 * (1.0 - 0.72 * np.clip(face + fine, 0.0, 1.0))
    weave = canvas_weave(grey.shape[:2], 5.0) * 0.018
    lit = 1.0 + np.clip(relief, -1.0, 1.0) * strength + (bristles - 0.5) * strength * 0.9 + weave
    return np.clip(painted * lit[..., None], 0.0, 1.0)


def watercolour(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Washes with darker rims on cotton paper, fading to bare paper at the borders."""
    height, width = picture.shape[:2]
    shape = (height, width)
    smooth = picture
    for _ in range(2):
        smooth = cv2.bilateralFilter(smooth, 9, 0.10, 7.0)
    fine = np.clip(sitter.features + 0.35 * sitter.face, 0.0, 1.0)
    washes = mix(kuwahara(smooth, 6), kuwahara(smooth, 2), fine)
    grey = luminance(washes)[..., None]
    washes = np.clip(grey + (washes - grey) * 1.25, 0.0, 1.0)
    washes = 1.0 - (1.0 - washes) * 0.88
    pools = cv2.resize(
        rng.random((24, 18), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    grain = paper_grain(rng, shape, 1.3)
    pigment = 1.0 + 0.10 * (pools - 0.5) * 2.0 + 0.035 * grain * (1.0 - luminance(washes))
    washes = np.clip(1.0 - (1.0 - washes) * pigment[..., None], 0.0, 1.0)
    rims = _edges(washes, 1.6) * (1.0 - 0.85 * sitter.features)
    washes = washes * (1.0 - 0.38 * rims)[..., None]
    lines = _edges(smooth, 1.0) * (0.25 + 0.4 * sitter.face) * (1.0 - 0.8 * sitter.features)
    washes = washes * (1.0 - 0.45 * lines[..., None] * np.array([0.8, 0.85, 0.7], np.float32))
    washes = mix(washes, washes * _background_wash(rng, shape), 1.0 - sitter.matte)
    paper = np.array([0.975, 0.962, 0.93], dtype=np.float32) * (1.0 + 0.012 * grain[..., None])
    return np.clip(mix(paper, washes * paper, _painted_area(sitter, rng)), 0.0, 1.0)


def _background_wash(rng: np.random.Generator, shape: tuple[int, int]) -> Picture:
    """Two thin colours running into each other."""
    pairs = (((0.62, 0.78, 0.90), (0.95, 0.80, 0.76)), ((0.70, 0.84, 0.72), (0.97, 0.88, 0.66)))
    first, second = pairs[int(rng.integers(len(pairs)))]
    field = cv2.resize(
        rng.random((7, 5), dtype=np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    weight = smoothstep(field, 0.3, 0.7)[..., None]
    return np.array(first, np.float32) * (1.0 - weight) + np.array(second, np.float32) * weight


def _painted_area(sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Where the brush went: the person, a loose cloud round the head, torn towards the borders."""
    height, width = sitter.matte.shape
    ragged = cv2.resize(
        rng.random((22, 16), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    ragged = ragged * 0.7 + 0.3 * cv2.resize(
        rng.random((88, 64), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    rows = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    middle = float(sitter.mesh.centre[1]) / height
    reach = np.hypot(columns * 0.85, (rows - middle) * 1.35)
    cloud = 1.0 - smoothstep(reach + (ragged - 0.5) * 0.5, 0.52, 0.80)
    bottom = 1.0 - smoothstep(rows + (ragged - 0.5) * 0.16, 0.93, 1.03)
    sides = 1.0 - smoothstep(np.abs(columns) + (ragged - 0.5) * 0.16, 0.90, 1.03)
    person = sitter.matte * np.maximum(bottom * sides, np.clip(sitter.face * 1.5, 0.0, 1.0))
    return np.clip(np.maximum(person, cloud * 0.85 * bottom * sides), 0.0, 1.0).astype(np.float32)


def _edges(picture: Picture, sigma_px: float) -> Picture:
    """Strength 0..1 of the edges: difference of Gaussians, thresholded softly."""
    grey = luminance(picture)
    difference = blur(grey, sigma_px * 1.6) - blur(grey, sigma_px)
    return smoothstep(difference, 0.004, 0.05)


def pencil(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Graphite on cream paper: contours at three sizes, diagonal hatching in the shadows."""
    height, width = picture.shape[:2]
    shape = (height, width)
    grey = luminance(picture)
    grey = np.clip(grey + (grey - blur(grey, 24.0)) * 0.25, 0.0, 1.0)
    drawing = np.ones_like(grey)
    for sigma, weight in ((1.6, 0.50), (4.0, 0.8), (12.0, 0.75)):
        dodge = np.clip(grey / np.maximum(blur(grey, sigma), 0.03), 0.0, 1.0)
        drawing = drawing * cv2.pow(dodge.astype(np.float32), weight * 1.35)
    tone = np.clip(grey, 0.0, 1.0)
    shade = 0.0 * tone
    grain = paper_grain(rng, shape, 0.9)
    for angle, low, high, weight in ((-45, 0.52, 0.12, 0.34), (-22, 0.34, 0.05, 0.32)):
        hatch = _hatch(shape, angle, rng)
        shade = shade + smoothstep(tone, low, high) * (0.35 + 0.65 * hatch) * weight
    shade = shade + 0.22 * cv2.pow((1.0 - tone).astype(np.float32), 1.6)
    drawing = drawing * (1.0 - shade) * (1.0 + 0.05 * grain * (0.3 + shade))
    ground = 1.0 - smoothstep(blur(sitter.matte, 22.0), 0.0, 0.35)
    drawing = mix(drawing, np.ones_like(drawing), ground * (1.0 - sitter.matte))
    rows = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    drawing = mix(drawing, np.ones_like(drawing), smoothstep(rows + 0.02 * grain, 0.88, 1.0) * 0.8)
    paper = np.array([0.965, 0.95, 0.91], dtype=np.float32) * (1.0 + 0.012 * grain[..., None])
    graphite = np.array([0.17, 0.17, 0.18], dtype=np.float32)
    return np.clip(graphite + (paper - graphite) * np.clip(drawing, 0.0, 1.0)[..., None], 0.0, 1.0)


def _hatch(shape: tuple[int, int], angle_degrees: float, rng: np.random.Generator) -> Picture:
    """Uneven parallel strokes, 0 paper to 1 graphite."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    angle = math.radians(angle_degrees)
    wobble = cv2.resize(
        rng.random((40, 30), dtype=np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC
    )
    across = -columns * math.sin(angle) + rows * math.cos(angle) + wobble * 7.0
    stroke = 0.5 + 0.5 * np.sin(across * np.float32(2 * math.pi / 6.5))
    return np.clip(stroke * (0.6 + 0.6 * wobble), 0.0, 1.0).astype(np.float32)
