# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Every backdrop by its key, and the customer's own."""

import cv2
import numpy as np

from darkroom.adapters.generation.studio.backdrops import nature, paper, rooms, shore, tables, town
from darkroom.adapters.generation.studio.backdrops.sketch import (
    SKETCH_HEIGHT_PX,
    SKETCH_WIDTH_PX,
    Draw,
    develop,
    lens_blur,
)
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    from_bytes,
    shoulder,
    to_display,
    to_linear,
    warp,
)
from darkroom.adapters.generation.studio.reference import Reference

DRAWINGS: dict[str, Draw] = {
    **paper.DRAWINGS,
    **nature.DRAWINGS,
    **shore.DRAWINGS,
    **town.DRAWINGS,
    **rooms.DRAWINGS,
    **tables.DRAWINGS,
}
_FILL_SCALES_PX = (4.0, 10.0, 24.0, 60.0, 120.0)


def draw_backdrop(
    key: str, rng: np.random.Generator, lens: float, size: tuple[int, int]
) -> Picture:
    """Draw a backdrop and put it out of focus by `lens` (pixels of the sketch).

    Returns:
        `size` (width, height), RGB display values 0..1.
    """
    return develop(DRAWINGS[key](rng), lens, size)


def own_backdrop(
    reference: Reference, matrix: Picture, lens: float, size: tuple[int, int]
) -> Picture:
    """The photo's own surroundings, the person filled in from around, thrown out of focus.

    Args:
        reference: the prepared photo.
        matrix: 2 x 3, from its pixels to the canvas.
        lens: blur in pixels of the sketch.
        size: width and height of the canvas.
    """
    scale = SKETCH_WIDTH_PX / size[0]
    small = (SKETCH_WIDTH_PX, SKETCH_HEIGHT_PX)
    shrunk = np.asarray(matrix) * scale
    photo = to_linear(np.clip(from_bytes(warp(reference.frame, shrunk, small)), 0.0, 1.0))
    inside = np.full(reference.matte.shape, 255, dtype=np.uint8)
    person = from_bytes(warp(reference.matte, shrunk, small))
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    person = cv2.dilate((person > 0.04).astype(np.float32), reach)
    known = (from_bytes(warp(inside, shrunk, small)) > 0.98).astype(np.float32)
    known = cv2.erode(known, np.ones((3, 3), dtype=np.uint8)) * (1.0 - person)
    filled = photo * known[..., None]
    trust = known
    for sigma in _FILL_SCALES_PX:
        weight = blur(known, sigma)
        guess = blur(photo * known[..., None], sigma) / np.maximum(weight, 1e-4)[..., None]
        sure = np.clip(weight * 6.0, 0.0, 1.0) * (1.0 - trust)
        filled = filled + guess * sure[..., None]
        trust = trust + sure
    everywhere = (photo * known[..., None]).sum(axis=(0, 1)) / max(float(known.sum()), 1.0)
    filled = filled + everywhere * np.clip(1.0 - trust, 0.0, 1.0)[..., None]
    seen = lens_blur(np.clip(filled, 0.0, 25.0).astype(np.float32), lens)
    picture = to_display(shoulder(seen, 0.85))
    return np.clip(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
