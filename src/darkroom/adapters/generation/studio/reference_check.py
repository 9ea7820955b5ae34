# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Can this photo serve as a reference? Asked at upload and before rendering."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from darkroom.adapters.generation.studio.decode import decode
from darkroom.adapters.generation.studio.errors import StudioCode, StudioError
from darkroom.adapters.generation.studio.face import FaceBox, FaceMesh, find_faces, find_mesh
from darkroom.adapters.generation.studio.pixels import Picture, blur, from_bytes, luminance

LEAST_FACE_PX = 60.0
WARN_FACE_PX = 90.0
LEAST_SHARPNESS = 0.03
WARN_SHARPNESS = 0.06
LEAST_BRIGHTNESS = 0.10
WARN_BRIGHTNESS = 0.35
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


@dataclass(frozen=True, slots=True)
class ReferenceReport:
    """The findings on one photo; it may serve when `refused` is empty."""

    faces: int
    face_height_px: float
    sharpness: float
    brightness: float
    yaw: float
    refused: tuple[str, ...]
    warned: tuple[str, ...]


def inspect_reference(data: bytes) -> ReferenceReport:
    """Judge an uploaded photo; never raises for a bad one."""
    try:
        look = look_at(decode(data))
    except StudioError as error:
        return ReferenceReport(0, 0.0, 0.0, 0.0, 0.0, (error.code,), ())
    refused, warned = findings(look)
    return ReferenceReport(
        faces=len(look.faces),
        face_height_px=round(look.mesh.height, 1),
        sharpness=round(look.sharpness, 4),
        brightness=round(look.brightness, 4),
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
    return Look(faces, mesh, _sharpness(face), float(np.percentile(luminance(face), 97)))


def findings(look: Look) -> tuple[list[StudioCode], list[StudioCode]]:
    """Codes that forbid the use of the photo, and codes worth telling the customer."""
    measured = (
        (StudioCode.FACE_TOO_SMALL, look.mesh.height, LEAST_FACE_PX, WARN_FACE_PX),
        (StudioCode.TURNED_AWAY, -look.mesh.yaw, -MOST_YAW, -WARN_YAW),
        (StudioCode.TOO_DARK, look.brightness, LEAST_BRIGHTNESS, WARN_BRIGHTNESS),
        (StudioCode.TOO_BLURRED, look.sharpness, LEAST_SHARPNESS, WARN_SHARPNESS),
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


def _sharpness(face: Picture) -> float:
    """Strength of the fine detail against all detail of the face: a share, so light cancels."""
    grey = luminance(face)
    fine = grey - blur(grey, 1.2)
    return float(fine.std() / max(float(grey.std()), 0.01))
