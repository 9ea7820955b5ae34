# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""A customer's photo made ready: cut out, measured, kept in memory by the hash of its bytes."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from darkroom.adapters.generation.studio.decode import decode
from darkroom.adapters.generation.studio.face import FaceBox, FaceMesh
from darkroom.adapters.generation.studio.matte import Subject, cut_out, foreground_colours
from darkroom.adapters.generation.studio.memory import Memory
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    from_bytes,
    luminance,
    resize,
    to_bytes,
    to_display,
    to_linear,
)
from darkroom.adapters.generation.studio.reference_check import COMPANION_SIZE, Look
from darkroom.adapters.generation.studio.selfies import Selfie, forget_looks

WORKING_FACE_PX = 330.0
_MOST_ENLARGEMENT = 3.0
_LONGEST_SIDE_PX = 2200
_AROUND_FACE = (2.7, 1.9, 4.4)
_KEPT_BYTES = 288_000_000
"""One takes 18 MB where the photo shows all that the studio uses of it, 34 MB at most: sixteen at once."""
_MOST_GAIN = 9.0
_GREY_CHROMA = 0.015


@dataclass(frozen=True, slots=True)
class Cut:
    """Stretch of one border of the photo where the body runs out of it, in pixels along it."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Reference:
    """One prepared photo. Pictures are 8-bit, H x W x 3 (matte H x W); lengths are its pixels."""

    digest: str
    frame: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]
    matte: npt.NDArray[np.uint8]
    mesh: FaceMesh
    hair_top: float
    left: Cut | None
    top: Cut | None
    right: Cut | None
    bottom: Cut | None
    grey: bool

    @property
    def head_height(self) -> float:
        """Chin to the top of the hair."""
        chin = float(self.mesh.points[152, 1])
        return max(chin - self.hair_top, self.mesh.height)

    @property
    def size_bytes(self) -> int:
        """Memory that its pictures take."""
        return self.frame.nbytes + self.colours.nbytes + self.matte.nbytes


_prepared: Memory[Reference] = Memory(_KEPT_BYTES, lambda reference: reference.size_bytes)


def prepare(selfie: Selfie) -> Reference:
    """Make a photo ready, or fetch it from those used last."""
    return _prepared.recall(selfie.digest, lambda: _prepare(selfie))


def forget_references() -> None:
    """Empty the memory of looks and of prepared photos."""
    forget_looks()
    _prepared.clear()


def _prepare(selfie: Selfie) -> Reference:
    photo, look = decode(selfie.data), selfie.look
    picture, matrix = _crop(photo, look)
    mesh = look.mesh.moved(matrix)
    picture = _brightened(picture, mesh)
    scale = float(matrix[0, 0])
    main = _moved(look.faces[0], matrix)
    others = [
        _moved(face, matrix)
        for face in look.faces[1:]
        if face.side > COMPANION_SIZE * look.faces[0].side
    ]
    matte = cut_out(picture, Subject(main, others))
    colours = foreground_colours(picture, matte, mesh.height)
    height, width = matte.shape
    return Reference(
        digest=selfie.digest,
        frame=to_bytes(picture),
        colours=to_bytes(colours),
        matte=to_bytes(matte),
        mesh=mesh,
        hair_top=_hair_top(matte, mesh),
        left=_touching(matte[:, : _edge(scale)].min(axis=1)),
        right=_touching(matte[:, width - _edge(scale) :].min(axis=1)),
        top=_touching(matte[: _edge(scale)].min(axis=0)),
        bottom=_touching(matte[height - _edge(scale) :].min(axis=0)),
        grey=bool(np.mean(picture.max(axis=2) - picture.min(axis=2)) < _GREY_CHROMA),
    )


def _edge(scale: float) -> int:
    return max(round(2 * scale), 2)


def _crop(photo: npt.NDArray[np.uint8], look: Look) -> tuple[Picture, Picture]:
    """The surroundings of the person at working size, 0..1, and the matrix that leads there."""
    height, width = photo.shape[:2]
    face = look.mesh.height
    middle_x, middle_y = (float(value) for value in look.mesh.centre)
    sideways, above, below = (part * face for part in _AROUND_FACE)
    left, right = max(int(middle_x - sideways), 0), min(int(middle_x + sideways) + 1, width)
    top, bottom = max(int(middle_y - above), 0), min(int(middle_y + below) + 1, height)
    scale = min(WORKING_FACE_PX / face, _MOST_ENLARGEMENT)
    if scale > 1.0:
        scale = max(min(scale, _LONGEST_SIDE_PX / max(right - left, bottom - top)), 1.0)
    size = max(round((right - left) * scale), 1), max(round((bottom - top) * scale), 1)
    cropped = photo[top:bottom, left:right]
    if scale < 1.0:
        picture = from_bytes(cv2.resize(cropped, size, interpolation=cv2.INTER_AREA))
    else:
        picture = resize(from_bytes(cropped), *size)
    matrix = np.array(
        [[scale, 0.0, (0.5 - left) * scale - 0.5], [0.0, scale, (0.5 - top) * scale - 0.5]]
    )
    return picture, matrix


def _brightened(picture: Picture, mesh: FaceMesh) -> Picture:
    """A dark frame lifted by its own brightest parts; never judged by skin."""
    middle_x, middle_y = (float(value) for value in mesh.centre)
    face = mesh.height
    top, left = max(int(middle_y - face), 0), max(int(middle_x - 1.6 * face), 0)
    bottom, right = max(int(middle_y + 2 * face), 1), max(int(middle_x + 1.6 * face), 1)
    bright = float(np.percentile(luminance(picture[top:bottom, left:right]), 97))
    if bright >= 0.62:
        return picture
    gain = min((0.80 / max(bright, 0.02)) ** 2.2, _MOST_GAIN)
    lifted = to_linear(picture) * np.float32(gain)
    over = np.maximum(lifted - 0.7, 0.0)
    lifted = np.minimum(lifted, 0.7) + 0.3 * over / (over + 0.3)
    bright_picture = to_display(lifted)
    if gain > 2.0:
        # What was nearly black has few levels left; smooth the steps the gain makes visible.
        spread = 0.04 + 0.008 * gain
        bright_picture = cv2.bilateralFilter(bright_picture, 7, spread, 3.0)
    return bright_picture


def _moved(face: FaceBox, matrix: Picture) -> FaceBox:
    scale = float(matrix[0, 0])
    shift = np.array([matrix[0, 2], matrix[1, 2]], dtype=np.float32)
    return FaceBox(
        centre_x=face.centre_x * scale + float(matrix[0, 2]),
        centre_y=face.centre_y * scale + float(matrix[1, 2]),
        width=face.width * scale,
        height=face.height * scale,
        score=face.score,
        points=face.points * scale + shift,
    )


def _hair_top(matte: Picture, mesh: FaceMesh) -> float:
    """Topmost row of the head: over the middle half of the face, joined to it."""
    middle_x = float(mesh.centre[0])
    half = 0.25 * mesh.height
    left = max(int(middle_x - half), 0)
    column = matte[:, left : max(int(middle_x + half), left + 1)].mean(axis=1)
    row = min(max(int(mesh.points[10, 1]), 0), len(column) - 1)
    while row > 0 and column[row] > 0.4:
        row -= 1
    return float(row)


def _touching(border: Picture) -> Cut | None:
    rows = np.flatnonzero(border > 0.35)
    if len(rows) < 4:
        return None
    return Cut(float(rows[0]), float(rows[-1]))
