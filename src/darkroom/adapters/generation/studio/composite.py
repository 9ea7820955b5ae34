# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Joining person and backdrop so that one light seems to fall on both."""

from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    from_lab,
    luminance,
    mix,
    smoothstep,
    to_lab,
)


@dataclass(frozen=True, slots=True)
class Joining:
    """How far the person follows the backdrop: `tint` and `wrap` 0..1, `shadow` 0..0.4."""

    tint: float = 0.2
    wrap: float = 0.4
    shadow: float = 0.0
    shadow_side: float = 1.0


def join(person: Picture, matte: Picture, backdrop: Picture, joining: Joining) -> Picture:
    """The composed picture; person and backdrop H x W x 3, matte H x W, all 0..1."""
    person = _towards(person, matte, backdrop, joining.tint)
    if joining.shadow > 0:
        backdrop = _with_shadow(backdrop, matte, joining)
    person = _wrapped(person, matte, backdrop, joining.wrap)
    return mix(backdrop, person, matte)


def _towards(person: Picture, matte: Picture, backdrop: Picture, tint: float) -> Picture:
    """Shift colour and exposure of the whole person a little towards the surroundings."""
    small = cv2.resize(backdrop, (48, 64), interpolation=cv2.INTER_AREA)
    weight = cv2.resize(matte, (48, 64), interpolation=cv2.INTER_AREA)
    figure = cv2.resize(person, (48, 64), interpolation=cv2.INTER_AREA)
    ground = to_lab(small).reshape(-1, 3).mean(axis=0)
    lab = to_lab(figure).reshape(-1, 3)
    own = (lab * weight.reshape(-1, 1)).sum(axis=0) / max(float(weight.sum()), 1.0)
    shift = (ground - own) * np.float32(tint)
    shift[1:] = np.clip(shift[1:], -7.0, 7.0)
    shift[0] = np.clip((ground[0] - own[0]) * 0.16, -8.0, 4.0)
    moved = to_lab(person)
    # Exposure moves the middle tones; black and white stay anchored.
    body = 4.0 * moved[..., 0:1] / 100.0 * (1.0 - moved[..., 0:1] / 100.0)
    moved[..., 0:1] += shift[0] * body
    moved[..., 1:] += shift[1:] * ((0.35 + 0.65 * body) * (1.0 - 0.55 * _skin_like(moved)))
    lifted = from_lab(moved)
    black = np.percentile(small.reshape(-1, 3), 3, axis=0).astype(np.float32) * 0.10
    return np.clip(lifted * (1.0 - black) + black, 0.0, 1.0)


def _skin_like(lab: Picture) -> Picture:
    """H x W x 1, 1 where the hue is that of skin: the eye forgives a tint on anything else."""
    hue = np.arctan2(lab[..., 2:3], lab[..., 1:2])
    chroma = np.sqrt(lab[..., 1:2] ** 2 + lab[..., 2:3] ** 2)
    near = 1.0 - smoothstep(np.abs(hue - 0.95), 0.35, 0.75)
    return near * smoothstep(chroma, 6.0, 14.0) * (1.0 - smoothstep(chroma, 45.0, 60.0))


def _with_shadow(backdrop: Picture, matte: Picture, joining: Joining) -> Picture:
    height, width = matte.shape
    matrix = np.array([[1, 0, 0.05 * width * joining.shadow_side], [0, 1, 0.03 * height]])
    thrown = cv2.warpAffine(matte, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    dark = blur(thrown, 0.05 * height) * np.float32(joining.shadow)
    return backdrop * (1.0 - dark)[..., None]


def _wrapped(person: Picture, matte: Picture, backdrop: Picture, wrap: float) -> Picture:
    """Light of the surroundings spilling round the edge of the person."""
    edge = np.clip(1.0 - blur(matte, 6.0), 0.0, 1.0) * smoothstep(matte, 0.05, 0.9)
    around = blur(backdrop, 14.0)
    strength = (edge * np.float32(wrap * 1.5) * luminance(around))[..., None]
    return 1.0 - (1.0 - person) * (1.0 - around * np.clip(strength, 0.0, 1.0))
