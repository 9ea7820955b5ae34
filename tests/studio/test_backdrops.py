"""Every backdrop can be drawn, is a picture, and differs from seed to seed."""

import numpy as np
import pytest

from darkroom.adapters.generation.studio.backdrops.gallery import DRAWINGS, draw_backdrop
from darkroom.adapters.generation.studio.grade import GRADES
from darkroom.adapters.generation.studio.pixels import Picture
from darkroom.adapters.generation.studio.render import FINISHES
from darkroom.adapters.generation.studio.scenes import OWN_BACKDROP, SCENES


def drawn(key: str, seed: int) -> Picture:
    return draw_backdrop(key, np.random.Generator(np.random.PCG64(seed)), 6.0, (384, 512))


@pytest.mark.parametrize("key", DRAWINGS)
def test_a_backdrop_is_a_picture_and_follows_its_seed(key: str):
    first = drawn(key, 1)
    assert first.shape == (512, 384, 3)
    assert np.isfinite(first).all()
    assert first.min() >= 0.0
    assert first.max() <= 1.0
    assert np.array_equal(first, drawn(key, 1))
    assert not np.array_equal(first, drawn(key, 2))


@pytest.mark.parametrize("key", SCENES)
def test_a_scene_is_made_of_things_that_exist(key: str):
    scene = SCENES[key]
    assert scene.backdrop == OWN_BACKDROP or scene.backdrop in DRAWINGS
    assert scene.grades
    if scene.paint is None:
        assert set(scene.grades) <= set(GRADES)
    else:
        assert scene.paint in FINISHES


def test_every_backdrop_is_used():
    assert {scene.backdrop for scene in SCENES.values()} - {OWN_BACKDROP} == set(DRAWINGS)
