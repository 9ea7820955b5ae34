# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Can this photo serve as a reference? Asked at upload and before rendering."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from darkroom.adapters.generation.studio.decode import decode
from darkroom.adapters.generation.studio.errors import StudioCode, StudioError
from darkroom.adapters.generation.studio.face import (
    FACE_OVAL,
    FaceBox,
    FaceMesh,
    find_faces,
    find_mesh,
    largest_face,
)
from darkroom.adapters.generation.studio.pixels import Picture, blur, from_bytes, luminance

LEAST_FACE_PX = 60.0
WARN_FACE_PX = 90.0
LEAST_SHARPNESS = 0.03
WARN_SHARPNESS = 0.06
LEAST_BRIGHTNESS = 0.10
WARN_BRIGHTNESS = 0.35
MOST_CLIPPED = 0.35
WARN_CLIPPED = 0.10
CLIPPED_FROM = 250
LEAST_MARGIN = 0.03
# Seen on eight portraits in four turns each: .92 to .96 for the one that stands, .71 to .87 for the others.
SURER = 0.05
LEAST_SURE = 0.85
MOST_ROLL_DEGREES = 45.0
MOST_YAW = 0.45
WARN_YAW = 0.3
RIVAL_SIZE = 0.8
COMPANION_SIZE = 0.25


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a decoded photo shows; `faces` is never empty, the main one is first."""

    faces: list[FaceBox]
    mesh: FaceMesh
    sharpness: float
    brightness: float
    clipped: float
    """Share of the face that is so bright that nothing of it is left."""
    margin: float
    """From the face to the nearest edge of the photo, in heights of the face; below 0 it is cut."""


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """The findings on one photo; it may serve when `refused` is empty."""

    faces: int
    face_height_px: float
    sharpness: float
    brightness: float
    clipped: float
    yaw: float
    refused: tuple[str, ...]
    warned: tuple[str, ...]


def inspect_reference(data: bytes) -> ReferenceReport:
    """Judge an uploaded photo; never raises for a bad one."""
    try:
        look = look_at(decode(data))
    except StudioError as error:
        return ReferenceReport(0, 0.0, 0.0, 0.0, 0.0, 0.0, (error.code,), ())
    refused, warned = findings(look)
    return ReferenceReport(
        faces=len(look.faces),
        face_height_px=round(look.mesh.height, 1),
        sharpness=round(look.sharpness, 4),
        brightness=round(look.brightness, 4),
        clipped=round(look.clipped, 4),
        yaw=round(look.mesh.yaw, 4),
        refused=tuple(code.value for code in refused),
        warned=tuple(code.value for code in warned),
    )


def look_at(photo: npt.NDArray[np.uint8]) -> Look:
    """Find and measure the faces of a decoded photo.

    Raises:
        StudioError: NO_FACE.
    """
    faces = find_faces(photo)
    if not faces:
        raise StudioError(StudioCode.NO_FACE, "no face was found in the photo")
    mesh = find_mesh(photo, faces[0])
    if mesh.height < 8:
        raise StudioError(StudioCode.NO_FACE, "what looked like a face is none")
    face = _face_square(photo, mesh)
    return Look(
        faces,
        mesh,
        sharpness=_sharpness(face),
        brightness=float(np.percentile(luminance(face), 97)),
        clipped=_clipped(photo, mesh),
        margin=_margin(photo, mesh),
    )


def quarter_turns(photo: npt.NDArray[np.uint8]) -> int:
    """How many quarter turns against the clock make the face of an 8-bit RGB photo stand; 0 to 3.

    A scan, a screenshot or a stripped file says nothing of how it was held. The detector is surer of a face
    that stands than of the same face in any other turn; the mesh alone takes one on its head for upright.
    """
    sure = [_sure_of_standing(np.ascontiguousarray(np.rot90(photo, turns))) for turns in range(4)]
    best = max(range(4), key=lambda turns: sure[turns])
    return best if sure[best] >= max(sure[0] + SURER, LEAST_SURE) else 0


def _sure_of_standing(photo: npt.NDArray[np.uint8]) -> float:
    face = largest_face(photo)
    if face is None or abs(find_mesh(photo, face).roll_degrees) > MOST_ROLL_DEGREES:
        return 0.0
    return face.score


def findings(look: Look) -> tuple[list[StudioCode], list[StudioCode]]:
    """Codes that forbid the use of the photo, and codes worth telling the customer."""
    measured = (
        (StudioCode.FACE_TOO_SMALL, look.mesh.height, LEAST_FACE_PX, WARN_FACE_PX),
        (StudioCode.TURNED_AWAY, -look.mesh.yaw, -MOST_YAW, -WARN_YAW),
        (StudioCode.TOO_DARK, look.brightness, LEAST_BRIGHTNESS, WARN_BRIGHTNESS),
        (StudioCode.TOO_BRIGHT, -look.clipped, -MOST_CLIPPED, -WARN_CLIPPED),
        (StudioCode.TOO_BLURRED, look.sharpness, LEAST_SHARPNESS, WARN_SHARPNESS),
        (StudioCode.FACE_CUT, look.margin, LEAST_MARGIN, LEAST_MARGIN),
    )
    refused = [code for code, value, least, _ in measured if value < least]
    warned = [code for code, value, least, warn in measured if least <= value < warn]
    main = look.faces[0].side
    others = [face for face in look.faces[1:] if face.side > COMPANION_SIZE * main]
    if any(face.side > RIVAL_SIZE * main and face.score > RIVAL_SIZE for face in others):
        refused.append(StudioCode.MANY_FACES)
    elif others:
        warned.append(StudioCode.MANY_FACES)
    return refused, warned


_REASONS = {
    StudioCode.FACE_TOO_SMALL: "the face is too small in the photo",
    StudioCode.TURNED_AWAY: "the face is turned away from the camera",
    StudioCode.TOO_DARK: "the photo is too dark",
    StudioCode.TOO_BRIGHT: "the face is so bright that nothing of it is left",
    StudioCode.FACE_CUT: "an edge of the photo cuts the face",
    StudioCode.TOO_BLURRED: "the face is out of focus",
    StudioCode.MANY_FACES: "several people are equally prominent",
}


def refuse(look: Look) -> None:
    """Raise the first forbidding finding, if there is one."""
    refused, _ = findings(look)
    if refused:
        raise StudioError(refused[0], _REASONS[refused[0]])


def _face_square(photo: npt.NDArray[np.uint8], mesh: FaceMesh) -> Picture:
    """The face at 160 pixels of height, 0..1, so that measures compare between photos."""
    height, width = photo.shape[:2]
    middle_x, middle_y = (float(value) for value in mesh.centre)
    half = max(mesh.height * 0.6, 4.0)
    left, right = max(int(middle_x - half), 0), min(int(middle_x + half) + 1, width)
    top, bottom = max(int(middle_y - half), 0), min(int(middle_y + half) + 1, height)
    if right - left < 4 or bottom - top < 4:
        raise StudioError(StudioCode.NO_FACE, "the face lies outside the photo")
    scale = 160.0 / mesh.height
    size = max(round((right - left) * scale), 8), max(round((bottom - top) * scale), 8)
    method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    return from_bytes(cv2.resize(photo[top:bottom, left:right], size, interpolation=method))


def _clipped(photo: npt.NDArray[np.uint8], mesh: FaceMesh) -> float:
    inside = np.zeros(photo.shape[:2], dtype=np.uint8)
    cv2.fillPoly(inside, [np.round(mesh.points[list(FACE_OVAL), :2]).astype(np.int32)], (1,))
    face = photo[inside > 0]
    return float((face.min(axis=1) >= CLIPPED_FROM).mean()) if len(face) else 0.0


def _margin(photo: npt.NDArray[np.uint8], mesh: FaceMesh) -> float:
    """Chin and forehead may come as near as they like, as long as they are there."""
    height, width = photo.shape[:2]
    oval = mesh.points[list(FACE_OVAL), :2]
    (left, top), (right, bottom) = oval.min(axis=0), oval.max(axis=0)
    sides = min(float(left), width - float(right)) / mesh.height
    ends = min(float(top), height - float(bottom)) / mesh.height
    return sides if ends > 0 else min(sides, ends)


def _sharpness(face: Picture) -> float:
    """Strength of the fine detail against all detail of the face: a share, so light cancels."""
    grey = luminance(face)
    fine = grey - blur(grey, 1.2)
    return float(fine.std() / max(float(grey.std()), 0.01))
