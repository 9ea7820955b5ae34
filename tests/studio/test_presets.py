"""Words of a prompt to scene, framing, light and grade."""

import tomllib
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest

from darkroom.adapters.generation.studio.presets import Plan, plan, scene_key
from darkroom.adapters.generation.studio.scenes import SCENES, SIGNATURE

# Keys of the catalogue that carry another name in the studio.
RENAMED = {
    "window_light": "window_wall",
    "own_background": "own",
    "pencil_drawing": "pencil",
    "pop_art_poster": "poster",
    "halftone_print": "halftone",
    "film_noir": "noir",
}


def catalogue() -> list[tuple[str, str, str]]:
    styles = tomllib.loads((files("darkroom") / "catalog.toml").read_text())["styles"]
    return [
        (style["id"], prompt["key"], prompt["text"])
        for style in styles
        for prompt in style["prompts"]
    ]


def planned(prompt: str, style_id: str = "none", index: int = 0, seed: int = 1) -> Plan:
    return plan(prompt, style_id, index, 0, np.random.Generator(np.random.PCG64(seed)))


@pytest.mark.parametrize(("style_id", "key", "text"), catalogue())
def test_every_prompt_of_the_catalogue_lands_on_its_scene(style_id: str, key: str, text: str):
    # A style and a place that say nothing: the words alone must decide.
    assert scene_key(text, "none", 99) == RENAMED.get(key, key)
    framing = next(word for word in ("half-length", "bust", "close") if f"{word} portrait" in text)
    assert planned(text, style_id).framing == framing.removesuffix("-length")


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("Snow-capped alps behind", "alpine"),
        ("On a yacht off a rocky coast", "coast"),
        ("Terrace of a Parisian café", "paris_cafe"),
        ("Walking in SoHo, New York", "soho_street"),
        ("Golden hour in the park", "golden_park"),
        ("Sunrise at the beach", "dawn_beach"),
        ("Old library", "library"),
        ("Rooftop bar at dusk", "rooftop"),
        ("Leaning on a classic car", "vintage_car"),
        ("In an artist's studio with easels", "art_studio"),
        ("Autumn woods", "autumn_forest"),
        ("Bright open-plan office", "office"),
        ("Farmers market", "market"),
        ("On a bridge in the fog", "foggy_bridge"),
        ("At the stadium, running track", "running_track"),
        ("Cooking in the kitchen", "kitchen"),
        ("In a recording studio", "music_studio"),
        ("Japanese garden", "zen_garden"),
        ("Candlelit restaurant", "fine_dining"),
        ("Hiking in the mountains", "hike"),
        ("A city street in the rain", "rainy_city"),
        ("Winery with oak barrels", "wine_cellar"),
        ("At the marina", "yacht_club"),
        ("An oil painting of a beach", "oil_painting"),
        ("Rainy street with neon signs", "rainy_city"),
        ("Cyberpunk portrait", "neon"),
        ("LinkedIn headshot", "grey_studio"),
        ("Dramatic black and white portrait", "charcoal_studio"),
    ],
)
def test_free_words_find_their_scene(prompt: str, key: str):
    assert scene_key(prompt, "none", 0) == key


def test_without_words_the_style_decides_by_index():
    assert [scene_key("", "signature", index) for index in range(23)] == list(SIGNATURE)
    assert scene_key("", "creative", 9) == "oil_painting"
    assert scene_key("", "a pack of our own", 2) in SCENES


def test_framings_of_neighbours_differ():
    framings = [planned("", "signature", index).framing for index in range(6)]
    assert all(one != two for one, two in pairwise(framings))


def test_the_side_of_the_light_is_honoured_or_left_to_the_seed():
    asked = {planned("An office, daylight from the left", seed=seed).mirrored for seed in range(8)}
    free = {planned("An office", seed=seed).mirrored for seed in range(8)}
    assert asked == {False}
    assert free == {False, True}


def test_words_of_manner_choose_the_grade():
    assert planned("A beach in black and white").grade == "mono"
    assert planned("An office, dramatic light").scene.light.strength >= 0.6


def test_a_plan_names_what_it_cannot_do():
    assert planned("In a suit, arms crossed, smiling, office").ignored == (
        "suit",
        "arms crossed",
        "smiling",
    )
