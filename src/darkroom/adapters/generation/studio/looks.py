"""Finishing styles that are light rather than brushwork: noir, old master, neon."""

import math

import numpy as np

from darkroom.adapters.generation.studio.grade import GRADES, apply_grade
from darkroom.adapters.generation.studio.paint import (
    canvas_weave,
    flow_noise,
    kuwahara,
    paper_grain,
)
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    smoothstep,
    to_display,
    to_linear,
)
from darkroom.adapters.generation.studio.sitter import Sitter


def noir(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Bars of a blind across the figure, hard black and white, heavy grain."""
    height, width = sitter.matte.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    slope = math.tan(math.radians(float(rng.uniform(8, 16))))
    # The bars bend over the face as over any round thing.
    bend = blur(sitter.face, 0.2 * sitter.mesh.height) * 0.10 * sitter.mesh.height
    pitch = 0.60 * sitter.mesh.height
    # An eye line in the dark would hide the likeness, so a lit bar lies on it.
    eyes = sitter.mesh.eyes.mean(axis=0)
    phase = (rows - float(eyes[1]) + slope * (columns - float(eyes[0])) + bend) / pitch
    bar = np.abs(phase - np.rint(phase)) * 2.0
    light = blur((1.0 - smoothstep(bar, 0.50, 0.66)).astype(np.float32), 3.0)
    factor = mix(np.ones_like(light), 0.40 + 0.85 * light, sitter.matte * 0.85)
    linear = to_linear(picture) * factor[..., None]
    return apply_grade(to_display(linear), GRADES["hard_mono"], rng)


def old_master(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Light from one high place, brown shadows, glazes, varnish and fine cracks."""
    height, width = sitter.matte.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = sitter.mesh.centre
    reach = np.hypot(columns - float(centre[0]), (rows - float(centre[1])) * 0.8)
    spot = np.exp(-((reach / (1.25 * sitter.mesh.height)) ** 2)).astype(np.float32)
    linear = to_linear(picture) * (0.26 + 0.80 * spot)[..., None]
    lit = to_display(linear)
    soft = mix(kuwahara(kuwahara(lit, 5), 3), kuwahara(lit, 2), np.clip(sitter.face, 0.0, 1.0))
    soft = mix(soft, lit, np.clip(sitter.features * 0.75 + 0.25 * sitter.face, 0.0, 1.0))
    grey = luminance(soft)[..., None]
    warm = grey * np.array([1.08, 0.95, 0.70], dtype=np.float32)
    varnished = mix(soft, warm, 0.30) * np.array([1.04, 0.98, 0.84], dtype=np.float32)
    varnished = varnished + np.array([0.030, 0.020, 0.008], dtype=np.float32)
    toned = apply_grade(np.clip(varnished, 0.0, 1.0), GRADES["varnish"], rng)
    strokes = (flow_noise(toned, rng, 32) - 0.5) * (1.0 - 0.7 * sitter.face)
    cracks = _craquelure(rng, (height, width))
    weave = canvas_weave((height, width), 4.0)
    factor = 1.0 + 0.11 * strokes + 0.012 * weave - 0.16 * cracks * (1.0 - 0.55 * sitter.face)
    return np.clip(toned * factor[..., None], 0.0, 1.0)


def _craquelure(rng: np.random.Generator, shape: tuple[int, int]) -> Picture:
    """Thin dark cracks 0..1: zero crossings of two noises, broken up by a third."""
    first = paper_grain(rng, shape, 7.0)
    second = paper_grain(rng, shape, 11.0)
    where = smoothstep(paper_grain(rng, shape, 26.0), 0.2, 1.2)
    lines = 1.0 - smoothstep(np.minimum(np.abs(first), np.abs(second)), 0.0, 0.07)
    return (lines * where).astype(np.float32)


def neon(picture: Picture, sitter: Sitter, rng: np.random.Generator) -> Picture:
    """Glow of the tubes over everything; the coloured light itself is laid on before."""
    glow = blur(np.clip(picture - 0.45, 0.0, 1.0), 26.0)
    lit = 1.0 - (1.0 - picture) * (1.0 - np.clip(glow * 0.7, 0.0, 1.0))
    # The far corners sink, the person stays.
    calm = mix(lit * 0.92, lit, sitter.matte)
    return apply_grade(np.clip(calm, 0.0, 1.0), GRADES["neon"], rng)
