# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""New light on the person: a rough relief of face and body, shaded as a photographer would."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.adapters.generation.studio.face import FACE_OVAL, FaceMesh
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    luminance,
    mix,
    smoothstep,
    stretch,
    to_display,
    to_linear,
)

_SHRINK = 4
_WRAPPED = 0.35


@dataclass(frozen=True, slots=True)
class Light:
    """A key light and a rim light; `side` -1 is the left of the picture, +1 the right.

    `strength` is how much of the key's modelling is laid on (0.25 soft, 0.7 dramatic);
    `rim` is the strength of the light from behind on the other side, in `tint`.
    """

    side: float = -1.0
    height: float = 0.45
    frontal: float = 0.65
    strength: float = 0.3
    rim: float = 0.0
    tint: tuple[float, float, float] = (1.0, 0.95, 0.88)
    key_tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gels: bool = False

    def mirrored(self) -> "Light":
        """The same light from the other side."""
        return Light(
            -self.side,
            self.height,
            self.frontal,
            self.strength,
            self.rim,
            self.tint,
            self.key_tint,
            self.gels,
        )


def relight(person: Picture, matte: Picture, mesh: FaceMesh, light: Light) -> Picture:
    """The person (H x W x 3, 0..1) under `light`; `mesh` is in pixels of that picture."""
    height, width = matte.shape
    normals = _normals(matte, mesh)
    if light.gels:
        return _gelled(person, normals)
    key = _direction(light.side * 0.62, -light.height, light.frontal)
    facing = (key[2] + _WRAPPED) / (1.0 + _WRAPPED)
    shade = ((normals * key).sum(axis=2) + _WRAPPED) / (1.0 + _WRAPPED) / facing
    factor = np.clip(1.0 + light.strength * (shade - 1.0), 0.45, 1.5).astype(np.float32)
    linear = to_linear(person) * stretch(factor, width, height)[..., None]
    linear = linear * np.array(light.key_tint, dtype=np.float32)
    if light.rim > 0:
        rim = stretch(_rim(normals, matte, mesh, light.side), width, height)[..., None]
        own = 0.07 + 0.93 * np.sqrt(np.clip(linear, 0.0, 1.0))
        linear = linear + rim * own * np.array(light.tint, dtype=np.float32) * light.rim
    over = np.maximum(linear - 0.85, 0.0)
    return to_display(np.minimum(linear, 0.85) + 0.15 * over / (over + 0.15))


def _direction(x: float, y: float, z: float) -> Picture:
    vector = np.array([x, y, z], dtype=np.float32)
    return vector / np.float32(math.sqrt(float((vector * vector).sum())))


def _normals(matte: Picture, mesh: FaceMesh) -> Picture:
    """Unit normals at a quarter of the size, x right, y down, z towards the viewer."""
    height, width = matte.shape
    size = (width // _SHRINK, height // _SHRINK)
    small = cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
    face_height = mesh.height / _SHRINK
    body = _slopes(_body_relief(small, face_height), 0.9)
    face = _slopes(_face_relief(mesh, size, face_height), 0.95)
    oval = np.zeros((size[1], size[0]), dtype=np.float32)
    hull = np.round(mesh.points[list(FACE_OVAL), :2] / _SHRINK).astype(np.int32)
    cv2.fillPoly(oval, [hull.reshape(-1, 1, 2)], 1.0)
    oval = smoothstep(blur(oval, 0.06 * face_height), 0.25, 0.85)
    blended = blur(mix(body, face, oval), max(0.018 * face_height, 0.8))
    length = np.sqrt((blended * blended).sum(axis=2, keepdims=True))
    return (blended / np.maximum(length, 1e-4)).astype(np.float32)


def _body_relief(matte: Picture, face_height: float) -> Picture:
    # The border of the canvas is no edge of the body: pad with what stands at it.
    pad = int(face_height)
    solid = cv2.copyMakeBorder(
        (matte > 0.5).astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_REPLICATE
    )
    # The precise mask is cut into threads and rounds by their number; this one is not.
    distance = cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_5)
    radius = 0.75 * face_height
    inner = radius - np.minimum(distance[pad:-pad, pad:-pad], radius)
    relief = np.sqrt(np.maximum(radius * radius - inner * inner, 0.0))
    return blur(relief.astype(np.float32), 0.05 * face_height)


def _face_relief(mesh: FaceMesh, size: tuple[int, int], face_height: float) -> Picture:
    depth = np.zeros((size[1], size[0]), dtype=np.float32)
    weight = np.zeros_like(depth)
    for x, y, z in mesh.points / _SHRINK:
        column, row = round(float(x)), round(float(y))
        if 0 <= column < size[0] and 0 <= row < size[1]:
            depth[row, column] -= z
            weight[row, column] += 1.0
    near = blur(depth, 0.035 * face_height), blur(weight, 0.035 * face_height)
    far = blur(depth, 0.2 * face_height), blur(weight, 0.2 * face_height)
    return ((near[0] + 0.02 * far[0]) / (near[1] + 0.02 * far[1] + 1e-5)).astype(np.float32)


def _slopes(relief: Picture, gain: float) -> Picture:
    across = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(relief, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    normal = np.dstack([-gain * across, -gain * down, np.ones_like(relief)])
    return normal / np.sqrt((normal * normal).sum(axis=2, keepdims=True))


def _rim(normals: Picture, matte: Picture, mesh: FaceMesh, side: float) -> Picture:
    """Strength 0..1 of a light behind the person, opposite the key, in a band at the edge."""
    height, width = normals.shape[:2]
    small = cv2.resize(matte, (width, height), interpolation=cv2.INTER_AREA)
    behind = _direction(-side * 0.85, -0.38, -0.12)
    lit = np.clip((normals * behind).sum(axis=2), 0.0, 1.0)
    lit = cv2.pow(lit.astype(np.float32), 1.3)
    band_px = 0.035 * mesh.height / _SHRINK
    band = 1.0 - smoothstep(blur(small, band_px), 0.60, 0.97)
    return (lit * smoothstep(1.0 - normals[..., 2], 0.15, 0.9) * band * small).astype(np.float32)


def _gelled(person: Picture, normals: Picture) -> Picture:
    """Blue from one side and magenta from the other on the person's own luminance."""
    height, width = person.shape[:2]
    light = luminance(to_linear(person))
    blue = np.clip((normals * _direction(-0.94, -0.1, 0.32)).sum(axis=2) + 0.28, 0.0, 1.3)
    pink = np.clip((normals * _direction(0.94, -0.1, 0.32)).sum(axis=2) + 0.28, 0.0, 1.3)
    blue, pink = stretch(blue, width, height), stretch(pink, width, height)
    lit = (
        blue[..., None] * np.array([0.16, 0.62, 2.1], dtype=np.float32)
        + pink[..., None] * np.array([2.1, 0.24, 1.15], dtype=np.float32)
    ) * light[..., None]
    over = np.maximum(lit - 0.7, 0.0)
    coloured = to_display(np.minimum(lit, 0.7) + 0.3 * over / (over + 0.3))
    return mix(coloured, person, 0.16)
