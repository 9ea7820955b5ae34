# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Finding faces, and the mesh of one face."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.adapters.generation.studio.models import (
    DETECTOR_SIDE_PX,
    MESH_SIDE_PX,
    run_detector,
    run_mesh,
)
from darkroom.adapters.generation.studio.pixels import Picture, from_bytes, warp

FOREHEAD, CHIN, NOSE_TIP = 10, 152, 1
EAR_LEFT_OF_PICTURE, EAR_RIGHT_OF_PICTURE = 234, 454
# fmt: off
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400,
             377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67,
             109)
EYES = ((33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466))
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
         (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
# fmt: on

_WHOLE_FRAME_SCORE = 0.6
_TILE_SCORE = 0.7
_TILE_SIDES = (0.6, 0.35, 0.2)
_LEAST_MESH_SCORE = 0.9
_MOST_FACES = 12
_DETECTION_LONG_SIDE_PX = 1024


@dataclass(frozen=True, slots=True)
class FaceBox:
    """A detected face, in pixels of the picture it was found in."""

    centre_x: float
    centre_y: float
    width: float
    height: float
    score: float
    points: Picture
    """6 x 2: both eyes, nose, mouth, both ears."""

    @property
    def side(self) -> float:
        """The longer side of the box: one "face size"."""
        return max(self.width, self.height)


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """468 x 3 points of one face, pixels of the picture (z in the same unit, away is positive)."""

    points: Picture
    score: float

    @property
    def height(self) -> float:
        """Forehead to chin, pixels."""
        return float(np.linalg.norm(self.points[CHIN, :2] - self.points[FOREHEAD, :2]))

    @property
    def centre(self) -> Picture:
        """Middle of the face, x and y."""
        return (self.points[CHIN, :2] + self.points[FOREHEAD, :2]) * 0.5

    @property
    def eyes(self) -> Picture:
        """2 x 2: the middle of the eye at the left of the picture, then the other."""
        return np.stack([self.points[list(eye), :2].mean(axis=0) for eye in EYES])

    @property
    def roll_degrees(self) -> float:
        """Tilt of the line of the eyes; positive when the right one is lower."""
        left, right = self.eyes
        return math.degrees(math.atan2(float(right[1] - left[1]), float(right[0] - left[0])))

    @property
    def yaw(self) -> float:
        """How far the nose is from the middle of the ears: 0 frontal, 1 over an ear."""
        near, far = self.points[EAR_LEFT_OF_PICTURE, :2], self.points[EAR_RIGHT_OF_PICTURE, :2]
        left, right = self.eyes
        axis = (right - left) / max(float(np.linalg.norm(right - left)), 1e-3)
        start, end = float((near * axis).sum()), float((far * axis).sum())
        nose = float((self.points[NOSE_TIP, :2] * axis).sum())
        return abs(2.0 * nose - start - end) / max(abs(end - start), 1e-3)

    def moved(self, matrix: Picture) -> "FaceMesh":
        """The mesh after a 2 x 3 similarity; depth scales with it."""
        flat = self.points[:, :2]
        scale = math.hypot(float(matrix[0, 0]), float(matrix[1, 0]))
        moved = np.empty_like(self.points)
        moved[:, 0] = flat[:, 0] * matrix[0, 0] + flat[:, 1] * matrix[0, 1] + matrix[0, 2]
        moved[:, 1] = flat[:, 0] * matrix[1, 0] + flat[:, 1] * matrix[1, 1] + matrix[1, 2]
        moved[:, 2] = self.points[:, 2] * scale
        return FaceMesh(moved, self.score)


def find_faces(picture: Picture) -> list[FaceBox]:
    """Every face in an 8-bit RGB picture, the main one first.

    The main face is the largest and surest near the middle. Ever smaller squares are searched
    when the whole frame shows none.
    """
    height, width = picture.shape[:2]
    shrink = min(1.0, _DETECTION_LONG_SIDE_PX / max(height, width))
    small = picture
    if shrink < 1.0:
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    whole = (0.0, 0.0, float(max(small.shape[:2])))
    found = _confirmed(small, _in_square(small, whole, _WHOLE_FRAME_SCORE))
    if found:
        found += _confirmed(small, _in_tiles(small, _TILE_SIDES[0], _TILE_SCORE))
    for part in _TILE_SIDES:
        found = found or _confirmed(small, _in_tiles(small, part, _TILE_SCORE))
    faces = [_scaled(face, 1.0 / shrink) for face in _without_doubles(found)]
    return sorted(faces, key=lambda face: -_prominence(face, width, height))


def largest_face(picture: Picture) -> FaceBox | None:
    """The surest large face, in the whole of an 8-bit RGB picture: quick, and blind to small ones."""
    height, width = picture.shape[:2]
    whole = (0.0, 0.0, float(max(height, width)))
    faces = _in_square(picture, whole, _WHOLE_FRAME_SCORE)
    return max(faces, key=lambda face: _prominence(face, width, height), default=None)


def _confirmed(picture: Picture, faces: list[FaceBox]) -> list[FaceBox]:
    """Those the mesh agrees about: the detector alone sees faces in badges and folds of cloth."""
    likeliest = _without_doubles(faces)[:_MOST_FACES]
    return [face for face in likeliest if find_mesh(picture, face).score >= _LEAST_MESH_SCORE]


def _prominence(face: FaceBox, width: int, height: int) -> float:
    off = math.hypot(face.centre_x / width - 0.5, face.centre_y / height - 0.5) * 2.0
    return face.side * face.score / (1.0 + 0.6 * off)


def _in_tiles(picture: Picture, part: float, least_score: float) -> list[FaceBox]:
    return [
        face for tile in _tiles(picture, part) for face in _in_square(picture, tile, least_score)
    ]


def _tiles(picture: Picture, part: float) -> list[tuple[float, float, float]]:
    height, width = picture.shape[:2]
    side = part * max(height, width)

    def starts(length: int) -> list[float]:
        if length <= side:
            return [(length - side) / 2]
        count = math.ceil((length - side) / (side * 0.5)) + 1
        return [index * (length - side) / (count - 1) for index in range(count)]

    return [(x, y, side) for y in starts(height) for x in starts(width)]


def _in_square(
    picture: Picture, square: tuple[float, float, float], least_score: float
) -> list[FaceBox]:
    left, top, side = square
    scale = DETECTOR_SIDE_PX / side
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], dtype=np.float32)
    sample = warp(picture, matrix, (DETECTOR_SIDE_PX, DETECTOR_SIDE_PX))
    raw, scores = run_detector(sample)
    faces: list[FaceBox] = []
    for index in np.flatnonzero(scores >= least_score):
        row = raw[index] * side
        points = row[4:].reshape(6, 2) + np.array([left, top], dtype=np.float32)
        faces.append(
            FaceBox(
                centre_x=float(row[0]) + left,
                centre_y=float(row[1]) + top,
                width=float(row[2]),
                height=float(row[3]),
                score=float(scores[index]),
                points=points,
            )
        )
    return _without_doubles(faces)


def _scaled(face: FaceBox, scale: float) -> FaceBox:
    return FaceBox(
        centre_x=face.centre_x * scale,
        centre_y=face.centre_y * scale,
        width=face.width * scale,
        height=face.height * scale,
        score=face.score,
        points=face.points * scale,
    )


def _without_doubles(faces: list[FaceBox]) -> list[FaceBox]:
    kept: list[FaceBox] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not any(_same(face, other) for other in kept):
            kept.append(face)
    return kept


def _same(one: FaceBox, two: FaceBox) -> bool:
    across = min(one.centre_x + one.width / 2, two.centre_x + two.width / 2) - max(
        one.centre_x - one.width / 2, two.centre_x - two.width / 2
    )
    down = min(one.centre_y + one.height / 2, two.centre_y + two.height / 2) - max(
        one.centre_y - one.height / 2, two.centre_y - two.height / 2
    )
    shared = max(across, 0.0) * max(down, 0.0)
    areas = one.width * one.height, two.width * two.height
    union = max(sum(areas) - shared, 1e-6)
    return shared / union > 0.3 or shared / max(min(areas), 1e-6) > 0.6


def find_mesh(picture: Picture, face: FaceBox) -> FaceMesh:
    """The mesh of one face of an 8-bit RGB picture; the second pass crops by the first."""
    right_eye, left_eye = face.points[0], face.points[1]
    angle = math.atan2(float(left_eye[1] - right_eye[1]), float(left_eye[0] - right_eye[0]))
    first = _mesh_in(picture, (face.centre_x, face.centre_y), face.side * 1.5, angle)
    flat = first.points[:, :2]
    middle = (flat.min(axis=0) + flat.max(axis=0)) * 0.5
    side = float((flat.max(axis=0) - flat.min(axis=0)).max()) * 1.5
    if first.score < 0.2 or side < 8:
        return first
    angle = math.radians(first.roll_degrees)
    return _mesh_in(picture, (float(middle[0]), float(middle[1])), side, angle)


def _mesh_in(picture: Picture, centre: tuple[float, float], side: float, angle: float) -> FaceMesh:
    scale = MESH_SIDE_PX / side
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    half = MESH_SIDE_PX / 2
    matrix = np.array(
        [
            [cosine, sine, half - cosine * centre[0] - sine * centre[1]],
            [-sine, cosine, half + sine * centre[0] - cosine * centre[1]],
        ],
        dtype=np.float32,
    )
    square = from_bytes(warp(picture, matrix, (MESH_SIDE_PX, MESH_SIDE_PX)))
    points, score = run_mesh(square)
    back = cv2.invertAffineTransform(matrix)
    return FaceMesh(points, score).moved(back)
