# pyright: basic
# OpenCV's stubs carry no element types; strict mode would refuse every call of it.
"""The three networks, loaded once a process, run one call at a time."""

import threading
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from darkroom.adapters.generation.studio.pixels import Picture

DETECTOR_SIDE_PX = 128
MESH_SIDE_PX = 192
MASK_SIDE_PX = 256

_FOLDER = Path(__file__).parent / "models"
# A cv2 network keeps its activations inside itself, so two threads must not share a call.
_one_call_at_a_time = threading.Lock()


@cache
def _network(name: str) -> cv2.dnn.Net:
    return cv2.dnn.readNetFromTFLite(str(_FOLDER / f"{name}.tflite"))


def _run(name: str, square: Picture, outputs: tuple[str, ...]) -> list[Picture]:
    blob = np.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=np.float32)
    with _one_call_at_a_time:
        network = _network(name)
        network.setInput(blob)
        answers = network.forward(list(outputs)) if outputs else [network.forward()]
        return [np.array(answer, dtype=np.float32) for answer in answers]


@cache
def anchors() -> Picture:
    """896 x 2 centres of the detector's anchors, in parts of its square."""
    centres: list[tuple[float, float]] = []
    for grid, per_cell in ((16, 2), (8, 6)):
        for row in range(grid):
            for column in range(grid):
                centre = ((column + 0.5) / grid, (row + 0.5) / grid)
                centres.extend([centre] * per_cell)
    return np.array(centres, dtype=np.float32)


def run_detector(square: Picture) -> tuple[Picture, Picture]:
    """Candidates in a 128 x 128 x 3 picture 0..255.

    Returns:
        896 x 16 boxes and points (centre x, centre y, width, height, then six x, y pairs), in
        parts of the square, and 896 scores 0..1.
    """
    regressors, logits = _run(
        "face_detection_short_range",
        (square.astype(np.float32) - 127.5) / 127.5,
        ("regressors", "classificators"),
    )
    raw = regressors.reshape(896, 16) / DETECTOR_SIDE_PX
    raw[:, 0:2] += anchors()
    raw[:, 4:] += np.tile(anchors(), (1, 6))
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits.reshape(896), -60.0, 60.0)))
    return raw, scores


def run_mesh(square: Picture) -> tuple[Picture, float]:
    """468 x 3 points in pixels of a 192 x 192 x 3 picture 0..1, and the score 0..1 of a face."""
    points, logit = _run("face_landmark", square, ("conv2d_21", "conv2d_31"))
    score = 1.0 / (1.0 + float(np.exp(-np.clip(logit.reshape(-1)[0], -60.0, 60.0))))
    return points.reshape(468, 3), score


def run_mask(square: Picture) -> Picture:
    """256 x 256 probability of a person in a 256 x 256 x 3 picture 0..1, both ways round."""
    straight = _run("selfie_segmentation", square, ())[0].reshape(MASK_SIDE_PX, MASK_SIDE_PX)
    flipped = _run("selfie_segmentation", square[:, ::-1], ())[0]
    mirrored = flipped.reshape(MASK_SIDE_PX, MASK_SIDE_PX)[:, ::-1]
    return np.clip((straight + mirrored) * 0.5, 0.0, 1.0)


def warm_up() -> None:
    """Load the networks that look for faces, so that the first photo does not wait for them."""
    run_detector(np.zeros((DETECTOR_SIDE_PX, DETECTOR_SIDE_PX, 3), dtype=np.float32))
    run_mesh(np.zeros((MESH_SIDE_PX, MESH_SIDE_PX, 3), dtype=np.float32))
