"""Reading a picture: the whole of it is decoded before it counts as one."""

import asyncio
import io
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from PIL import Image
from PIL.ImageFile import ImageFile

from darkroom.ports.generation import BadResultError
from darkroom.ports.pictures import PictureFacts

PIXELS_MAX: Final = 50_000_000
"""A 50-megapixel picture decodes to 150 MB; the largest a provider makes (4K) has 17."""
TYPES: Final = {
    "JPEG": ("image/jpeg", "jpg"),
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
}

# The library's own limit is above ours. Set once: a filter is every thread's.
warnings.simplefilter("error", Image.DecompressionBombWarning)


async def read_picture(data: bytes) -> PictureFacts:
    """Decode every pixel, off the event loop.

    Raises:
        BadResultError: not a JPEG, PNG or WebP, cut short, or too large.
    """
    return await asyncio.to_thread(_read, data)


def _read(data: bytes) -> PictureFacts:
    with opened(data) as picture:
        return decode(picture)


@contextmanager
def opened(data: bytes) -> Generator[ImageFile]:
    """A picture of a type and size that we take, of which nothing is decoded yet.

    Raises:
        BadResultError: it is none; also for whatever the decoder finds wrong in the block.
    """
    try:
        with Image.open(io.BytesIO(data), formats=list(TYPES)) as picture:
            if picture.width * picture.height > PIXELS_MAX:
                raise BadResultError(f"{picture.width} x {picture.height} pixels are too many")
            yield picture
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadResultError(f"not a picture: {type(error).__name__}") from error
    except Image.DecompressionBombWarning as error:
        raise BadResultError("too many pixels") from error


def decode(picture: ImageFile) -> PictureFacts:
    """Every pixel of an opened picture. Raises what the decoder raises."""
    picture.load()
    content_type, extension = TYPES[picture.format or ""]
    return PictureFacts(content_type, extension, picture.width, picture.height)
