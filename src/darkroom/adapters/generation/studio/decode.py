"""A customer's file to plain RGB: turned upright, in sRGB, nothing else of it kept."""

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps

from darkroom.adapters.generation.studio.errors import StudioCode, StudioError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MOST_PIXELS = 50_000_000
LEAST_SIDE_PX = 128
_WORKING_PIXELS = 24_000_000
_MIDDLE_GREY = (128, 128, 128)


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a JPEG, PNG or WebP.

    Returns:
        H x W x 3 RGB, at most 24 megapixels (larger pictures are halved).

    Raises:
        StudioError: BAD_IMAGE when it is no picture, damaged, above 50 megapixels or tiny.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as opened:
            _check_size(opened)
            # A JPEG decoder can halve while decoding, before the memory is taken.
            if opened.format == "JPEG" and opened.width * opened.height > _WORKING_PIXELS:
                opened.draft(None, (opened.width // 2, opened.height // 2))
            upright = ImageOps.exif_transpose(_in_srgb(opened))
    except StudioError:
        raise
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise StudioError(StudioCode.BAD_IMAGE, "the file is not a readable picture") from error
    while upright.width * upright.height > _WORKING_PIXELS:
        upright = upright.reduce(2)
    return np.asarray(upright, dtype=np.uint8)


def _check_size(opened: "ImageFile") -> None:
    if opened.width * opened.height > MOST_PIXELS:
        raise StudioError(StudioCode.BAD_IMAGE, "the picture has more than 50 megapixels")
    if min(opened.size) < LEAST_SIDE_PX:
        raise StudioError(
            StudioCode.BAD_IMAGE, f"the picture is under {LEAST_SIDE_PX} pixels at its short side"
        )


def _in_srgb(opened: Image.Image) -> Image.Image:
    profile = opened.info.get("icc_profile")
    if opened.mode.startswith("I;16") or opened.mode == "I":
        return Image.fromarray(
            (np.asarray(opened, dtype=np.uint32) // 257).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if opened.mode in {"RGBA", "LA", "PA"} or "transparency" in opened.info:
        clear = opened.convert("RGBA")
        ground = Image.new("RGBA", clear.size, (*_MIDDLE_GREY, 255))
        return Image.alpha_composite(ground, clear).convert("RGB")
    if profile and opened.mode in {"RGB", "CMYK", "L"}:
        converted = _through_profile(opened, profile)
        if converted is not None:
            return converted
    return opened.convert("RGB")


def _through_profile(opened: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(opened, source, _srgb(), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A damaged profile says nothing about the pixels; show them as they are.
        return None


def _srgb() -> ImageCms.ImageCmsProfile:
    # Pillow gives its built-in profiles a type that it does not publish.
    return ImageCms.ImageCmsProfile(
        ImageCms.createProfile("sRGB")  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    )
