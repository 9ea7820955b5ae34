"""The two portraits of the repository, and harder photos derived from them."""

import io
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image, ImageFilter

_PORTRAITS = files("darkroom") / "web" / "portraits"
GPS_DIRECTORY, GPS_LATITUDE, ORIENTATION = 0x8825, 2, 0x0112


@cache
def astronaut() -> bytes:
    return (_PORTRAITS / "astronaut.png").read_bytes()


@cache
def officer() -> bytes:
    return (_PORTRAITS / "grace_hopper.jpg").read_bytes()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def encoded(picture: Image.Image, kind: str = "JPEG", exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    if exif is None:
        picture.save(buffer, kind, quality=92)
    else:
        picture.save(buffer, kind, quality=92, exif=exif)
    return buffer.getvalue()


def darkened(data: bytes, factor: float) -> bytes:
    return encoded(opened(data).point([int(value * factor) for value in range(256)] * 3))


def brightened(data: bytes, factor: float) -> bytes:
    return encoded(opened(data).point([min(int(value * factor), 255) for value in range(256)] * 3))


def blurred(data: bytes, sigma_px: float) -> bytes:
    return encoded(opened(data).filter(ImageFilter.GaussianBlur(sigma_px)))


def shrunk(data: bytes, side_px: int) -> bytes:
    picture = opened(data)
    picture.thumbnail((side_px, side_px))
    return encoded(picture)


def cropped(data: bytes, box: tuple[int, int, int, int]) -> bytes:
    return encoded(opened(data).crop(box))


def noise() -> bytes:
    rng = np.random.Generator(np.random.PCG64(5))
    return encoded(Image.fromarray(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)))


def turned_away(data: bytes, nose_x: int) -> bytes:
    """One half of the face squeezed and the other widened: what a turned head looks like."""
    pixels = np.asarray(opened(data))
    x = np.arange(pixels.shape[1], dtype=np.float64)
    squeezed = nose_x - np.minimum((nose_x - x) * 3.0, 60.0 + (nose_x - x))
    source = np.where(x < nose_x, squeezed, nose_x + (x - nose_x) / 1.6)
    columns = np.clip(np.round(source), 0, len(x) - 1).astype(np.int64)
    return encoded(Image.fromarray(pixels[:, columns]))


def side_by_side(*portraits: bytes) -> bytes:
    pictures = [opened(data).resize((512, 600)) for data in portraits]
    joined = Image.new("RGB", (512 * len(pictures), 600))
    for index, picture in enumerate(pictures):
        joined.paste(picture, (512 * index, 0))
    return encoded(joined)


def lying_on_its_side_with_a_place(data: bytes) -> bytes:
    """Stored turned by 90 degrees, upright by its EXIF, which also tells where it was taken."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[GPS_DIRECTORY] = {GPS_LATITUDE: (55.0, 45.0, 7.0)}
    return encoded(opened(data).transpose(Image.Transpose.ROTATE_90), exif=exif)
