"""Where the person stands: three framings of every selfie, and no cut edge in sight."""

import numpy as np
import pytest

from darkroom.adapters.generation.studio.layout import place
from darkroom.adapters.generation.studio.reference import Reference, prepare
from darkroom.adapters.generation.studio.selfies import glance
from tests.studio import portraits


def reference_of(data: bytes) -> Reference:
    return prepare(glance(data))


@pytest.mark.parametrize("portrait", [portraits.officer(), portraits.astronaut()])
def test_the_framings_of_one_selfie_differ(portrait: bytes):
    """From a head-and-shoulders selfie all three came out alike: .50, .49 and .50 of the canvas."""
    reference = reference_of(portrait)
    for seed in range(6):
        heads: dict[str, float] = {}
        for framing in ("half", "bust", "close"):
            chosen = place(reference, framing, np.random.Generator(np.random.PCG64(seed)))
            assert not chosen.fades
            heads[framing] = float(np.hypot(*chosen.matrix[:, 0]))
        assert heads["bust"] > 1.1 * heads["half"]
        assert heads["close"] > 1.1 * heads["bust"]
        assert heads["close"] > 1.25 * heads["half"]
        assert_no_cut_shows(reference, framing="half", seed=seed)
        assert_no_cut_shows(reference, framing="close", seed=seed)


def assert_no_cut_shows(reference: Reference, framing: str, seed: int) -> None:
    """Every border of the photo that runs through the body lies outside the canvas."""
    matrix = place(reference, framing, np.random.Generator(np.random.PCG64(seed))).matrix
    height, width = reference.matte.shape
    for cut, column, row in (
        (reference.left, 2.0, None),
        (reference.right, width - 3.0, None),
        (reference.top, None, 2.0),
        (reference.bottom, None, height - 3.0),
    ):
        if cut is None:
            continue
        for along in np.linspace(cut.start, cut.end, 50):
            point = np.array([along if column is None else column, along if row is None else row])
            x, y = matrix[:, :2] @ point + matrix[:, 2]
            assert not (0 <= x < 768 and 0 <= y < 1024)
