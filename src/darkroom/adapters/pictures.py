"""Reading a picture: the whole of it is decoded before it counts as one."""

import asyncio
import io
import warnings
from typing import Final

from PIL import Image

from darkroom.ports.generation import BadResultError
from darkroom.ports.pictures import PictureFacts

PIXELS_MAX: Final = 50_000_000
"""A 50-megapixel picture decodes to 150 MB; the largest a provider makes (4K) has 17."""
TYPES: Final = {
    "JPEG": ("image/jpeg", "jpg"),
    "PNG": ("image/png", "png"),
    "WEBP": ("image/webp", "webp"),
}


async def read_picture(data: bytes) -> PictureFacts:
    """Decode every pixel, off the event loop.

    Raises:
        BadResultError: not a JPEG, PNG or WebP, cut short, or too large.
    """
    return await asyncio.to_thread(_read, data)


def _read(data: bytes) -> PictureFacts:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=list(TYPES)) as picture:
                width, height = picture.size
                if width * height > PIXELS_MAX:
                    raise BadResultError(f"{width} x {height} pixels are too many")
                picture.load()
                content_type, extension = TYPES[picture.format or ""]
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadResultError(f"not a picture: {type(error).__name__}") from error
    except Image.DecompressionBombWarning as error:
        raise BadResultError("too many pixels") from error
    return PictureFacts(content_type, extension, width, height)
