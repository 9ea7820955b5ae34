"""What we ask about a file that a customer sends as a selfie: pure work on its bytes, harmless twice."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class RefusalCode(StrEnum):
    """Why a file is not kept. Sending the same bytes again changes nothing."""

    EMPTY = "EMPTY"
    TOO_LARGE = "TOO_LARGE"
    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    TOO_MANY_PIXELS = "TOO_MANY_PIXELS"
    BOMB = "BOMB"
    TOO_SMALL = "TOO_SMALL"
    NO_FACE = "NO_FACE"


class WarningCode(StrEnum):
    """What a customer should know about a selfie that is kept."""

    MANY_FACES = "MANY_FACES"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    FACE_CUT = "FACE_CUT"
    TOO_DARK = "TOO_DARK"
    TOO_BRIGHT = "TOO_BRIGHT"
    TOO_BLURRED = "TOO_BLURRED"
    TURNED_AWAY = "TURNED_AWAY"
    NEAR_DUPLICATE = "NEAR_DUPLICATE"


@dataclass(frozen=True, slots=True)
class Measures:
    """What was seen, in numbers: for the people who answer customers' questions."""

    faces: int
    face_height_px: float
    sharpness: float
    brightness: float
    clipped: float
    yaw: float


@dataclass(frozen=True, slots=True)
class Selfie:
    """A file made ready to be kept.

    Attributes:
        data: upright sRGB JPEG without any metadata; the same for the same file.
        dhash: 64 bits as a signed number; pictures that look alike differ in few of them.
        severe: those of `warnings` with which the studio would not use this selfie alone.
    """

    data: bytes
    width: int
    height: int
    dhash: int
    warnings: tuple[WarningCode, ...]
    severe: tuple[WarningCode, ...]
    measures: Measures

    content_type = "image/jpeg"
    extension = "jpg"


class Intake(Protocol):
    """Opens customers' files where they can do no harm."""

    async def look(self, read: Callable[[], bytes]) -> Selfie | RefusalCode:
        """Read, decode, clean and judge one file; `read` may block and is called when its turn comes."""
        ...

    async def warm(self) -> None:
        """Start what the first file would otherwise wait for."""
        ...

    async def close(self) -> None:
        """Give back the processes."""
        ...
