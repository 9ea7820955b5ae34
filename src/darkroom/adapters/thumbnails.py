"""Small pictures for the gallery: what a phone loads 23 of before anybody looks at one."""

import asyncio
import io
from typing import Final

from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from darkroom.adapters.pictures import decode, opened
from darkroom.ports.pictures import Developed, Thumbnail

LONG_SIDE: Final = 480
"""Two columns on a phone 390 points wide with three pixels a point are 585 pixels a column; 480 looks the
same at arm's length and is two thirds of the bytes (20 to 40 KB)."""
QUALITY: Final = 80
"""Below this skin shows blocks; above it only the bytes grow."""
EFFORT: Final = 2
"""Of WebP's 0 to 6. A small portrait takes 7 ms and 23.0 KB; with 4, the library's own, 14 ms and 22.3 KB."""
GAP: Final = 1.5
"""How many times as large as the thumbnail a picture is when the good filter begins; what is above is averaged.
12 ms, where 2 takes 18 and the filter alone 49, and 51 dB from the latter, which no screen shows."""
_KEPT_MODES: Final = ("RGB", "RGBA")


async def make_thumbnail(data: bytes) -> Thumbnail:
    """A WebP with a long side of LONG_SIDE, never enlarged, upright, without metadata. Off the event loop.

    Raises:
        BadResultError: not a JPEG, PNG or WebP, or too large.
    """
    return await asyncio.to_thread(_make, data)


async def develop(data: bytes) -> Developed:
    """What `read_picture` and `make_thumbnail` say, of one decoding: half the work. Off the event loop.

    Raises:
        BadResultError: as `read_picture`. A thumbnail that cannot be made raises nothing.
    """
    return await asyncio.to_thread(develop_now, data)


def _make(data: bytes) -> Thumbnail:
    with opened(data) as picture:
        # Not decoded yet: a JPEG is decoded at a fraction of its size here.
        return _small(picture)


def develop_now(data: bytes) -> Developed:
    """As `develop`, in the thread or process that calls."""
    with opened(data) as picture:
        facts = decode(picture)
        try:
            return Developed(facts, _small(picture))
        except Exception as error:  # noqa: BLE001 - whatever it was, the picture itself is fine
            return Developed(facts, None, f"not made small: {type(error).__name__}")


def _small(picture: ImageFile) -> Thumbnail:
    # Averaging does not know 16 bits of grey.
    gap = None if picture.mode.startswith("I;16") else GAP
    picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=gap)
    picture.load()
    # A view is painted as the browser paints the full picture: turned as its EXIF says.
    upright = ImageOps.exif_transpose(picture) if "exif" in picture.info else picture
    # A profile is about these channels; what is converted below is plain sRGB.
    profile = picture.info.get("icc_profile") if upright.mode in _KEPT_MODES else None
    small = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=EFFORT, icc_profile=profile or b"", exif=b"")
    return Thumbnail(out.getvalue(), "image/webp", "webp", small.width, small.height)
