"""What a real photo costs the processor, whoever makes, stores or sells it: read, and made small.

The instant provider's picture is tiny, so that what is measured with it is the way and not the picture.
"""

import asyncio
import io
import time
from typing import Final

from PIL import Image

from darkroom.adapters.thumbnails import develop
from darkroom.wiring import bundled_portrait

SIDE: Final = (1792, 2400)
"""A photo of kie.ai in 2K, upright."""
TIMES: Final = 10


def real_photo() -> bytes:
    """The bundled portrait, as large as a photo that is sold."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(bundled_portrait())) as portrait:
        portrait.convert("RGB").resize(SIDE).save(out, "JPEG", quality=90)
    return out.getvalue()


def picture_ms() -> float:
    """Milliseconds of one core for one photo: every pixel decoded, and the thumbnail."""
    data = real_photo()

    asyncio.run(develop(data))
    began = time.process_time()
    for _ in range(TIMES):
        asyncio.run(develop(data))
    return (time.process_time() - began) * 1000 / TIMES
