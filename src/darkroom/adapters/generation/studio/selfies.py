"""Which of a customer's photos a picture is made of: told by a cheap look, cut out only when chosen.

Cutting one out takes ten times as long as looking at it, and much memory: of eight, seven are not wanted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darkroom.adapters.generation.studio.decode import decode
from darkroom.adapters.generation.studio.errors import StudioCode, StudioError
from darkroom.adapters.generation.studio.memory import Memory
from darkroom.adapters.generation.studio.reference_check import (
    COMPANION_SIZE,
    Look,
    look_at,
    refuse,
)

_LOOKS_KEPT = 1000
"""About 10 KB each."""
# How far a body reaches sideways from the middle of the face, by how much of it is below the chin.
_BELOW_CHIN, _REACH = (0.3, 1.3, 3.0), (0.9, 1.35, 2.15)
_HAIR_ABOVE_FOREHEAD = 0.45


@dataclass(frozen=True, slots=True)
class Selfie:
    """A photo that can serve, and what one look at it showed. Lengths in its own pixels."""

    data: bytes
    digest: str
    look: Look
    width: int
    height: int

    @property
    def cuts(self) -> int:
        """How many of the left, right and upper border run through the person, as far as a face tells."""
        mesh = self.look.mesh
        face = max(mesh.height, 1.0)
        middle, forehead = float(mesh.centre[0]), float(mesh.points[10, 1])
        below = (self.height - float(mesh.points[152, 1])) / face
        reach = float(np.interp(below, _BELOW_CHIN, _REACH)) * face
        sides = int(middle < reach) + int(self.width - middle < reach)
        return sides + int(forehead < _HAIR_ABOVE_FOREHEAD * face)

    @property
    def others(self) -> int:
        """Other people beside the main one."""
        main, *rest = self.look.faces
        return sum(face.side > COMPANION_SIZE * main.side for face in rest)

    @property
    def merit(self) -> float:
        """Higher is better: sharp, frontal, alone, uncut."""
        look = self.look
        return look.sharpness - look.mesh.yaw - 0.15 * self.cuts - 0.1 * self.others


@dataclass(frozen=True, slots=True)
class _Glance:
    look: Look
    width: int
    height: int


_glances: Memory[_Glance] = Memory(_LOOKS_KEPT, lambda _: 1)


def glance(data: bytes) -> Selfie:
    """Look at a photo, or remember the look.

    Raises:
        StudioError: the photo cannot serve; the same bytes will be refused again.
    """
    digest = hashlib.sha256(data).hexdigest()
    seen = _glances.recall(digest, lambda: _glance(data))
    return Selfie(data, digest, seen.look, seen.width, seen.height)


def usable_selfies(photos: Sequence[bytes]) -> list[Selfie]:
    """Those that can serve, the best first; the same photos in any order give the same list.

    Raises:
        StudioError: none can; the error of the first one.
    """
    usable: list[Selfie] = []
    first_error: StudioError | None = None
    for data in photos:
        try:
            usable.append(glance(data))
        except StudioError as error:
            first_error = first_error or error
    if not usable:
        raise first_error or StudioError(StudioCode.BAD_IMAGE, "no reference was given")
    return sorted(usable, key=lambda selfie: (-selfie.merit, selfie.digest))


def forget_looks() -> None:
    """Empty the memory of looks."""
    _glances.clear()


def _glance(data: bytes) -> _Glance:
    photo = decode(data)
    look = look_at(photo)
    refuse(look)
    return _Glance(look, photo.shape[1], photo.shape[0])
