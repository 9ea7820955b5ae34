"""From a customer's file to the picture we keep. Runs in a process of its own, see `intake`."""

import io
from typing import Final

import numpy as np
from pi_heif import register_heif_opener  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType] - it has none
from PIL import Image, ImageCms, ImageFile, ImageOps

from darkroom.adapters.generation.studio.reference_check import inspect_reference, quarter_turns
from darkroom.ports.intake import Measures, RefusalCode, Selfie, WarningCode

PIXELS_MAX: Final = 50_000_000
"""Phones make 12 to 50 megapixels; more is a scan or an attack, and 200 MB a copy in memory."""
BOMB_PIXELS_PER_BYTE: Final = 1000
"""A single-coloured JPEG has about 200 pixels a byte, the emptiest PNG about 8000; a photo under 20."""
SIDE_MIN_PX: Final = 256
"""A face fills at most the frame, and the studio begins at 60 pixels of it: less is a thumbnail."""
SIDE_MAX_PX: Final = 1920
"""Beyond 4/3 of the largest photo made of it (1440 px); a provider reads eight of them."""
JPEG_QUALITY: Final = 92
GROUND: Final = (128, 128, 128)
"""What lies behind transparent pixels: the studio's middle grey, which moves no measure of light."""
ORIENTATION_TAG: Final = 0x0112
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTERS: Final = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}
"""Quarter turns against the clock."""
PILLOW_NAMES: Final = ("JPEG", "PNG", "WEBP", "HEIF")
"""A JPEG of several pictures (MPO, as phones make) is opened by JPEG and then calls itself MPO."""
JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"
HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
OTHER_STARTS: Final = (
    b"GIF8", b"BM", b"II*\0", b"MM\0*", b"%PDF", b"8BPS", b"\xff\x0a", b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ", b"<svg", b"<?xml", b"\0\0\1\0",
)  # fmt: skip
"""Pictures and documents that people send and we do not take: GIF, BMP, TIFF, PDF, PSD, JPEG XL, ..."""


class FileRefusedError(Exception):
    """This file is not kept."""

    def __init__(self, code: RefusalCode) -> None:
        super().__init__(code.value)
        self.code = code


def prepare_decoders() -> None:
    """Set Pillow up for customers' files: of the whole process, so only where nothing else is opened."""
    register_heif_opener(thumbnails=False, decode_threads=1)
    # The limit is ours, below: Pillow's is a warning at one size and an error at another.
    Image.MAX_IMAGE_PIXELS = None


def look_at_file(data: bytes) -> Selfie | RefusalCode:
    """Judge a file and make the picture that is kept. Never raises for a bad file."""
    try:
        _refuse_other_types(data)
        return _judged(_clean_or_ended(data))
    except FileRefusedError as refusal:
        return refusal.code
    except MemoryError:
        return RefusalCode.BOMB


def _refuse_other_types(data: bytes) -> None:
    """By the first bytes, before any decoder sees the file; its name and type are not believed."""
    if not data:
        raise FileRefusedError(RefusalCode.EMPTY)
    if data.startswith((JPEG_START, b"\x89PNG\r\n\x1a\n")):
        return
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return
    if data[4:8] == b"ftyp":
        # AVIF, videos and raw files begin in the same way.
        size = min(int.from_bytes(data[:4], "big"), 256)
        brands = {data[at : at + 4] for at in (8, *range(16, size, 4))}
        if brands & HEIF_BRANDS:
            return
        raise FileRefusedError(RefusalCode.UNSUPPORTED_FORMAT)
    if data.startswith(OTHER_STARTS):
        raise FileRefusedError(RefusalCode.UNSUPPORTED_FORMAT)
    raise FileRefusedError(RefusalCode.NOT_AN_IMAGE)


def _clean_or_ended(data: bytes) -> Image.Image:
    """A JPEG that lost its last bytes on the way is a photo all the same, where only its end is missing."""
    try:
        return _clean(data)
    except FileRefusedError as refusal:
        has_no_end = data.startswith(JPEG_START) and not data.endswith(JPEG_END)
        if refusal.code is not RefusalCode.NOT_AN_IMAGE or not has_no_end:
            raise
        return _clean(data + JPEG_END, may_lack_rows=True)


def _clean(data: bytes, *, may_lack_rows: bool = False) -> Image.Image:
    """The picture itself: upright, sRGB, at most SIDE_MAX_PX, and nothing else of the file."""
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_NAMES) as opened:
            _refuse_sizes(opened.size, len(data))
            _shrink_while_decoding(opened)
            opened.load()
            _refuse_sizes(opened.size, len(data), shrunk=True)
            turn = TURNS.get(_orientation(opened))
            profile = opened.info.get("icc_profile")
            picture = _eight_bits(opened)
            # In place, before the file is closed: no copy of the whole picture is made.
            picture.thumbnail(
                (SIDE_MAX_PX, SIDE_MAX_PX), Image.Resampling.LANCZOS, reducing_gap=3.0
            )
            picture.load()
        if may_lack_rows:
            _refuse_a_flat_end(picture)
        if turn is not None:
            picture = picture.transpose(turn)
        picture = _on_ground(_in_srgb(picture, profile))
    except (FileRefusedError, MemoryError):
        raise
    except Exception as error:
        # Decoders raise whatever comes to them; text chunks that unpack beyond reason are named.
        too_long = isinstance(error, ValueError) and "too large" in str(error).lower()
        code = RefusalCode.BOMB if too_long else RefusalCode.NOT_AN_IMAGE
        raise FileRefusedError(code) from error
    if min(picture.size) < SIDE_MIN_PX:
        raise FileRefusedError(RefusalCode.TOO_SMALL)
    # Saving takes comments and more along from the picture it is given; this one has only pixels.
    bare = Image.new("RGB", picture.size)
    bare.paste(picture)
    return bare


def _refuse_a_flat_end(picture: Image.Image) -> None:
    """One colour is what a decoder puts where the data ended; looked for in the last fiftieth."""
    last = np.asarray(picture.convert("L"))[-max(picture.height // 50, 1) :]
    if float(last.std()) < 1.0:
        raise FileRefusedError(RefusalCode.NOT_AN_IMAGE)


def _refuse_sizes(size: tuple[int, int], file_bytes: int, *, shrunk: bool = False) -> None:
    pixels = size[0] * size[1]
    if pixels > PIXELS_MAX:
        bomb = pixels > BOMB_PIXELS_PER_BYTE * file_bytes
        raise FileRefusedError(RefusalCode.BOMB if bomb else RefusalCode.TOO_MANY_PIXELS)
    if not shrunk and min(size) < SIDE_MIN_PX:
        raise FileRefusedError(RefusalCode.TOO_SMALL)


def _shrink_while_decoding(opened: ImageFile.ImageFile) -> None:
    """A JPEG decoder can give half, a quarter or an eighth: less time, and memory never taken."""
    scale = SIDE_MAX_PX / max(opened.size)
    if opened.format in {"JPEG", "MPO"} and scale < 1:
        wanted = (int(opened.width * scale) + 1, int(opened.height * scale) + 1)
        opened.draft(None, wanted)


def _orientation(opened: Image.Image) -> int:
    try:
        return int(opened.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - EXIF is anybody's bytes; without it the picture lies as it is
        return 1


def _eight_bits(opened: Image.Image) -> Image.Image:
    """L, RGB, CMYK or RGBA of 8 bits a channel."""
    if opened.mode.startswith("I"):
        # 16-bit grey: Pillow would clip at 255 instead of scaling.
        return opened.point(lambda value: value * (1 / 257)).convert("L")
    if opened.mode in {"LA", "PA", "La", "RGBa"} or "transparency" in opened.info:
        return opened.convert("RGBA")
    if opened.mode in {"L", "RGB", "CMYK", "RGBA"}:
        return opened
    return opened.convert("RGB")


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if not profile:
        return picture if picture.mode == "RGBA" else picture.convert("RGB")
    if picture.mode == "RGBA":
        colours = _in_srgb(picture.convert("RGB"), profile)
        colours.putalpha(picture.getchannel("A"))
        return colours
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # Pillow gives its built-in profiles a type that it does not publish.
        target = ImageCms.ImageCmsProfile(
            ImageCms.createProfile("sRGB")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        )
        converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A damaged profile, or one of another kind of picture, says nothing about these pixels.
        converted = None
    return picture.convert("RGB") if converted is None else converted


def _on_ground(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture
    ground = Image.new("RGBA", picture.size, (*GROUND, 255))
    return Image.alpha_composite(ground, picture).convert("RGB")


def _standing(picture: Image.Image) -> Image.Image:
    """Turned by quarters until the face stands. Whole sets came out lying down, and counted as delivered."""
    turns = quarter_turns(np.asarray(picture))
    return picture.transpose(QUARTERS[turns]) if turns else picture


def _judged(picture: Image.Image) -> Selfie | RefusalCode:
    picture = _standing(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    data = buffer.getvalue()
    report = inspect_reference(data)
    known = {code.value for code in WarningCode}
    beyond_warning = [code for code in report.refused if code not in known]
    if beyond_warning:
        return RefusalCode(beyond_warning[0])
    severe = tuple(WarningCode(code) for code in report.refused)
    return Selfie(
        data=data,
        width=picture.width,
        height=picture.height,
        dhash=dhash(picture),
        warnings=(*severe, *(WarningCode(code) for code in report.warned)),
        severe=severe,
        measures=Measures(
            faces=report.faces,
            face_height_px=report.face_height_px,
            sharpness=report.sharpness,
            brightness=report.brightness,
            clipped=report.clipped,
            yaw=report.yaw,
        ),
    )


def dhash(picture: Image.Image) -> int:
    """64 bits, one a neighbouring pair of a 9 x 8 thumbnail: which of the two is lighter. Signed."""
    small = ImageOps.grayscale(picture).resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            at = row * 9 + column
            bits = bits << 1 | (small[at] < small[at + 1])
    return bits - (1 << 64) if bits >> 63 else bits
