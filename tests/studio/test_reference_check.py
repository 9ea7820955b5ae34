"""Which photos may serve as a reference, and what the customer is told about the others."""

import pytest

from darkroom.adapters.generation.studio.reference_check import inspect_reference
from tests.studio import portraits


@pytest.mark.parametrize("portrait", [portraits.astronaut(), portraits.officer()])
def test_a_good_portrait_passes_without_remark(portrait: bytes):
    report = inspect_reference(portrait)
    assert report.faces == 1
    assert report.face_height_px > 90
    assert report.yaw < 0.1
    assert report.refused == ()
    assert report.warned == ()


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (b"", "BAD_IMAGE"),
        (b"%PDF-1.7 not a photo", "BAD_IMAGE"),
        (portraits.astronaut()[:20_000], "BAD_IMAGE"),
        (portraits.shrunk(portraits.officer(), 100), "BAD_IMAGE"),
        (portraits.noise(), "NO_FACE"),
        (portraits.cropped(portraits.astronaut(), (0, 300, 300, 512)), "NO_FACE"),
        (portraits.shrunk(portraits.astronaut(), 200), "FACE_TOO_SMALL"),
        (portraits.blurred(portraits.officer(), 6.0), "TOO_BLURRED"),
        (portraits.darkened(portraits.astronaut(), 0.06), "TOO_DARK"),
        (portraits.turned_away(portraits.astronaut(), 225), "TURNED_AWAY"),
        (portraits.side_by_side(portraits.officer(), portraits.officer()), "MANY_FACES"),
    ],
    ids=[
        "empty", "pdf", "cut off", "tiny", "noise", "no head", "small face", "blurred", "dark",
        "profile", "two people",
    ],
)  # fmt: skip
def test_a_bad_photo_is_refused_by_its_code(reference: bytes, code: str):
    assert code in inspect_reference(reference).refused


def test_a_photo_with_a_bystander_is_warned_about_not_refused():
    report = inspect_reference(portraits.side_by_side(portraits.officer(), portraits.astronaut()))
    assert report.faces == 2
    assert report.refused == ()
    assert report.warned == ("MANY_FACES",)


def test_a_dim_photo_is_warned_about():
    report = inspect_reference(portraits.darkened(portraits.officer(), 0.28))
    assert report.refused == ()
    assert "TOO_DARK" in report.warned
