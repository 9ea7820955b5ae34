"""What comes out of the studio: a photo of the right size with the customer's face in it."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from darkroom.adapters.generation.studio import render as studio
from darkroom.adapters.generation.studio.face import find_faces
from darkroom.adapters.generation.studio.pixels import Picture
from darkroom.adapters.generation.studio.render import RenderOrder, StudioError, render
from tests.studio import portraits

PROMPTS = (
    "A dawn beach, close portrait",
    "A foggy bridge, half-length portrait",
    "A rainy city, bust portrait",
    "A white studio backdrop, close portrait",
    "A window light wall, bust portrait",
    "Keep the own background, half-length portrait",
    "An oil painting",
    "A watercolour",
    "A pencil drawing",
    "A pop art poster",
    "A halftone print",
    "A duotone image",
    "A film noir interior",
    "An old master portrait",
    "Neon tubes",
)


def seen(data: bytes) -> Picture:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_face_is_found_again_and_no_number_is_lost(
    prompt: str, monkeypatch: pytest.MonkeyPatch
):
    finished: list[Picture] = []
    to_bytes = studio.to_bytes

    def watched(picture: Picture):
        finished.append(picture)
        return to_bytes(picture)

    monkeypatch.setattr(studio, "to_bytes", watched)
    index = PROMPTS.index(prompt)
    photo = render(RenderOrder(prompt, "signature", index, 70 + index), [portraits.officer()])
    assert np.isfinite(finished[0]).all()
    picture = seen(photo.data)
    assert picture.shape == (1024, 768, 3)
    assert picture.std() > 20
    face = find_faces(picture)[0]
    assert 0.3 < face.centre_x / 768 < 0.7
    assert 0.2 < face.centre_y / 1024 < 0.65
    assert face.height > 120


def test_another_seed_gives_another_picture_of_the_same_prompt():
    prompt = "An autumn forest, bust portrait"
    orders = [RenderOrder(prompt, "signature", 10, seed) for seed in (1, 2, 3)]
    photos = [render(order, [portraits.officer()]) for order in orders]
    assert {photo.preset for photo in photos} == {"autumn_forest/warm_film/bust"}
    pictures = [seen(photo.data).astype(np.float64) for photo in photos]
    assert np.abs(pictures[0] - pictures[1]).mean() > 8
    assert np.abs(pictures[1] - pictures[2]).mean() > 8


def test_the_references_take_turns():
    references = [portraits.astronaut(), portraits.officer()]
    photos = [
        render(
            RenderOrder("A grey studio backdrop, bust portrait", "professional", index, 1),
            references,
        )
        for index in range(3)
    ]
    orange = [seen(photo.data)[900:, 250:500, 0].mean() > 120 for photo in photos]
    assert orange[0] != orange[1]
    assert orange[0] == orange[2]


def test_a_bad_reference_is_passed_over_while_another_can_serve():
    order = RenderOrder("An office, bust portrait", "professional", 0, 1)
    alone = render(order, [portraits.officer()])
    assert render(order, [b"no picture", portraits.noise(), portraits.officer()]) == alone


def test_with_no_usable_reference_the_first_complaint_is_raised():
    order = RenderOrder("An office", "professional", 0, 1)
    with pytest.raises(StudioError) as caught:
        render(order, [portraits.noise(), b"no picture"])
    assert caught.value.code == "NO_FACE"
    with pytest.raises(StudioError) as caught:
        render(order, [])
    assert caught.value.code == "BAD_IMAGE"


def test_the_photo_says_how_it_was_made_and_nothing_of_the_customers_file():
    reference = portraits.lying_on_its_side_with_a_place(portraits.astronaut())
    assert Image.open(io.BytesIO(reference)).getexif().get_ifd(portraits.GPS_DIRECTORY)
    prompt = "An alpine ridge, the subject in a blazer, smiling, bust portrait"
    photo = render(RenderOrder(prompt, "signature", 0, 2**63 - 1), [reference])
    picture = Image.open(io.BytesIO(photo.data))
    label = json.loads(picture.info["comment"])
    assert label == {
        "provider": "local-composite",
        "preset": photo.preset,
        "seed": 2**63 - 1,
        "ignored": ["blazer", "smiling"],
    }
    assert b'darkroom:provider="local-composite"' in picture.info["xmp"]
    assert not picture.getexif()
    assert picture.format == "JPEG"
    assert find_faces(np.asarray(picture)), "a photo that lies on its side is set upright first"


@pytest.mark.parametrize(
    "reference",
    [
        portraits.cropped(portraits.officer(), (120, 20, 420, 420)),
        portraits.darkened(portraits.officer(), 0.28),
        portraits.encoded(portraits.opened(portraits.officer()).rotate(18)),
        portraits.encoded(portraits.opened(portraits.officer()).convert("L")),
        portraits.encoded(portraits.opened(portraits.officer()), "WEBP"),
        portraits.encoded(portraits.opened(portraits.officer()).resize((2560, 3000))),
    ],
    ids=["tight crop", "dark", "head turned 18 degrees", "black and white", "webp", "large"],
)
def test_a_hard_but_usable_reference_gives_a_portrait(reference: bytes):
    photo = render(RenderOrder("A green park", "lifestyle", 2, 5), [reference])
    assert find_faces(seen(photo.data))


def test_a_black_and_white_person_is_not_put_before_a_coloured_scene():
    grey = portraits.encoded(portraits.opened(portraits.officer()).convert("L"))
    photo = render(RenderOrder("A green park, bust portrait", "lifestyle", 2, 5), [grey])
    assert photo.preset == "park/mono/bust"
    picture = seen(photo.data).astype(np.int64)
    assert np.abs(picture[..., 0] - picture[..., 2]).mean() < 4
