"""Selfies put straight into a real S3 server: for hosting whose requests may have 4.5 MB at most."""

import io
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from PIL import Image

from darkroom.adapters.intake import ProcessIntake
from darkroom.adapters.storage import open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.flow import upload_directly
from darkroom.flow.add_selfie import SELFIES_MAX
from darkroom.flow.forget_me import forget_me
from darkroom.flow.received_file import FILE_BYTES_MAX, ReceivedFile
from darkroom.flow.upload_directly import GRACE_SECONDS, LINK_SECONDS, remove_ended_uploads
from darkroom.twin.hosting import BODY_BYTES_MAX
from darkroom.wiring import bundled_portrait
from tests.edges.serving import application_of, client_of
from tests.scripted import picture_of
from tests.shop import Customer, Shop


@pytest.fixture
def on_s3(shop: Shop, s3_place: S3Place) -> Shop:
    shop.darkroom = replace(shop.darkroom, store=open_s3(s3_place))
    return shop


@pytest.fixture
async def bucket() -> AsyncGenerator[httpx.AsyncClient]:
    """A browser that talks to the store."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


class _Browser:
    """A customer at our doors and at the store's."""

    def __init__(self, shop: Shop, customer: Customer, bucket: httpx.AsyncClient) -> None:
        self._shop = shop
        self._bucket = bucket
        self.customer = customer
        self.path = f"/api/avatars/{customer.avatar_id}/uploads"

    async def post(self, path: str, **body: object) -> httpx.Response:
        """A call of ours."""
        content = {"telegramUserId": self.customer.telegram_user_id, **body}
        async with client_of(application_of(self._shop)) as client:
            return await client.post(path, json=content)

    async def open(self, *names: str) -> list[dict[str, Any]]:
        """Addresses for these files."""
        answer = await self.post(self.path, fileNames=list(names))
        assert answer.status_code == 201, answer.text
        uploads: list[dict[str, Any]] = answer.json()["data"]["uploads"]
        return uploads

    async def put(self, upload: dict[str, Any], data: bytes) -> None:
        """Into the store, past us."""
        put = await self._bucket.request(upload["method"], upload["url"], content=data)
        assert put.is_success, put.text

    async def complete(self, *uploads: dict[str, Any]) -> httpx.Response:
        """Name what was put."""
        ids = [upload["uploadId"] for upload in uploads]
        return await self.post(f"{self.path}/complete", uploadIds=ids)


@pytest.fixture
async def browser(on_s3: Shop, bucket: httpx.AsyncClient) -> _Browser:
    return _Browser(on_s3, await on_s3.customer(), bucket)


async def test_a_portrait_larger_than_a_request_may_be(
    on_s3: Shop, browser: _Browser, intake: ProcessIntake
) -> None:
    """Where bodies are cut at 4.5 MB no phone's photo came in."""
    on_s3.darkroom = replace(on_s3.darkroom, intake=intake)
    large = _enlarged(bundled_portrait())
    assert len(large) > BODY_BYTES_MAX
    (upload,) = await browser.open("IMG_0001.HEIC")
    await browser.put(upload, large)
    answer = (await browser.complete(upload)).json()
    (file,) = answer["data"]["files"]
    assert (file["accepted"], file["fileName"]) == (True, "IMG_0001.HEIC")
    key = await on_s3.value("SELECT object_key FROM reference_photos ORDER BY id DESC LIMIT 1")
    # What is kept is what we made of it, under a key of ours: the raw file never is.
    kept = await on_s3.darkroom.store.get(key)
    assert key.startswith("references/")
    assert kept != large
    assert b"Exif" not in kept


def _enlarged(portrait: bytes) -> bytes:
    """The same person in as many pixels as a phone has."""
    with Image.open(io.BytesIO(portrait)) as picture:
        large = picture.convert("RGB").resize((2400, 2400), Image.Resampling.LANCZOS)
    grain = Image.effect_noise((2400, 2400), 12).convert("RGB")
    buffer = io.BytesIO()
    Image.blend(large, grain, 0.1).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


async def test_naming_them_twice_or_thrice_is_one_selfie(on_s3: Shop, browser: _Browser) -> None:
    before = await on_s3.value("SELECT count(*) FROM reference_photos")
    (upload,) = await browser.open("me.jpg")
    await browser.put(upload, picture_of(-500))
    answers = [(await browser.complete(upload)).json() for _ in range(3)]
    assert answers[0]["data"] == answers[1]["data"] == answers[2]["data"]
    assert await on_s3.value("SELECT count(*) FROM reference_photos") == before + 1


async def test_each_file_gets_its_own_verdict(on_s3: Shop, browser: _Browser) -> None:
    good, empty, huge = await browser.open("good.jpg", "empty.jpg", "huge.jpg")
    await browser.put(good, picture_of(-501))
    await browser.put(empty, b"")
    await browser.put(huge, bytes(FILE_BYTES_MAX + 1))
    files = (await browser.complete(good, empty, huge)).json()["data"]["files"]
    assert [file.get("code") for file in files] == [None, "EMPTY", "TOO_LARGE"]
    assert len(files) <= SELFIES_MAX
    del on_s3


async def test_what_did_not_arrive_is_said_and_may_come_later(browser: _Browser) -> None:
    first, second = await browser.open("a.jpg", "b.jpg")
    await browser.put(first, picture_of(-502))
    missing = await browser.complete(first, second)
    assert (missing.status_code, missing.json()["error"]["code"]) == (409, "UPLOAD_MISSING")
    assert missing.json()["error"]["details"]["uploadId"] == second["uploadId"]
    await browser.put(second, picture_of(-503))
    assert (await browser.complete(first, second)).status_code == 200


async def test_nobody_elses(on_s3: Shop, browser: _Browser, bucket: httpx.AsyncClient) -> None:
    """Promise 7: an id out of a body opens nothing."""
    (upload,) = await browser.open("me.jpg")
    await browser.put(upload, picture_of(-504))
    thief = _Browser(on_s3, await on_s3.customer(), bucket)
    for path in (thief.path, browser.path):
        answer = await thief.post(f"{path}/complete", uploadIds=[upload["uploadId"]])
        assert answer.status_code == 404, answer.text
    assert (await thief.post(browser.path, fileNames=["x"])).status_code == 404
    async with client_of(application_of(on_s3, demo=False)) as client:
        answer = await client.post(browser.path, json={"fileNames": ["x"]})
        assert answer.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"fileNames": []},
        {"fileNames": ["x"] * 9},
        {"fileNames": ["a\0b"]},
        {"fileNames": ["x" * 101]},
        {"fileNames": "x"},
    ],
)
async def test_bad_wishes_are_refused_and_nothing_is_promised(
    on_s3: Shop, browser: _Browser, body: dict[str, object]
) -> None:
    answer = await browser.post(browser.path, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert await on_s3.value("SELECT count(*) FROM direct_uploads") == 0


async def test_a_folder_gives_no_addresses(shop: Shop, bucket: httpx.AsyncClient) -> None:
    browser = _Browser(shop, await shop.customer(), bucket)
    answer = await browser.post(browser.path, fileNames=["me.jpg"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "NO_DIRECT_UPLOADS")


async def test_uploads_are_counted_like_any_other(on_s3: Shop, browser: _Browser) -> None:
    limits = on_s3.darkroom.limits.model_copy(update={"uploads_max": 3})
    on_s3.darkroom = replace(on_s3.darkroom, limits=limits)
    # The customer's own selfie was the first.
    await browser.open("a.jpg")
    await browser.open("b.jpg")
    answer = await browser.post(browser.path, fileNames=["c.jpg"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TOO_MANY_UPLOADS")


async def _keys(shop: Shop, customer: Customer) -> list[str]:
    return await shop.darkroom.store.list_keys(f"uploads/{customer.avatar_id}")


async def test_raw_files_are_gone_when_their_address_is(on_s3: Shop, browser: _Browser) -> None:
    """The raw file has the place where it was taken in it: nobody keeps it longer than a quarter of an hour."""
    used, unused, never = await browser.open("a.jpg", "b.jpg", "c.jpg")
    del never
    await browser.put(used, picture_of(-505))
    await browser.put(unused, picture_of(-506))
    assert (await browser.complete(used)).status_code == 200
    await on_s3.advance(LINK_SECONDS)
    assert await remove_ended_uploads(on_s3.darkroom) == 0, "somebody may still be putting"
    await on_s3.advance(GRACE_SECONDS + 1)
    assert await remove_ended_uploads(on_s3.darkroom) == 3
    assert await _keys(on_s3, browser.customer) == []
    assert await on_s3.value("SELECT count(*) FROM direct_uploads") == 0
    assert (await browser.complete(used)).status_code == 404


async def test_a_store_that_is_away_loses_no_row(
    on_s3: Shop, browser: _Browser, s3_place: S3Place
) -> None:
    (upload,) = await browser.open("a.jpg")
    await browser.put(upload, picture_of(-507))
    await on_s3.advance(LINK_SECONDS + GRACE_SECONDS + 1)
    there = on_s3.darkroom
    away = open_s3(replace(s3_place, secret_access_key="wrong"))
    assert await remove_ended_uploads(replace(there, store=away)) == 0
    assert await on_s3.value("SELECT count(*) FROM direct_uploads") == 1
    assert await remove_ended_uploads(there) == 1


async def test_a_full_folder_for_what_is_on_its_way_is_said_and_not_our_fault(
    browser: _Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hosted instance has little of it, shared by all requests: a 500."""

    def full(_file: ReceivedFile, _piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    (upload,) = await browser.open("me.jpg")
    await browser.put(upload, picture_of(1))
    monkeypatch.setattr(ReceivedFile, "add", full)
    answer = await browser.complete(upload)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
    assert "Retry-After" in answer.headers


async def test_who_leaves_takes_raw_files_along(on_s3: Shop, browser: _Browser) -> None:
    (upload,) = await browser.open("a.jpg")
    await browser.put(upload, picture_of(-508))
    await forget_me(on_s3.darkroom, user_id=browser.customer.user_id)
    await on_s3.drain()
    await on_s3.advance(on_s3.darkroom.limits.put_grace_seconds + 1)
    await on_s3.drain()
    assert await on_s3.value("SELECT count(*) FROM users WHERE forgotten_at IS NOT NULL") == 1
    assert await _keys(on_s3, browser.customer) == []
    # Put once more through an address that is still good: gone with it.
    await browser.put(upload, picture_of(-508))
    await on_s3.advance(LINK_SECONDS + GRACE_SECONDS + 1)
    while await remove_ended_uploads(on_s3.darkroom):
        pass
    assert await _keys(on_s3, browser.customer) == []


async def test_twin_without_rows_raw_files_stay_for_ever(
    on_s3: Shop, browser: _Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: an object that no row promised is removed by nobody."""

    async def nothing(*_args: object, **_kwargs: object) -> list[object]:
        return []

    (upload,) = await browser.open("a.jpg")
    await browser.put(upload, picture_of(-509))
    monkeypatch.setattr(upload_directly, "list_ended_uploads", nothing)
    await on_s3.advance(LINK_SECONDS + GRACE_SECONDS + 1)
    await remove_ended_uploads(on_s3.darkroom)
    assert await _keys(on_s3, browser.customer) != []
