from enum import StrEnum


class StudioCode(StrEnum):
    """Why a picture cannot serve as a reference. Every one of them is permanent."""

    NO_FACE = "NO_FACE"
    MANY_FACES = "MANY_FACES"
    FACE_TOO_SMALL = "FACE_TOO_SMALL"
    TOO_BLURRED = "TOO_BLURRED"
    TOO_DARK = "TOO_DARK"
    TOO_BRIGHT = "TOO_BRIGHT"
    FACE_CUT = "FACE_CUT"
    TURNED_AWAY = "TURNED_AWAY"
    BAD_IMAGE = "BAD_IMAGE"


class StudioError(Exception):
    """A reference the studio refuses; trying again with the same bytes changes nothing."""

    def __init__(self, code: StudioCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.refusal = code
        self.code: str = code.value
        self.message = message
