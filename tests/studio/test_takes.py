"""The second photo of a prompt is another picture, and no other prompt's either."""

import io
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from darkroom.adapters.generation.studio.face import find_faces, find_mesh
from darkroom.adapters.generation.studio.pixels import Picture
from darkroom.adapters.generation.studio.presets import plan
from darkroom.adapters.generation.studio.render import RenderOrder, render
from darkroom.adapters.generation.studio.scenes import SCENES
from darkroom.adapters.generation.studio.takes import ring, turn_of
from tests.studio import portraits

STYLES = {
    style["id"]: [prompt["text"] for prompt in style["prompts"]]
    for style in tomllib.loads((files("darkroom") / "catalog.toml").read_text())["styles"]
}
LARGEST_SET = 23


def seen_in(style_id: str, photos: int) -> list[tuple[str, str, str, bool]]:
    """Scene, framing, grade and side of the photos of one set, in its order."""
    prompts = STYLES[style_id]
    seen: list[tuple[str, str, str, bool]] = []
    for index in range(photos):
        take, place = divmod(index, len(prompts))
        chance = np.random.Generator(np.random.PCG64(place))
        chosen = plan(prompts[place], style_id, place, take, chance)
        seen.append((chosen.scene_key, chosen.framing, chosen.grade, chosen.mirrored))
    return seen


@pytest.mark.parametrize("style_id", STYLES)
def test_no_two_photos_of_the_largest_set_show_the_same(style_id: str):
    """Photo 10 and photo 19 of a style of nine prompts were photo 1 again, from one selfie and from three.

    Scene and framing alone tell them apart: so they do with any number of selfies.
    """
    pictures = [(scene, framing) for scene, framing, *_ in seen_in(style_id, LARGEST_SET)]
    assert len(set(pictures)) == LARGEST_SET


@pytest.mark.parametrize("style_id", STYLES)
def test_a_second_set_shows_nothing_of_the_first(style_id: str):
    count = 2 * len(STYLES[style_id])
    pictures = seen_in(style_id, count)
    assert len(set(pictures)) == count


@pytest.mark.parametrize("style_id", STYLES)
@pytest.mark.parametrize("selfies", [2, 3, 8])
def test_the_takes_of_a_prompt_go_through_the_selfies(style_id: str, selfies: int):
    """With three selfies and nine prompts each prompt had the same selfie for ever."""
    prompts = len(STYLES[style_id])
    for place in range(prompts):
        takes = range(-(-(LARGEST_SET - place) // prompts))
        orders = [RenderOrder("", style_id, place, 1, take) for take in takes]
        used = [order.turn % selfies for order in orders]
        assert len(set(used)) == min(len(takes), selfies)


@pytest.mark.parametrize("style_id", STYLES)
def test_no_prompt_is_shown_in_the_place_of_another(style_id: str):
    firsts = [plan(text, style_id, at, 0, _chance()) for at, text in enumerate(STYLES[style_id])]
    rings = [set(ring(chosen.scene_key)) for chosen in firsts]
    assert all(one.isdisjoint(two) for one, two in combinations(rings, 2))


def _chance() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(1))


@pytest.mark.parametrize("scene", SCENES)
def test_a_ring_has_every_scene_in_every_framing_before_one_comes_again(scene: str):
    scenes = ring(scene)
    assert set(scenes) <= set(SCENES)
    turns = [turn_of(scene, take) for take in range(3 * len(scenes))]
    assert len({(turn.scene, turn.framings % 3) for turn in turns}) == len(turns)
    assert turns[0].scene == scene


def test_a_take_of_any_number_is_a_plan():
    assert plan("A kitchen", "lifestyle", 0, 10**12, _chance()).scene_key == "kitchen"


def looked_at(data: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(data)))


def face_height(picture: Picture) -> float:
    return find_mesh(picture, find_faces(picture)[0]).height


def takes_of(prompt: str, takes: Sequence[int], selfies: Sequence[bytes]) -> list[Picture]:
    orders = [RenderOrder(prompt, "lifestyle", 0, 40 + take, take) for take in takes]
    return [looked_at(render(order, selfies).data) for order in orders]


def test_a_prompt_without_a_sibling_comes_nearer_and_from_the_other_side():
    """A photo made again was the same picture with other noise."""
    first, second = takes_of("A kitchen, bust portrait", (0, 1), [portraits.officer()])
    assert face_height(first) > 1.1 * face_height(second)
    turned = np.abs(first[:60].astype(np.float64) - second[:60, ::-1]).mean()
    as_it_was = np.abs(first[:60].astype(np.float64) - second[:60]).mean()
    assert min(turned, as_it_was) > 1
    assert np.abs(first.astype(np.float64) - second).mean() > 15


def test_two_takes_of_two_selfies_are_of_both():
    selfies = [portraits.officer(), portraits.astronaut()]
    first, second = takes_of("A park, bust portrait", (0, 1), selfies)
    orange = [picture[900:, 250:500, 0].mean() > 120 for picture in (first, second)]
    assert orange[0] != orange[1]


def test_another_take_is_the_same_each_time():
    order = RenderOrder("A cafe", "lifestyle", 0, 3, 2)
    assert render(order, [portraits.officer()]) == render(order, [portraits.officer()])
