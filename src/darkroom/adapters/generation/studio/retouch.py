# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""A light hand on skin and eyes. Nothing is reshaped, nothing is whitened."""

import cv2
import numpy as np

from darkroom.adapters.generation.studio.face import BROWS, EYES, FACE_OVAL, LIPS, FaceMesh
from darkroom.adapters.generation.studio.pixels import Picture, blur, mix, smoothstep


def region(mesh: FaceMesh, parts: tuple[tuple[int, ...], ...], shape: tuple[int, int]) -> Picture:
    """H x W mask, 1 inside the hulls of the named mesh points."""
    mask = np.zeros(shape, dtype=np.float32)
    for part in parts:
        points = np.round(mesh.points[list(part), :2]).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1.0)
    return mask


def features(mesh: FaceMesh, shape: tuple[int, int], spread: float) -> Picture:
    """Soft H x W mask of eyes, brows and lips; `spread` in face heights."""
    mask = region(mesh, (*EYES, *BROWS, LIPS), shape)
    reach = max(round(spread * mesh.height), 1)
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    return blur(mask, reach * 0.7)


def retouch(person: Picture, matte: Picture, mesh: FaceMesh) -> Picture:
    """Even out the skin a little and wake the eyes; all pictures 0..1."""
    top, bottom, left, right = _surroundings(mesh, matte.shape)
    if bottom - top < 16 or right - left < 16:
        return person
    shifted = mesh.moved(np.array([[1.0, 0.0, -left], [0.0, 1.0, -top]]))
    part = person[top:bottom, left:right]
    skin = _skin(part, shifted) * matte[top:bottom, left:right]
    even = cv2.bilateralFilter(part, 9, 28 / 255, max(0.02 * mesh.height, 2.0))
    done = mix(part, even, skin * 0.45)
    detail = done - blur(done, 0.12 * mesh.height)
    done = done + detail * (0.09 * matte[top:bottom, left:right])[..., None]
    eyes = blur(region(shifted, EYES, part.shape[:2]), max(0.01 * mesh.height, 1.0))
    crisp = done + (done - blur(done, 1.4)) * 0.5
    done = mix(done, crisp * 1.07, eyes)
    result = person.copy()
    fade = _fade(part.shape[:2])
    result[top:bottom, left:right] = mix(part, np.clip(done, 0.0, 1.0), fade)
    return result


def _surroundings(mesh: FaceMesh, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    middle_x, middle_y = (float(value) for value in mesh.centre)
    reach = mesh.height
    return (
        max(int(middle_y - 0.9 * reach), 0),
        min(int(middle_y + 1.1 * reach), shape[0]),
        max(int(middle_x - 0.9 * reach), 0),
        min(int(middle_x + 0.9 * reach), shape[1]),
    )


def _fade(shape: tuple[int, ...]) -> Picture:
    rows = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)
    columns = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)
    return np.minimum.outer(
        1.0 - smoothstep(np.abs(rows), 0.7, 1.0), 1.0 - smoothstep(np.abs(columns), 0.7, 1.0)
    )


def _skin(part: Picture, mesh: FaceMesh) -> Picture:
    """Likeness 0..1 to the median colour of the face, eyes, brows and lips left out."""
    oval = region(mesh, (FACE_OVAL,), part.shape[:2])
    parts = features(mesh, part.shape[:2], 0.02)
    colours = cv2.cvtColor(part, cv2.COLOR_RGB2YCrCb)
    inside = (oval > 0.5) & (parts < 0.1)
    if int(inside.sum()) < 64:
        return np.zeros_like(oval)
    middle = np.median(colours[inside], axis=0).astype(np.float32)
    distance = (colours - middle) / np.array([0.30, 0.06, 0.06], dtype=np.float32)
    likeness = cv2.exp((-0.5 * (distance * distance).sum(axis=2)).astype(np.float32))
    return blur(likeness, 2.0) * (1.0 - np.clip(parts, 0.0, 1.0))
