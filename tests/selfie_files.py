"""Files that customers send as selfies: good, odd, broken and hostile, all made here."""

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from tests.heic import heic
from tests.studio.portraits import (
    GPS_DIRECTORY,
    GPS_LATITUDE,
    ORIENTATION,
    astronaut,
    noise,
    officer,
    opened,
)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:  # noqa: ANN401 - Pillow's options
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def portrait() -> Image.Image:
    """512 x 600, one face."""
    return opened(officer())


def half_clear() -> Image.Image:
    """The portrait; its upper left corner is transparent, and hides green."""
    picture = portrait().convert("RGBA")
    picture.paste((0, 255, 0, 0), (0, 0, 60, 60))
    return picture


@cache
def good_files() -> dict[str, bytes]:
    """The same portrait in every form that is taken."""
    picture = portrait()
    grey16 = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return {
        "jpeg": saved(picture, "JPEG", quality=92),
        "progressive": saved(picture, "JPEG", quality=92, progressive=True),
        "grey jpeg": saved(picture.convert("L"), "JPEG", quality=92),
        "cmyk jpeg": saved(picture.convert("CMYK"), "JPEG", quality=92),
        "mpo": saved(picture, "MPO", save_all=True, append_images=[picture], quality=92),
        "png": saved(picture, "PNG"),
        "palette png": saved(picture.quantize(128), "PNG"),
        "transparent png": saved(half_clear(), "PNG"),
        "transparent palette png": saved(half_clear().quantize(128), "PNG"),
        "16-bit grey png": saved(Image.fromarray(grey16), "PNG"),
        "16-bit colour png": rgb16_png(picture),
        "animated png": saved(picture, "PNG", save_all=True, append_images=[opened(astronaut())]),
        "webp": saved(picture, "WEBP", quality=90),
        "lossless transparent webp": saved(half_clear(), "WEBP", lossless=True),
        "animated webp": saved(
            picture, "WEBP", save_all=True, append_images=[picture.rotate(5)], quality=90
        ),
        "heic": heic(picture),
        "heif": heic(picture, brand=b"heix"),
    }


def chunk(kind: bytes, data: bytes) -> bytes:
    """One piece of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, body: bytes, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it has this size, whatever its body holds."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def rgb16_png(picture: Image.Image) -> bytes:
    """Pillow writes none: 16 bits a channel, three channels."""
    pixels = np.asarray(picture).astype(">u2") * 257
    rows = pixels.astype(">u2").reshape(picture.height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return png_of(*picture.size, zlib.compress(raw), bits=16)


def bomb() -> bytes:
    """Nine hundred megapixels in less than half a megabyte."""
    return png_of(30_000, 30_000, zlib.compress(bytes(400_000), 0))


def text_bomb() -> bytes:
    """A small picture with a comment that unpacks to 64 MB."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 64_000_000, zip=True)
    return saved(portrait(), "PNG", pnginfo=info)


def too_many_pixels() -> bytes:
    """56 megapixels, and as many bytes as an honest file of that size has at least."""
    return png_of(8000, 7000, bytes(60_000))


def swapped_profile() -> bytes:
    """sRGB with red and blue changed places: pixels that carry it look blue where they say red."""
    data = bytearray(
        ImageCms.ImageCmsProfile(
            ImageCms.createProfile("sRGB")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        ).tobytes()
    )
    for tags in ((b"rXYZ", b"bXYZ"),):
        places = [bytes(data[:600]).index(tag) for tag in tags]
        for place, tag in zip(places, reversed(tags), strict=True):
            data[place : place + 4] = tag
    return bytes(data)


def with_everything() -> bytes:
    """A JPEG with a place, a comment, XMP, a profile, and lying on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "SECRET-CAMERA"
    exif[GPS_DIRECTORY] = {GPS_LATITUDE: (55.0, 45.0, 7.0)}
    return saved(
        portrait().transpose(Image.Transpose.ROTATE_90),
        "JPEG",
        quality=92,
        exif=exif,
        comment=b"SECRET-COMMENT",
        xmp=b"<x:xmpmeta>SECRET-XMP</x:xmpmeta>",
        icc_profile=swapped_profile(),
    )


def small_face() -> bytes:
    """A large room with a small person in it."""
    room = Image.new("RGB", (900, 900), (120, 130, 140))
    person = opened(astronaut())
    person.thumbnail((200, 200))
    room.paste(person, (350, 350))
    return saved(room, "JPEG", quality=95)


def refused_files() -> dict[str, tuple[bytes, str]]:
    """What is not kept, and why."""
    picture = portrait()
    jpeg = good_files()["jpeg"]
    png = good_files()["png"]
    return {
        "nothing": (b"", "EMPTY"),
        "one byte": (b"\xff", "NOT_AN_IMAGE"),
        "text": (b"hello, this is a selfie, honestly", "NOT_AN_IMAGE"),
        "html": (b"<html><script>alert(1)</script></html>", "NOT_AN_IMAGE"),
        "a jpeg's first bytes": (jpeg[:4], "NOT_AN_IMAGE"),
        "cut jpeg": (jpeg[: len(jpeg) // 2], "NOT_AN_IMAGE"),
        "cut png": (png[: len(png) // 2], "NOT_AN_IMAGE"),
        "cut heic": (heic(picture)[:90_000], "NOT_AN_IMAGE"),
        "garbage png": (png_of(500, 500, b"garbage"), "NOT_AN_IMAGE"),
        "garbage webp": (b"RIFF\0\0\0\0WEBPVP8 " + bytes(100), "NOT_AN_IMAGE"),
        "pdf": (b"%PDF-1.7 not a photo", "UNSUPPORTED_FORMAT"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "UNSUPPORTED_FORMAT"),
        "gif": (saved(picture, "GIF"), "UNSUPPORTED_FORMAT"),
        "bmp": (saved(picture, "BMP"), "UNSUPPORTED_FORMAT"),
        "tiff": (saved(picture, "TIFF"), "UNSUPPORTED_FORMAT"),
        "avif": (saved(picture.resize((256, 300)), "AVIF"), "UNSUPPORTED_FORMAT"),
        "mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(50), "UNSUPPORTED_FORMAT"),
        "bomb": (bomb(), "BOMB"),
        "text bomb": (text_bomb(), "BOMB"),
        "too many pixels": (too_many_pixels(), "TOO_MANY_PIXELS"),
        "small": (saved(picture.resize((255, 300)), "JPEG"), "TOO_SMALL"),
        "a strip": (saved(picture.resize((300, 4000)), "JPEG"), "TOO_SMALL"),
        "noise": (noise(), "NO_FACE"),
        "no head": (saved(opened(astronaut()).crop((0, 250, 300, 512)), "PNG"), "NO_FACE"),
    }
