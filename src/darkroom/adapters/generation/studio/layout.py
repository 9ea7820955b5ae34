"""Where the person stands on the canvas: a similarity that hides every edge the photo cut."""

import math
from dataclasses import dataclass, replace

import numpy as np

from darkroom.adapters.generation.studio.pixels import Picture
from darkroom.adapters.generation.studio.reference import Cut, Reference

WIDTH_PX, HEIGHT_PX = 768, 1024
# Head height and eye line in parts of the canvas height.
FRAMINGS = {"close": (0.50, 0.42), "bust": (0.39, 0.37), "half": (0.30, 0.315)}
FRAMINGS_IN_TURN = ("bust", "half", "close")
# Where the photo shows too little of the person for a framing: the head against the smallest that it allows.
_APART = {"half": 1.0, "bust": 1.2, "close": 1.4}
_LARGEST_HEAD = 0.92
_LARGEST_APART = 0.80
_SCALES_TRIED = 26
_EYES_X = (0.34, 0.66)
_EYES_Y = (0.22, 0.58)


@dataclass(frozen=True, slots=True)
class Placement:
    """The 2 x 3 matrix from reference pixels to canvas pixels, and whether edges must fade."""

    matrix: Picture
    fades: bool


@dataclass(frozen=True, slots=True)
class _Candidate:
    cost: float
    eye_x: float
    eye_y: float
    head: float


def place(reference: Reference, framing: str, rng: np.random.Generator) -> Placement:
    """Choose size, shift and levelling for one framing, with a little chance in each.

    A head-and-shoulders photo has no half-length portrait in it: its framings then begin at the smallest
    head that it allows, and still differ.
    """
    head, eye_line = FRAMINGS[framing]
    loosest = _loosest(reference)
    if loosest is not None:
        room = math.log(max(_LARGEST_APART / loosest.head, 1.0)) / math.log(_APART["close"])
        head = max(head, loosest.head * _APART[framing] ** min(room, 1.0))
    head *= 1.0 + float(rng.uniform(-0.05, 0.05))
    wanted = (
        WIDTH_PX * (0.5 + float(rng.uniform(-0.03, 0.03))),
        HEIGHT_PX * (eye_line + float(rng.uniform(-0.008, 0.008))),
    )
    chosen = _best(reference, head, wanted) or loosest or _Candidate(0.0, *wanted, head)
    matrix = _at_size(reference, chosen.head)
    matrix[:, 2] += (chosen.eye_x, chosen.eye_y)
    return Placement(matrix, fades=loosest is None)


def hides_its_edges(reference: Reference) -> bool:
    """Whether the person can stand somewhere on the canvas without an edge that the photo cut."""
    return _loosest(reference) is not None


def _loosest(reference: Reference) -> _Candidate | None:
    """How the widest framing is best shown; None: at no size without a cut edge."""
    head, eye_line = FRAMINGS["half"]
    return _best(reference, head, (WIDTH_PX * 0.5, HEIGHT_PX * eye_line))


def _best(reference: Reference, head: float, wanted: tuple[float, float]) -> _Candidate | None:
    """The best of the sizes from the wanted one up to the largest."""
    largest = max(_LARGEST_HEAD, head * 1.001)
    best: _Candidate | None = None
    for step in range(_SCALES_TRIED):
        growth = (largest / head) ** (step / (_SCALES_TRIED - 1))
        candidate = _fit(reference, _at_size(reference, head * growth), wanted, growth)
        if candidate is not None and (best is None or candidate.cost < best.cost):
            best = replace(candidate, head=head * growth)
    return best


def _at_size(reference: Reference, head: float) -> Picture:
    """The levelled similarity to a head of this part of the canvas, the eyes at the origin."""
    turn = math.radians(_levelling_degrees(reference))
    scale = head * HEIGHT_PX / reference.head_height
    return _about(reference.mesh.eyes.mean(axis=0), scale, turn)


def _levelling_degrees(reference: Reference) -> float:
    turn = max(min(0.6 * reference.mesh.roll_degrees, 9.0), -9.0)
    cut = reference.left or reference.right or reference.top
    return -turn * (0.5 if cut else 1.0)


def _about(eye: Picture, scale: float, turn: float) -> Picture:
    """The similarity that sends the middle of the eyes to the origin."""
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    return np.array(
        [
            [cosine, -sine, -cosine * eye[0] + sine * eye[1]],
            [sine, cosine, -sine * eye[0] - cosine * eye[1]],
        ],
        dtype=np.float64,
    )


def _fit(
    reference: Reference, matrix: Picture, wanted: tuple[float, float], growth: float
) -> _Candidate | None:
    """The smallest shift at this size that leaves no cut edge in sight, if there is one."""
    height, width = reference.matte.shape
    low, high = HEIGHT_PX * _EYES_Y[0], HEIGHT_PX * _EYES_Y[1]
    if reference.bottom:
        rows = _ends(matrix, reference.bottom, fixed=height - 3.0, along_x=True)[:, 1]
        low = max(low, HEIGHT_PX + 1 - float(rows.min()))
    if reference.top:
        rows = _ends(matrix, reference.top, fixed=2.0, along_x=True)[:, 1]
        high = min(high, -1 - float(rows.max()))
    if low > high:
        return None
    eye_y = min(max(wanted[1], low), high)
    left, right = WIDTH_PX * _EYES_X[0], WIDTH_PX * _EYES_X[1]
    if reference.left:
        edge = _visible(_ends(matrix, reference.left, fixed=2.0, along_x=False), eye_y)
        right = min(right, -1 - float(edge.max())) if len(edge) else right
    if reference.right:
        edge = _visible(_ends(matrix, reference.right, fixed=width - 3.0, along_x=False), eye_y)
        left = max(left, WIDTH_PX + 1 - float(edge.min())) if len(edge) else left
    if left > right:
        return None
    eye_x = min(max(wanted[0], left), right)
    middle = np.array([reference.mesh.centre[0], reference.hair_top])
    hair = float((matrix[1, :2] * middle).sum() + matrix[1, 2]) + eye_y
    clipped = 0.0 if reference.top else max(0.03 * HEIGHT_PX - hair, 0.0)
    cost = (
        abs(math.log(growth))
        + 2.0 * abs(eye_x - wanted[0]) / WIDTH_PX
        + 2.2 * abs(eye_y - wanted[1]) / HEIGHT_PX
        + 1.5 * clipped / HEIGHT_PX
    )
    return _Candidate(cost, eye_x, eye_y, growth)


def _ends(matrix: Picture, cut: Cut, *, fixed: float, along_x: bool) -> Picture:
    """Both ends of a cut edge after the matrix, 2 x 2."""
    ends = [(cut.start, fixed), (cut.end, fixed)]
    if not along_x:
        ends = [(fixed, cut.start), (fixed, cut.end)]
    return np.array([matrix[:, :2] @ np.array(end) + matrix[:, 2] for end in ends])


def _visible(ends: Picture, eye_y: float) -> Picture:
    """X of both ends of an upright edge after clipping it to the rows of the canvas."""
    (x0, y0), (x1, y1) = ends
    top, bottom = min(y0, y1) + eye_y, max(y0, y1) + eye_y
    if bottom <= 0 or top >= HEIGHT_PX or y1 == y0:
        return np.empty(0)
    slope = (x1 - x0) / (y1 - y0)
    rows = np.clip(np.array([y0, y1]) + eye_y, 0, HEIGHT_PX) - eye_y
    return x0 + slope * (rows - y0)


def fade_cut_edges(reference: Reference, matte: Picture, matrix: Picture) -> Picture:
    """Fade the matte over 70 pixels towards every edge of the photo that cuts the body."""
    height, width = reference.matte.shape
    rows, columns = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32)
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    inverse = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    x = columns * inverse[0, 0] + rows * inverse[0, 1] + inverse[0, 2]
    y = columns * inverse[1, 0] + rows * inverse[1, 1] + inverse[1, 2]
    faded = matte
    for cut, inside in (
        (reference.left, x),
        (reference.right, width - x),
        (reference.top, y),
        (reference.bottom, height - y),
    ):
        if cut:
            ramp = np.clip(inside * scale / 70.0, 0.0, 1.0)
            faded = faded * (ramp * ramp * (3.0 - 2.0 * ramp)).astype(np.float32)
    return faded


def framing_at(index: int) -> str:
    """Close, bust and half in turn, so that neighbours differ."""
    return FRAMINGS_IN_TURN[index % len(FRAMINGS_IN_TURN)]
