"""What we ask about a picture before we keep it."""

from dataclasses import dataclass


class DecoderHangsError(Exception):
    """A picture's decoder did not come to its end. It may be opened once more, where it can be ended."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Read from the bytes themselves, after decoding all of them.

    Attributes:
        extension: matches the bytes, without a dot.
    """

    content_type: str
    extension: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture of a picture: the same bytes each time it is made by the same build.

    Attributes:
        extension: matches the bytes, without a dot.
    """

    data: bytes
    content_type: str
    extension: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Developed:
    """A picture that was decoded once, and made small on the way.

    Attributes:
        thumbnail: None: it could not be made, and `trouble` says why. The picture is fine.
    """

    facts: PictureFacts
    thumbnail: Thumbnail | None
    trouble: str = ""
