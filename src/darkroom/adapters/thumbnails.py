"""Small pictures for the gallery: what a phone loads 23 of before anybody looks at one."""

import asyncio
import io
import warnings
from typing import Final

from PIL import Image, ImageOps

from darkroom.adapters.pictures import PIXELS_MAX, TYPES
from darkroom.ports.generation import BadResultError
from darkroom.ports.pictures import Thumbnail

LONG_SIDE: Final = 480
"""Two columns on a phone 390 points wide with three pixels a point are 585 pixels a column; 480 looks the
same at arm's length and is two thirds of the bytes (20 to 40 KB)."""
QUALITY: Final = 80
"""Below this skin shows blocks; above it only the bytes grow."""
_KEPT_MODES: Final = ("RGB", "RGBA")
EFFORT: Final = 4
"""WebP's default. Measured: a whole thumbnail of a 1792 x 2400 JPEG takes 44 ms; with 2 it is 37 ms and 5 %
more bytes, loaded by every phone."""


async def make_thumbnail(data: bytes) -> Thumbnail:
    """A WebP with a long side of LONG_SIDE, never enlarged, upright, without metadata. Off the event loop.

    Raises:
        BadResultError: not a JPEG, PNG or WebP, or too large.
    """
    return await asyncio.to_thread(_make, data)


def _make(data: bytes) -> Thumbnail:
    out = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=list(TYPES)) as picture:
                if picture.width * picture.height > PIXELS_MAX:
                    raise BadResultError("too many pixels")
                # A JPEG is decoded at a fraction of its size here, which is most of the saving.
                picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=2)
                # A view is painted as the browser paints the full picture: turned as its EXIF says.
                upright = ImageOps.exif_transpose(picture)
                # A profile is about these channels; what is converted below is plain sRGB.
                profile = picture.info.get("icc_profile") if upright.mode in _KEPT_MODES else None
                transparent = upright.has_transparency_data
                small = upright.convert("RGBA" if transparent else "RGB")
        small.save(
            out, "WEBP", quality=QUALITY, method=EFFORT, icc_profile=profile or b"", exif=b""
        )
    except (OSError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadResultError(f"no thumbnail: {type(error).__name__}") from error
    except Image.DecompressionBombWarning as error:
        raise BadResultError("too many pixels") from error
    return Thumbnail(out.getvalue(), "image/webp", "webp", small.width, small.height)
