# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""Cutting the person out: a pyramid of coarse masks, refined to hair along the colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from darkroom.adapters.generation.studio.face import FaceBox
from darkroom.adapters.generation.studio.models import MASK_SIDE_PX, run_mask
from darkroom.adapters.generation.studio.pixels import (
    Picture,
    blur,
    box_blur,
    smoothstep,
    stretch,
    warp,
)

# Squares the mask network looks at: side and drop of the centre below the face, in face sizes.
_SQUARES = ((5.6, 1.1), (4.2, 0.6), (3.4, 0.3), (2.8, 0.05), (2.3, 0.0))
_FINER_WEIGHT = 0.6
_FEATHER = 0.25


@dataclass(frozen=True, slots=True)
class Subject:
    """Where the customer is in the working picture, and who else is."""

    face: FaceBox
    others: Sequence[FaceBox]


def cut_out(picture: Picture, subject: Subject) -> Picture:
    """H x W coverage 0..1 of the person under the main face of an RGB picture 0..1."""
    side = subject.face.side
    coarse = _coarse(picture, subject.face)
    coarse = _without_others(coarse, subject)
    coarse = _one_person(_to_the_border(coarse, side), subject.face)
    refined = _guided(picture, coarse, max(round(0.035 * side), 2))
    refined = np.clip((refined - 0.1) / 0.8, 0.0, 1.0)
    core, support = _certain(coarse, side)
    refined = np.where(core, 1.0, np.where(support, refined, 0.0)).astype(np.float32)
    return _without_islands(_unmix(picture, refined, side), subject.face)


def _to_the_border(coarse: Picture, side: float) -> Picture:
    """The network fades at the border of a photo although the body goes on: carry it out."""
    reach = max(round(0.03 * side), 2)
    if min(coarse.shape) <= 4 * reach:
        return coarse
    carried = coarse.copy()
    carried[-reach:] = np.maximum(carried[-reach:], coarse[-reach - 1])
    carried[:reach] = np.maximum(carried[:reach], coarse[reach])
    return carried


def _without_islands(matte: Picture, face: FaceBox) -> Picture:
    """Drop what the refining left standing apart from the person."""
    height, width = matte.shape
    small = stretch(matte, max(width // 2, 1), max(height // 2, 1))
    count, labels = cv2.connectedComponents((small > 0.5).astype(np.uint8))
    row = min(max(int(face.centre_y / 2), 0), labels.shape[0] - 1)
    column = min(max(int(face.centre_x / 2), 0), labels.shape[1] - 1)
    if count <= 2 or labels[row, column] == 0:
        return matte
    person = (labels == labels[row, column]).astype(np.uint8)
    near = cv2.dilate(person, _ellipse(max(round(0.010 * face.side / 2), 2))).astype(np.float32)
    return matte * stretch(blur(near, 1.0), width, height)


def _coarse(picture: Picture, face: FaceBox) -> Picture:
    height, width = picture.shape[:2]
    mean = picture.reshape(-1, 3).mean(axis=0)
    # Mirrored padding would show the network a second person, so the outside is the mean colour.
    outside = (float(mean[0]), float(mean[1]), float(mean[2]))
    squares = _squares(width, height, face)
    ramp = np.minimum(np.arange(MASK_SIDE_PX) + 0.5, MASK_SIDE_PX - 0.5 - np.arange(MASK_SIDE_PX))
    edge = smoothstep(ramp / MASK_SIDE_PX, 0.0, _FEATHER)
    feather = np.minimum.outer(edge, edge).astype(np.float32) * np.float32(_FINER_WEIGHT)
    half = (max(width // 2, 1), max(height // 2, 1))
    total = np.zeros((half[1], half[0]), dtype=np.float32)
    for index, (centre_x, centre_y, side) in enumerate(squares):
        scale = MASK_SIDE_PX / side
        left, top = centre_x - side / 2, centre_y - side / 2
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        sample = np.clip(warp(picture, matrix, (MASK_SIDE_PX, MASK_SIDE_PX), outside), 0.0, 1.0)
        mask = run_mask(sample)
        back = np.array(
            [
                [half[0] / width / scale, 0, left * half[0] / width],
                [0, half[1] / height / scale, top * half[1] / height],
            ]
        )
        placed = cv2.warpAffine(mask, back, half, flags=cv2.INTER_LINEAR)
        if index == 0:
            total = placed
            continue
        weight = cv2.warpAffine(feather, back, half, flags=cv2.INTER_LINEAR)
        total = total + (placed - total) * weight
    # The network's half-belief in what hangs beside a head is mostly wrong.
    return smoothstep(stretch(total, width, height), 0.15, 0.85)


def _squares(width: int, height: int, face: FaceBox) -> list[tuple[float, float, float]]:
    """Centre and side of each square, the widest first, moved into the picture where it fits."""
    longest = float(max(height, width))
    squares = [(width / 2, height / 2, longest)]
    for part, drop in _SQUARES:
        side = min(part * face.side, longest)
        centre_y = face.centre_y + drop * face.side
        squares.append((_inside(face.centre_x, side, width), _inside(centre_y, side, height), side))
    return squares


def _inside(centre: float, side: float, length: int) -> float:
    if side >= length:
        return length / 2
    return min(max(centre, side / 2), length - side / 2)


def _without_others(coarse: Picture, subject: Subject) -> Picture:
    if not subject.others:
        return coarse
    height, width = coarse.shape
    rows, columns = np.mgrid[0:height:4, 0:width:4].astype(np.float32)

    def distance(face: FaceBox) -> Picture:
        # A person hangs below the face, so depth under it counts a third.
        down = rows - face.centre_y
        down = np.where(down > 0, down / 3.0, down)
        return np.hypot(columns - face.centre_x, down) / face.side

    nearest = distance(subject.face)
    own = np.ones_like(nearest)
    for other in subject.others:
        own = np.minimum(own, smoothstep(distance(other) - nearest, -0.05, 0.05))
    return coarse * stretch(own.astype(np.float32), width, height)


def _one_person(coarse: Picture, face: FaceBox) -> Picture:
    height, width = coarse.shape
    small = stretch(coarse, max(width // 4, 1), max(height // 4, 1))
    count, labels, _, _ = cv2.connectedComponentsWithStats((small > 0.55).astype(np.uint8))
    left, right = _span(face.centre_x, face.width, width)
    top, bottom = _span(face.centre_y, face.height, height)
    under_face = labels[top:bottom, left:right]
    votes = np.bincount(under_face[under_face > 0].ravel(), minlength=count)
    if votes.sum() == 0:
        return coarse
    person = (labels == int(votes.argmax())).astype(np.uint8)
    inverse, holes, hole_stats, _ = cv2.connectedComponentsWithStats(1 - person)
    largest_hole = 0.3 * (face.side / 4) ** 2
    filled = person.copy()
    for index in range(1, inverse):
        x, y, w, h, area = hole_stats[index]
        inside = x > 0 and y > 0 and x + w < person.shape[1] and y + h < person.shape[0]
        if inside and area < largest_hole:
            filled[holes == index] = 1
    reach = max(round(0.09 * face.side / 4), 1)
    near = cv2.dilate(person, _ellipse(reach)).astype(np.float32)
    near = stretch(blur(near, 1.5), width, height)
    hole = stretch(blur((filled - person).astype(np.float32), 1.0), width, height)
    return np.clip(np.maximum(coarse * near, hole), 0.0, 1.0)


def _span(centre: float, length: float, limit: int) -> tuple[int, int]:
    low = min(max(int((centre - length / 3) / 4), 0), max(limit // 4 - 1, 0))
    high = min(max(int((centre + length / 3) / 4) + 1, low + 1), max(limit // 4, 1))
    return low, high


def _ellipse(radius: int) -> Picture:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def _certain(coarse: Picture, side: float) -> tuple[Picture, Picture]:
    """Where the person surely is and where it may be, as booleans.

    Doubt deep inside the outline is the network's, not the picture's; doubt far outside too.
    """
    height, width = coarse.shape
    shrink = 4
    small = stretch(blur(coarse, 1.5), max(width // shrink, 1), max(height // shrink, 1))
    unit = side / shrink
    outline = (small > 0.5).astype(np.uint8)
    core = cv2.erode((small > 0.9).astype(np.uint8), _ellipse(max(round(0.02 * unit), 1)))
    core = np.maximum(core, cv2.erode(outline, _ellipse(max(round(0.055 * unit), 1))))
    support = cv2.dilate((small > 0.06).astype(np.uint8), _ellipse(max(round(0.02 * unit), 1)))
    support = np.minimum(support, cv2.dilate(outline, _ellipse(max(round(0.10 * unit), 1))))
    return stretch(core.astype(np.float32), width, height) > 0.5, stretch(
        support.astype(np.float32), width, height
    ) > 0.5


def _guided(picture: Picture, mask: Picture, radius_px: int, epsilon: float = 2e-4) -> Picture:
    """Colour guided filter: the mask rewritten as a local linear function of the colours.

    The coefficients are found at half size; they are smooth, so nothing is lost.
    """
    height, width = mask.shape
    size = (max(width // 2, 1), max(height // 2, 1))
    guide = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    target = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    radius = max(radius_px // 2, 1)
    mean = box_blur(guide, radius)
    mean_target = box_blur(target, radius)
    covariance = box_blur(guide * target[..., None], radius) - mean * mean_target[..., None]
    red, green, blue = cv2.split(guide)
    mean_red, mean_green, mean_blue = cv2.split(mean)
    rr = box_blur(red * red, radius) - mean_red * mean_red + epsilon
    rg = box_blur(red * green, radius) - mean_red * mean_green
    rb = box_blur(red * blue, radius) - mean_red * mean_blue
    gg = box_blur(green * green, radius) - mean_green * mean_green + epsilon
    gb = box_blur(green * blue, radius) - mean_green * mean_blue
    bb = box_blur(blue * blue, radius) - mean_blue * mean_blue + epsilon
    # Inverse of the symmetric 3 x 3 matrix of every pixel, by cofactors.
    i_rr, i_rg, i_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    i_gg, i_gb, i_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = np.maximum(rr * i_rr + rg * i_rg + rb * i_rb, 1e-12)
    c_red, c_green, c_blue = cv2.split(covariance)
    slope = (
        np.dstack(
            [
                i_rr * c_red + i_rg * c_green + i_rb * c_blue,
                i_rg * c_red + i_gg * c_green + i_gb * c_blue,
                i_rb * c_red + i_gb * c_green + i_bb * c_blue,
            ]
        )
        / determinant[..., None]
    ).astype(np.float32)
    offset = mean_target - (slope * mean).sum(axis=2)
    slope = stretch(box_blur(slope, radius), width, height)
    offset = stretch(box_blur(offset, radius), width, height)
    return ((slope * picture).sum(axis=2) + offset).astype(np.float32)


def _unmix(picture: Picture, matte: Picture, side: float) -> Picture:
    """Sharpen the soft band by asking each pixel how far it is from person to background."""
    height, width = matte.shape
    half = (max(width // 2, 1), max(height // 2, 1))
    small = cv2.resize(picture, half, interpolation=cv2.INTER_AREA)
    small_matte = cv2.resize(matte, half, interpolation=cv2.INTER_AREA)
    sigma = 0.05 * side / 2
    person, person_weight = _local_mean(small, (small_matte > 0.95), sigma)
    ground, ground_weight = _local_mean(small, (small_matte < 0.05), sigma)
    person, ground = stretch(person, width, height), stretch(ground, width, height)
    known = stretch(np.minimum(person_weight, ground_weight), width, height)
    axis = person - ground
    length = np.sqrt((axis * axis).sum(axis=2))
    along = ((picture - ground) * axis).sum(axis=2) / np.maximum(length * length, 1e-6)
    along = np.clip((along - 0.12) / 0.76, 0.0, 1.0)
    band = smoothstep(matte, 0.02, 0.15) * (1.0 - smoothstep(matte, 0.85, 0.98))
    weight = 0.65 * smoothstep(length, 0.12, 0.40) * band * smoothstep(known, 0.002, 0.02)
    mixed = matte + (along - matte) * weight
    return np.clip((blur(mixed.astype(np.float32), 0.7) - 0.16) / 0.74, 0.0, 1.0)


def _local_mean(picture: Picture, chosen: Picture, sigma: float) -> tuple[Picture, Picture]:
    weight = chosen.astype(np.float32)
    total = blur(weight, sigma)
    summed = blur(picture * weight[..., None], sigma)
    return summed / np.maximum(total, 1e-4)[..., None], total


def foreground_colours(picture: Picture, matte: Picture, face_height: float) -> Picture:
    """What the person alone looks like at every pixel, the old background taken out.

    Two passes of blur fusion, wide then narrow; without it hair carries its old background.
    """
    person = picture
    ground = picture
    for radius in (max(round(0.28 * face_height), 2), max(round(0.02 * face_height), 1)):
        person, ground = _fusion(picture, matte, (person, ground), radius)
    return person


def _fusion(
    picture: Picture, matte: Picture, layers: tuple[Picture, Picture], radius_px: int
) -> tuple[Picture, Picture]:
    alpha = matte[..., None]
    person_mean = box_blur(layers[0] * alpha, radius_px) / (
        box_blur(matte, radius_px)[..., None] + 1e-5
    )
    ground_mean = box_blur(layers[1] * (1.0 - alpha), radius_px) / (
        box_blur(1.0 - matte, radius_px)[..., None] + 1e-5
    )
    rest = picture - alpha * person_mean - (1.0 - alpha) * ground_mean
    person = np.clip(person_mean + alpha * rest, 0.0, 1.0).astype(np.float32)
    return person, np.clip(ground_mean, 0.0, 1.0).astype(np.float32)
