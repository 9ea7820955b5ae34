"""Customers' files: what is taken and how it comes out, what is refused, and that none does harm."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageStat

from darkroom.adapters import intake as intake_room
from darkroom.adapters.intake import ProcessIntake
from darkroom.adapters.processes import OwnProcesses, ProcessLostError, ProcessSlowError
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.intake import RefusalCode, Selfie
from tests.contracts.child_work import die, die_once, enter_plain, enter_poor, hang, take
from tests.heic import heic
from tests.selfie_files import (
    good_files,
    portrait,
    refused_files,
    saved,
    small_face,
    swapped_profile,
    with_everything,
)
from tests.studio import portraits
from tests.studio.portraits import ORIENTATION


async def _selfie(intake: ProcessIntake, data: bytes) -> Selfie:
    found = await intake.look(lambda: data)
    assert isinstance(found, Selfie), found
    return found


def _picture(selfie: Selfie) -> Image.Image:
    return Image.open(io.BytesIO(selfie.data))


def _distance(one: Image.Image, two: Image.Image) -> float:
    """Mean difference of 64 x 64 thumbnails, 0..255."""
    small = [
        np.asarray(picture.convert("RGB").resize((64, 64)), dtype=np.float64)
        for picture in (one, two)
    ]
    return float(np.abs(small[0] - small[1]).mean())


@pytest.mark.parametrize("kind", list(good_files()))
async def test_every_form_of_a_portrait_becomes_the_same_plain_jpeg(
    intake: ProcessIntake, kind: str
) -> None:
    selfie = await _selfie(intake, good_files()[kind])
    picture = _picture(selfie)
    assert (picture.format, picture.mode) == ("JPEG", "RGB")
    assert set(picture.info) == {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert picture.size == (selfie.width, selfie.height)
    expected = portrait()
    if "grey" in kind:
        expected = expected.convert("L")
    if "heic" in kind or "heif" in kind:
        expected = expected.crop((0, 0, 512, 576))
    if "transparent" in kind:
        expected.paste((128, 128, 128), (0, 0, 60, 60))
    assert picture.size == expected.size
    assert _distance(picture, expected) < 4
    assert selfie.measures.faces == 1
    assert selfie.severe == ()


async def test_the_same_bytes_come_out_of_the_same_bytes_whoever_looks(
    intake: ProcessIntake,
) -> None:
    other = ProcessIntake(processes=1)
    try:
        for kind in ("jpeg", "heic"):
            file = good_files()[kind]
            first = await _selfie(intake, file)
            assert await _selfie(intake, file) == first
            assert await _selfie(other, file) == first
    finally:
        await other.close()


async def test_nothing_but_pixels_is_kept(intake: ProcessIntake) -> None:
    """The place where the photo was taken must not reach a provider."""
    file = with_everything()
    for secret in (b"SECRET-CAMERA", b"SECRET-COMMENT", b"SECRET-XMP", b"Exif"):
        assert secret in file
    selfie = await _selfie(intake, file)
    for trace in (b"SECRET", b"Exif", b"http:", b"ICC_PROFILE", b"xmp"):
        assert trace not in selfie.data
    assert not _picture(selfie).getexif()


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_photo_lies_as_its_camera_meant(intake: ProcessIntake, orientation: int) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = portrait()
    if orientation in back:
        stored = stored.transpose(back[orientation])
    selfie = await _selfie(intake, saved(stored, "JPEG", quality=92, exif=exif))
    assert _distance(_picture(selfie), portrait()) < 3


async def test_a_heic_is_turned_once(intake: ProcessIntake) -> None:
    lying = portrait().crop((0, 0, 512, 576)).transpose(Image.Transpose.ROTATE_270)
    selfie = await _selfie(intake, heic(lying, turns=1))
    assert (selfie.width, selfie.height) == (512, 576)
    assert _distance(_picture(selfie), portrait().crop((0, 0, 512, 576))) < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
async def test_colours_are_what_their_profile_says(intake: ProcessIntake, kind: str) -> None:
    file = saved(portrait(), kind, icc_profile=swapped_profile(), quality=92)
    red, green, blue = portrait().split()
    selfie = await _selfie(intake, file)
    assert _distance(_picture(selfie), Image.merge("RGB", (blue, green, red))) < 4
    assert _distance(_picture(selfie), portrait()) > 8


@pytest.mark.parametrize("profile", [b"nonsense", swapped_profile()[:300]])
async def test_a_damaged_profile_leaves_the_colours_alone(
    intake: ProcessIntake, profile: bytes
) -> None:
    selfie = await _selfie(intake, saved(portrait(), "JPEG", icc_profile=profile, quality=92))
    assert _distance(_picture(selfie), portrait()) < 3


async def test_sixteen_bits_are_scaled_not_cut(intake: ProcessIntake) -> None:
    selfie = await _selfie(intake, good_files()["16-bit grey png"])
    light = ImageStat.Stat(portrait().convert("L")).mean[0]
    assert abs(ImageStat.Stat(_picture(selfie).convert("L")).mean[0] - light) < 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4032, 4725), (1638, 1920)), ((3000, 2400), (1920, 1536)), ((1920, 1500), (1920, 1500))],
)
async def test_large_pictures_are_made_smaller_and_small_ones_left(
    intake: ProcessIntake, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    selfie = await _selfie(intake, saved(portrait().resize(size), "JPEG", quality=85))
    assert (selfie.width, selfie.height) == expected


@pytest.mark.parametrize("kind", list(refused_files()))
async def test_a_bad_file_is_refused_by_its_code(intake: ProcessIntake, kind: str) -> None:
    data, code = refused_files()[kind]
    assert await intake.look(lambda: data) == RefusalCode(code)


@pytest.mark.parametrize(
    ("data", "code", "is_severe"),
    [
        (portraits.side_by_side(portraits.officer(), portraits.officer()), "MANY_FACES", True),
        (portraits.side_by_side(portraits.officer(), portraits.astronaut()), "MANY_FACES", False),
        (small_face(), "FACE_TOO_SMALL", True),
        (portraits.darkened(portraits.astronaut(), 0.06), "TOO_DARK", True),
        (portraits.darkened(portraits.officer(), 0.28), "TOO_DARK", False),
        (portraits.blurred(portraits.officer(), 6.0), "TOO_BLURRED", True),
        (portraits.turned_away(portraits.astronaut(), 225), "TURNED_AWAY", True),
        (portraits.brightened(portraits.astronaut(), 1.8), "TOO_BRIGHT", True),
        (portraits.brightened(portraits.astronaut(), 1.45), "TOO_BRIGHT", False),
        (portraits.cropped(portraits.astronaut(), (190, 0, 512, 366)), "FACE_CUT", True),
        (portraits.cropped(portraits.astronaut(), (0, 0, 258, 366)), "FACE_CUT", True),
    ],
    ids=[
        "rival",
        "bystander",
        "small face",
        "dark",
        "dim",
        "blurred",
        "profile",
        "overexposed",
        "bright",
        "cut at the left",
        "cut at the right",
    ],
)
async def test_a_doubtful_selfie_is_kept_with_a_warning(
    intake: ProcessIntake, data: bytes, code: str, *, is_severe: bool
) -> None:
    selfie = await _selfie(intake, data)
    assert code in selfie.warnings
    assert (code in selfie.severe) == is_severe


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("portrait", [portraits.astronaut(), portraits.officer()])
async def test_a_face_that_lies_or_stands_on_its_head_is_turned_upright(
    intake: ProcessIntake, portrait: bytes, turns: int
) -> None:
    """Of a scan or a screenshot no EXIF says it, and a whole set came out lying down."""
    upright = portraits.opened(portrait)
    lying = upright.rotate(90 * turns, expand=True)
    selfie = await _selfie(intake, portraits.encoded(lying))
    assert _distance(_picture(selfie), upright) < 4
    assert selfie.severe == ()


@pytest.mark.parametrize("missing", [2, 20])
async def test_a_jpeg_that_lost_its_last_bytes_is_a_photo_all_the_same(
    intake: ProcessIntake, missing: int
) -> None:
    whole = saved(portrait(), "JPEG", quality=92)
    selfie = await _selfie(intake, whole[:-missing])
    assert _distance(_picture(selfie), portrait()) < 3


async def test_a_jpeg_that_lost_a_part_of_its_picture_is_none(intake: ProcessIntake) -> None:
    whole = saved(portrait(), "JPEG", quality=92)
    found = await intake.look(lambda: whole[: len(whole) * 9 // 10])
    assert found is RefusalCode.NOT_AN_IMAGE


async def test_the_fingerprint_stays_close_when_the_picture_does(intake: ProcessIntake) -> None:
    def apart(one: Selfie, two: Selfie) -> int:
        return ((one.dhash ^ two.dhash) & (2**64 - 1)).bit_count()

    original = await _selfie(intake, good_files()["jpeg"])
    resaved = await _selfie(intake, saved(portrait().resize((700, 820)), "WEBP", quality=60))
    other = await _selfie(intake, portraits.astronaut())
    assert original.data != resaved.data
    assert apart(original, resaved) <= 6
    assert apart(original, other) > 6


def _own(
    enter: Callable[[], None] = enter_plain,
    *,
    seconds: float = 30,
    idle: list[ProcessPoolExecutor] | None = None,
) -> OwnProcesses:
    return OwnProcesses(
        "test.work", processes=1, seconds=seconds, works_per_process=10, enter=enter, idle=idle
    )


async def test_a_process_gets_no_more_memory_than_its_limit() -> None:
    poor = _own(enter_poor)
    try:
        assert await poor.run(take, 8)
        with pytest.raises(MemoryError):
            await poor.run(take, 256)
        assert await poor.run(take, 8), "it lives on"
    finally:
        await poor.close()


async def test_twin_without_the_limit_the_memory_is_given() -> None:
    rich = _own()
    try:
        assert await rich.run(take, 256), "the twin must fail"
    finally:
        await rich.close()


async def test_a_work_that_hangs_is_killed_and_takes_nobody_with_it() -> None:
    idle: list[ProcessPoolExecutor] = []
    warm = _own(idle=idle)
    process_id = await warm.run(os.getpid)
    hasty = _own(seconds=0.2, idle=idle)
    with pytest.raises(ProcessSlowError):
        await hasty.run(hang)
    assert idle == [], "the hanging process is not lent again"
    try:
        assert await warm.run(os.getpid) != process_id
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)
    finally:
        await warm.close()


async def test_a_work_that_kills_its_process_is_told_so() -> None:
    own = _own()
    try:
        with pytest.raises(ProcessLostError):
            await own.run(die, b"")
        assert await own.run(take, 1)
    finally:
        await own.close()


async def test_a_file_that_takes_too_long_is_refused(intake: ProcessIntake) -> None:
    hasty = ProcessIntake(processes=1, look_seconds=0.001)
    assert await hasty.look(lambda: good_files()["jpeg"]) == RefusalCode.BOMB
    await _selfie(intake, good_files()["jpeg"])


async def test_a_file_that_kills_its_process_twice_is_refused_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = ProcessIntake(processes=1)
    try:
        monkeypatch.setattr(intake_room, "look_at_file", die)
        assert await own.look(lambda: b"x") == RefusalCode.BOMB
        monkeypatch.setattr(intake_room, "look_at_file", partial(die_once, str(tmp_path / "died")))
        assert await own.look(lambda: b"x") == RefusalCode.NOT_AN_IMAGE
    finally:
        await own.close()


async def test_no_file_is_opened_inside_a_transaction(intake: ProcessIntake) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await intake.look(lambda: good_files()["jpeg"])
