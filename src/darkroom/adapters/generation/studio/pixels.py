# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Arithmetic on float pictures: H x W x 3 (RGB) or H x W, float32, 0..1 unless said otherwise."""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Picture: TypeAlias = npt.NDArray[Any]

_WIDE_BLUR_PX = 12.0
_LUMINANCE = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)


def smoothstep(values: Picture, low: float, high: float) -> Picture:
    """0 at or below `low`, 1 at or above `high`, an S between; `low` may exceed `high`."""
    ramp = np.clip((values - low) / (high - low), 0.0, 1.0)
    return (ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)


def blur(picture: Picture, sigma_px: float) -> Picture:
    """Gaussian blur; a wide one is computed on a smaller copy, to within one grey level."""
    if sigma_px < 0.2:
        return picture
    if sigma_px <= _WIDE_BLUR_PX:
        return cv2.GaussianBlur(picture, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    height, width = picture.shape[:2]
    factor = 2 ** int(np.log2(sigma_px / (_WIDE_BLUR_PX / 2)))
    size = (max(width // factor, 2), max(height // factor, 2))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / factor, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def box_blur(picture: Picture, radius_px: int) -> Picture:
    """Mean over a square window of 2 r + 1 pixels."""
    side = 2 * max(radius_px, 0) + 1
    return cv2.blur(picture, (side, side), borderType=cv2.BORDER_REPLICATE)


def resize(picture: Picture, width: int, height: int) -> Picture:
    """Area average when shrinking, bicubic clipped to 0..1 when enlarging."""
    if width < picture.shape[1]:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)


def stretch(picture: Picture, width: int, height: int) -> Picture:
    """Bilinear resize in either direction; the values keep their range."""
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)


def warp(
    picture: Picture,
    matrix: Picture,
    size: tuple[int, int],
    outside: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Picture:
    """The picture through a 2 x 3 similarity onto a canvas of `size` (width, height).

    Strong shrinking halves the picture first, so nothing aliases; what lies beyond the picture
    takes the colour `outside`.
    """
    matrix = np.array(matrix, dtype=np.float64)
    shrink = 1.0 / max(math.hypot(float(matrix[0, 0]), float(matrix[1, 0])), 1e-9)
    while shrink >= 1.6 and min(picture.shape[:2]) >= 8:
        halved = (picture.shape[1] // 2, picture.shape[0] // 2)
        matrix[:, 0] *= picture.shape[1] / halved[0]
        matrix[:, 1] *= picture.shape[0] / halved[1]
        picture = cv2.resize(picture, halved, interpolation=cv2.INTER_AREA)
        shrink *= 0.5
    return cv2.warpAffine(
        picture,
        matrix,
        size,
        flags=cv2.INTER_LINEAR if shrink > 1.0 else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=outside,
    )


def luminance(picture: Picture) -> Picture:
    """H x W weighted mean of the channels (Rec. 709), in the encoding of the input."""
    return cv2.transform(picture, _LUMINANCE)


def to_linear(picture: Picture) -> Picture:
    """Display values to linear light, with the plain 2.2 power."""
    return cv2.pow(np.clip(picture, 0.0, None).astype(np.float32), 2.2)


def to_display(picture: Picture) -> Picture:
    """Linear light to display values, 0..1."""
    return cv2.pow(np.clip(picture, 0.0, 1.0).astype(np.float32), 1.0 / 2.2)


def shoulder(picture: Picture, knee: float = 0.72) -> Picture:
    """Roll everything above `knee` off towards 1 so that highlights keep their shape."""
    over = np.maximum(picture - knee, 0.0)
    room = 1.0 - knee
    return (np.minimum(picture, knee) + room * over / (over + room)).astype(np.float32)


def to_lab(picture: Picture) -> Picture:
    """CIE Lab: L 0..100, a and b about -100..100."""
    return cv2.cvtColor(np.clip(picture, 0.0, 1.0).astype(np.float32), cv2.COLOR_RGB2Lab)


def from_lab(picture: Picture) -> Picture:
    """CIE Lab back to RGB 0..1."""
    return np.clip(cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_Lab2RGB), 0.0, 1.0)


def mix(first: Picture, second: Picture, weight: Picture | float) -> Picture:
    """`first` where `weight` is 0, `second` where it is 1; an H x W weight serves all channels."""
    if isinstance(weight, np.ndarray) and weight.ndim < first.ndim:
        weight = weight[..., None]
    return (first + (second - first) * weight).astype(np.float32)


def to_bytes(picture: Picture) -> npt.NDArray[np.uint8]:
    """0..1 to 0..255, rounded to nearest."""
    return (np.clip(picture, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def from_bytes(picture: Picture) -> Picture:
    """0..255 to 0..1."""
    return picture.astype(np.float32) * np.float32(1.0 / 255.0)
