"""Photos as bytes: whose they are, for how long, and every way to ask for a part of them."""

import asyncio
import hashlib
import hmac
import io
import zipfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from PIL import Image

from darkroom.adapters.pictures import read_picture
from darkroom.adapters.thumbnails import LONG_SIDE, develop, make_thumbnail
from darkroom.core.jobs import StartedJob
from darkroom.core.photos import StoredPicture, keep_late_photo
from darkroom.core.tasks import claim_storing
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.hand_out_photos import fit_name
from darkroom.flow.photo_links import LinkClaim, PhotoLinks
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.zip_photos import DamagedPhotoError, zip_photos
from darkroom.ports.generation import GenerationRequest
from darkroom.ports.pictures import Thumbnail
from darkroom.ports.storage import ObjectStore, StorageUnavailableError
from darkroom.twin.loopback import loopback
from tests.edges.serving import application_of, client_of
from tests.scripted import picture_of
from tests.shop import Customer, Shop


@dataclass
class Sold:
    """A set that is made, and its owner's way to it."""

    shop: Shop
    customer: Customer
    job: StartedJob
    client: httpx.AsyncClient

    def whose(self, customer: Customer | None = None) -> dict[str, int]:
        return {"telegramUserId": (customer or self.customer).telegram_user_id}

    async def view(self) -> dict[str, Any]:
        answer = await self.client.get(f"/api/jobs/{self.job.id}", params=self.whose())
        return answer.json()["data"]

    async def photos(self) -> list[dict[str, Any]]:
        path = f"/api/avatars/{self.customer.avatar_id}/photos"
        return (await self.client.get(path, params=self.whose())).json()["data"]["photos"]

    async def link(self, place: int = 0) -> str:
        return (await self.view())["photos"][place]["imageUrl"]


@pytest.fixture
async def sold(shop: Shop) -> AsyncGenerator[Sold]:
    customer, job = await shop.sold()
    await shop.drain()
    async with client_of(application_of(shop)) as client:
        yield Sold(shop, customer, job, client)


def _changed(link: str, **fields: object) -> str:
    parts = urlsplit(link)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    return f"{parts.path}?{urlencode({**query, **fields})}"


async def test_a_link_opens_its_photo_without_a_session(sold: Sold) -> None:
    """bugbook G2, bugbook C15: the bytes are ours, whole, under our own address."""
    for photo in (await sold.view())["photos"]:
        task_id = await sold.shop.value(
            "SELECT task_id FROM generated_photos WHERE id = %s", photo["photoId"]
        )
        answer = await sold.client.get(photo["imageUrl"])
        assert answer.status_code == 200
        assert answer.content == picture_of(task_id)
        assert answer.headers["etag"] == f'"{photo["sha256"]}"'
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-length"] == str(photo["sizeBytes"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        small = await sold.client.get(photo["thumbnailUrl"])
        assert small.headers["content-type"] == "image/webp"
        assert small.headers["etag"] == f'"{hashlib.sha256(small.content).hexdigest()}"'
    view = await sold.view()
    assert [photo["promptIndex"] for photo in view["photos"]] == list(range(7))
    listed = {photo["photoId"]: photo for photo in await sold.photos()}
    assert listed == {photo["photoId"]: photo for photo in view["photos"]}


async def test_a_link_is_good_for_nothing_else(sold: Sold) -> None:
    """bugbook G2, bugbook G18: another user, photo, variant or moment is another link."""
    stranger = await sold.shop.customer()
    link, other = await sold.link(0), await sold.link(1)
    parts, elsewhere = urlsplit(link), urlsplit(other)
    wrong = [
        _changed(link, user=stranger.user_id),
        f"{elsewhere.path}?{parts.query}",
        _changed(link, variant="thumb"),
        _changed(link, variant="zip"),
        _changed(link, variant="none"),
        _changed(link, expires=int(parse_qs(parts.query)["expires"][0]) + 1),
        _changed(link, expires="x"),
        _changed(link, expires="0"),
        _changed(link, expires="9" * 30),
        _changed(link, user="x"),
        _changed(link, user="\u0661"),
        _changed(link, signature=""),
        _changed(link, signature="A" * 43),
        _changed(link, signature="\u00e9" * 43),
        _changed(link, signature="A" * 100_00),
        f"{parts.path}?signature=",
        link[:-1],
        link + "A",
        f"/api/jobs/{sold.job.id}/photos.zip?{parts.query}",
    ]
    for attempt in wrong:
        answer = await sold.client.get(attempt)
        assert answer.status_code == 404, attempt
        assert answer.json()["error"]["code"] in ("PHOTO_NOT_FOUND", "JOB_NOT_FOUND")
        # Not even with the owner's session beside it.
        assert (await sold.client.get(attempt + f"&telegramUserId={1001}")).status_code == 404
    assert (await sold.client.get(link)).status_code == 200


async def test_without_the_comparison_the_changed_link_would_open(
    sold: Sold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test above: what refuses is the signature, and nothing beside it."""

    def anything(_given: bytes, _made: bytes) -> bool:
        return True

    monkeypatch.setattr(hmac, "compare_digest", anything)
    answer = await sold.client.get(_changed(await sold.link(), signature="A" * 43))
    assert answer.status_code == 200


async def test_a_signature_for_somebody_elses_photo_finds_nothing(sold: Sold) -> None:
    """Even our own key opens a photo for its owner only: the row is asked at every use."""
    stranger = await sold.shop.customer()
    photo_id = (await sold.photos())[0]["photoId"]
    links = sold.shop.darkroom.links
    for link in (
        links.photo(user_id=stranger.user_id, photo_id=photo_id),
        links.photo(user_id=sold.customer.user_id, photo_id=10**15),
        links.archive(user_id=stranger.user_id, job_id=sold.job.id),
    ):
        assert (await sold.client.get(link)).status_code == 404


async def test_a_link_ends_and_is_the_same_for_minutes() -> None:
    now = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC)
    links = PhotoLinks(secret="s" * 32, previous=None, minutes=15, clock=lambda: now)
    made: set[str] = set()
    for second in range(0, 900, 7):
        now = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC) + timedelta(seconds=second)
        link = links.photo(user_id=1, photo_id=2)
        made.add(link)
        query = parse_qs(urlsplit(link).query)
        claim = LinkClaim(1, 2, "full", int(query["expires"][0]), query["signature"][0])
        left = links.seconds_valid(claim)
        assert left is not None
        assert 600 <= left <= 900, (
            "never longer than the setting, never shorter than two thirds of it"
        )
        begin = now
        now = begin + timedelta(seconds=left - 1)
        assert links.seconds_valid(claim) == 1
        now = begin + timedelta(seconds=left)
        assert links.seconds_valid(claim) is None
        now = begin
    assert len(made) == 3, "a browser's cache finds the same address within a third of the lifetime"


async def test_after_a_rotation_the_old_links_still_open_and_a_third_key_does_not() -> None:
    def claim_of(links: PhotoLinks) -> LinkClaim:
        query = parse_qs(urlsplit(links.archive(user_id=1, job_id=2)).query)
        return LinkClaim(1, 2, "zip", int(query["expires"][0]), query["signature"][0])

    old = PhotoLinks(secret="o" * 32, previous=None, minutes=15)
    new = PhotoLinks(secret="n" * 32, previous="o" * 32, minutes=15)
    after = PhotoLinks(secret="n" * 32, previous=None, minutes=15)
    assert new.seconds_valid(claim_of(old))
    assert new.seconds_valid(claim_of(new))
    assert after.seconds_valid(claim_of(new))
    assert after.seconds_valid(claim_of(old)) is None


async def test_an_owner_without_a_link_is_sent_to_one(sold: Sold) -> None:
    photo_id = (await sold.photos())[0]["photoId"]
    path = f"/api/photos/{photo_id}/image"
    assert (await sold.client.get(path)).status_code == 401
    answer = await sold.client.get(path, params={**sold.whose(), "variant": "thumb", "download": 1})
    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-store"
    target = await sold.client.get(answer.headers["location"])
    assert target.headers["content-type"] == "image/webp"
    assert target.headers["content-disposition"].startswith("attachment")
    stranger = await sold.shop.customer()
    assert (await sold.client.get(path, params=sold.whose(stranger))).status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=0-", 206, (0, None)),
        ("bytes=10-19", 206, (10, 20)),
        ("Bytes=10-19", 206, (10, 20)),
        ("bytes= 10-19 ", 206, (10, 20)),
        ("bytes=-1", 206, (-1, None)),
        ("bytes=-99999999", 206, (0, None)),
        ("bytes=10-99999999", 206, (10, None)),
        ("bytes=99999999-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-4", 200, None),
        ("bytes=-", 200, None),
        ("bytes=0-1,3-4", 200, None),
        ("bytes=a-b", 200, None),
        ("bytes=\u0661-", 200, None),
        ("bytes=" + "1" * 500 + "-", 200, None),
        ("items=0-1", 200, None),
        ("", 200, None),
    ],
)
async def test_parts(
    sold: Sold, asked: str, status: int, part: tuple[int, int | None] | None
) -> None:
    link = await sold.link()
    whole = (await sold.client.get(link)).content
    answer = await sold.client.get(link, headers=[(b"range", asked.encode())])
    assert answer.status_code == status
    if status == 416:
        assert answer.json()["error"]["code"] == "RANGE_NOT_SATISFIABLE"
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    elif part is None:
        assert answer.content == whole
        assert "content-range" not in answer.headers
    else:
        first, beyond, _ = slice(*part).indices(len(whole))
        assert answer.content == whole[first:beyond]
        assert answer.headers["content-range"] == f"bytes {first}-{beyond - 1}/{len(whole)}"
        assert answer.headers["content-length"] == str(beyond - first)


async def test_a_part_of_something_else_is_not_given(sold: Sold) -> None:
    link = await sold.link()
    whole = await sold.client.get(link)
    etag = whole.headers["etag"]
    for condition, status in (
        (etag, 206),
        ('"other"', 200),
        (f"W/{etag}", 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
    ):
        headers = {"Range": "bytes=1-2", "If-Range": condition}
        answer = await sold.client.get(link, headers=headers)
        assert answer.status_code == status, condition
    # HEAD has no parts, and what is known is known before any part is looked at.
    head = await sold.client.head(link, headers={"Range": "bytes=1-2"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole.content)))
    known = await sold.client.get(link, headers={"Range": "bytes=1-2", "If-None-Match": etag})
    assert known.status_code == 304


async def test_caching(sold: Sold) -> None:
    """bugbook H15: a deleted photo stayed on the CDN for a year. No cache outlives the link here."""
    link = await sold.link()
    whole = await sold.client.get(link)
    etag = whole.headers["etag"]
    control = whole.headers["cache-control"]
    assert control.startswith("private, max-age=")
    assert control.endswith(", immutable")
    age = int(control.split("max-age=")[1].split(",")[0])
    expires = int(parse_qs(urlsplit(link).query)["expires"][0])
    assert 0 < age <= expires - datetime.now(UTC).timestamp() + 2
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        known = await sold.client.get(link, headers={"If-None-Match": tag})
        assert (known.status_code, known.content) == (304, b""), tag
        assert known.headers["etag"] == etag
        assert "max-age=" in known.headers["cache-control"]
    changed = await sold.client.get(link, headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


async def test_head_says_what_get_says(sold: Sold) -> None:
    photo_id = (await sold.photos())[0]["photoId"]
    user_id = sold.customer.user_id
    # How long an answer may be kept grows less by the second, also between two questions.
    now = datetime.now(UTC)
    links = PhotoLinks(secret="s" * 32, previous=None, minutes=15, clock=lambda: now)
    archive = links.archive(user_id=user_id, job_id=sold.job.id)
    sold.shop.darkroom = replace(sold.shop.darkroom, links=links)
    async with client_of(application_of(sold.shop)) as client:
        for link in (
            links.photo(user_id=user_id, photo_id=photo_id),
            links.photo(user_id=user_id, photo_id=photo_id, variant="thumb"),
            archive,
        ):
            get, head = await client.get(link), await client.head(link)
            assert (head.status_code, head.content) == (200, b"")
            assert dict(head.headers) == dict(get.headers)
            assert head.headers["content-length"] == str(len(get.content))
        assert (await client.head(archive[:-1])).status_code == 404


async def test_names_to_save_under(sold: Sold) -> None:
    """A person's words in a header: nothing of them can end it, leave a folder, or turn the text around."""
    async with sold.shop.database.connection() as tx:
        await tx.execute("UPDATE avatars SET name = %s", ['Маша "\r\nX: 1/../\u202egpj'])
    answer = await sold.client.get(await sold.link() + "&download=1")
    header = answer.headers["content-disposition"]
    assert header.isascii()
    assert header.startswith(
        f'attachment; filename="darkroom-{sold.job.id}-01.jpg"; filename*=UTF-8'
    )
    assert "%D0%9C%D0%B0%D1%88%D0%B0" in header
    assert not any(bad in header for bad in ("%0D", "%2F", "%22", "%E2%80%AE"))
    assert (
        (await sold.client.get(await sold.link()))
        .headers["content-disposition"]
        .startswith("inline")
    )
    assert fit_name("...") == fit_name("/") == fit_name("\u202e") == "darkroom"


async def test_deleted_photos_are_nowhere(sold: Sold) -> None:
    """bugbook H15: links that were given out before die with the photo, and with its avatar."""
    view = await sold.view()
    links = [photo["imageUrl"] for photo in view["photos"]]
    thumbs = [photo["thumbnailUrl"] for photo in view["photos"]]
    gone = view["photos"][2]["photoId"]
    async with sold.shop.database.connection() as tx:
        await tx.execute(
            "UPDATE generated_photos SET deleted_at = darkroom_now() WHERE id = %s", [gone]
        )
    assert (await sold.client.get(links[2])).status_code == 404
    assert (await sold.client.get(thumbs[2], headers={"If-None-Match": "*"})).status_code == 404
    assert gone not in [photo["photoId"] for photo in await sold.photos()]
    assert gone not in [photo["photoId"] for photo in (await sold.view())["photos"]]
    packed = await sold.client.get(view["photosZipUrl"])
    assert len(zipfile.ZipFile(io.BytesIO(packed.content)).namelist()) == 6
    async with sold.shop.database.connection() as tx:
        await tx.execute("UPDATE avatars SET deleted_at = darkroom_now()")
    for link in (*links, *thumbs, view["photosZipUrl"]):
        assert (await sold.client.get(link)).status_code == 404
    after = await sold.view()
    assert (after["photos"], after["photosZipUrl"]) == ([], None)
    path = f"/api/avatars/{sold.customer.avatar_id}/photos"
    assert (await sold.client.get(path, params=sold.whose())).status_code == 404


async def test_a_late_photo_is_kept_and_shown_nowhere(shop: Shop) -> None:
    """bugbook C14, bugbook D17: its money went back; gifts of a whole refund stay, this one never was."""
    customer, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await poll_due_tasks(shop.darkroom)
    async with shop.database.connection() as tx:
        late, *_ = await claim_storing(tx, limit=20, lease_seconds=10, dying_seconds=0)
        await tx.execute(
            "UPDATE generation_jobs SET deadline_at = darkroom_now(), due_at = darkroom_now()"
        )
    await shop.round()
    key = f"generated/{late.avatar_id}/{late.style_id}/{late.job_id}/late-0.jpg"
    data = picture_of(99)
    await shop.darkroom.store.put_once(key, data, "image/jpeg")
    async with shop.database.connection() as tx:
        picture = StoredPicture(
            key, hashlib.sha256(data).hexdigest(), len(data), "image/jpeg", 48, 64
        )
        assert await keep_late_photo(tx, late, picture)
    async with client_of(application_of(shop)) as client:
        sold = Sold(shop, customer, job, client)
        view = await sold.view()
        assert (view["status"], view["photos"], view["photosZipUrl"]) == ("failed", [], None)
        assert await sold.photos() == []
        link = shop.darkroom.links.archive(user_id=customer.user_id, job_id=job.id)
        assert (await client.get(link)).json()["error"]["code"] == "PHOTO_NOT_FOUND"
    assert await shop.value("SELECT count(*) FROM late_photos") == 1


@pytest.mark.parametrize(
    ("size", "mode", "form"),
    [
        ((1200, 1600), "RGB", "JPEG"),
        ((1600, 900), "RGB", "PNG"),
        ((900, 900), "RGBA", "PNG"),
        ((600, 800), "P", "PNG"),
        ((600, 800), "CMYK", "JPEG"),
        ((600, 800), "L", "JPEG"),
        ((600, 800), "RGB", "WEBP"),
        ((40, 50), "RGB", "JPEG"),
        ((1, 5000), "RGB", "PNG"),
        ((1500, 2000), "I;16", "PNG"),
    ],
)
async def test_thumbnails_of_every_picture(size: tuple[int, int], mode: str, form: str) -> None:
    out = io.BytesIO()
    Image.new(mode, size).save(out, form)
    small = await make_thumbnail(out.getvalue())
    again = await make_thumbnail(out.getvalue())
    assert small == again, "the same bytes each time"
    developed = await develop(out.getvalue())
    assert developed.facts == await read_picture(out.getvalue())
    assert developed.thumbnail is not None
    assert (developed.thumbnail.width, developed.thumbnail.height) == (small.width, small.height)
    with Image.open(io.BytesIO(small.data)) as picture:
        picture.load()
        assert picture.size == (small.width, small.height)
        assert max(picture.size) == min(LONG_SIDE, max(size)), "never enlarged"
        assert picture.format == "WEBP"


async def test_a_thumbnail_stands_as_browsers_paint_the_photo() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 600)).save(out, "JPEG", exif=exif)
    small = await make_thumbnail(out.getvalue())
    assert (small.width, small.height) == (360, 480)
    with Image.open(io.BytesIO(small.data)) as picture:
        assert not picture.getexif()


async def test_thumbnails_are_stored_beside_their_photos(sold: Sold) -> None:
    rows = await sold.shop.rows("SELECT * FROM generated_photos")
    assert len(rows) == 7
    for row in rows:
        small = await sold.shop.darkroom.store.get(row["thumbnail_key"])
        assert len(small) == row["thumbnail_bytes"]
        assert hashlib.sha256(small).hexdigest() == row["thumbnail_sha256"]
        place = row["object_key"].removeprefix("generated/").rpartition("-")[0]
        assert row["thumbnail_key"] == f"thumbnails/{place}-{row['thumbnail_sha256'][:16]}.webp"
        full = await sold.shop.darkroom.store.get(row["object_key"])
        developed = (await develop(full)).thumbnail
        assert developed is not None
        assert developed.data == small


def _broken(_picture: Image.Image) -> Thumbnail:
    raise RuntimeError("no thumbnail today")


@dataclass
class _Store:
    """A store that counts whole objects given out, and refuses what it is told to."""

    inner: ObjectStore
    refuse: str = "nothing/"
    hang: str = "nothing/"
    silent: bool = False
    held: int = 0
    most_held: int = 0
    gotten: list[str] = field(default_factory=list[str])

    async def put_once(self, key: str, data: bytes, content_type: str) -> None:
        if key.startswith(self.refuse):
            raise StorageUnavailableError("put")
        if key.startswith(self.hang):
            await asyncio.Event().wait()
        await self.inner.put_once(key, data, content_type)

    async def list_keys(self, folder: str) -> list[str]:
        return await self.inner.list_keys(folder)

    async def get(self, key: str) -> bytes:
        self.gotten.append(key)
        data = _Held(await self.inner.get(key))
        data.store = self
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        return data

    async def read(
        self, key: str, *, first: int = 0, beyond: int | None = None
    ) -> AsyncGenerator[bytes]:
        if self.silent:
            raise StorageUnavailableError("read")
        return await self.inner.read(key, first=first, beyond=beyond)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)


class _Held(bytes):
    store: _Store

    def __del__(self) -> None:
        self.store.held -= 1


@pytest.mark.parametrize("how", ["cannot be made", "is stored for ever", "cannot be stored"])
async def test_a_photo_never_fails_by_its_thumbnail(
    shop: Shop, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt, one photo, no retry; the thumbnail's link shows the photo itself."""
    monkeypatch.setattr("darkroom.flow.collect_photos.THUMBNAIL_SECONDS", 0.02)
    store = _Store(shop.darkroom.store)
    match how:
        case "cannot be made":
            monkeypatch.setattr("darkroom.adapters.thumbnails._small", _broken)
        case "is stored for ever":
            store.hang = "thumbnails/"
        case _:
            store.refuse = "thumbnails/"
    shop.darkroom = replace(shop.darkroom, store=store)
    customer, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await poll_due_tasks(shop.darkroom)
    await collect_due_photos(shop.darkroom)
    assert set(await shop.statuses()) == {"completed"}
    assert await shop.value("SELECT count(thumbnail_key) FROM generated_photos") == 0
    async with client_of(application_of(shop)) as client:
        photo = (await Sold(shop, customer, job, client).view())["photos"][0]
        small, full = await client.get(photo["thumbnailUrl"]), await client.get(photo["imageUrl"])
    assert small.content == full.content
    assert small.headers["content-type"] == "image/jpeg"


async def test_a_set_as_one_file(sold: Sold) -> None:
    view = await sold.view()
    answer = await sold.client.get(view["photosZipUrl"])
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-length"] == str(len(answer.content))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == [
            f"darkroom-{sold.job.id}-{place:02}.jpg" for place in range(1, 8)
        ]
        for entry, photo in zip(entries, view["photos"], strict=True):
            assert hashlib.sha256(archive.read(entry)).hexdigest() == photo["sha256"]
            made = datetime.fromisoformat(photo["createdAt"]).astimezone(UTC)
            assert entry.date_time[:5] == made.timetuple()[:5]
            # Lengths stand before the data: unpackers that read from the front need them there.
            assert entry.flag_bits & 0x08 == 0
    own = await sold.client.get(f"/api/jobs/{sold.job.id}/photos.zip", params=sold.whose())
    assert own.content == answer.content, "twice the same file"
    stranger = await sold.shop.customer()
    path = f"/api/jobs/{sold.job.id}/photos.zip"
    assert (await sold.client.get(path, params=sold.whose(stranger))).status_code == 404
    assert (await sold.client.get(path)).status_code == 401


async def test_one_photo_in_memory_at_a_time(sold: Sold) -> None:
    store = _Store(sold.shop.darkroom.store)
    darkroom = replace(sold.shop.darkroom, store=store)
    archive = await zip_photos(darkroom, user_id=sold.customer.user_id, job_id=sold.job.id)
    assert store.gotten == [], "nothing is fetched before somebody reads"
    size = 0
    async for piece in archive.read():
        size += len(piece)
        assert store.held == 0, "what is being sent is the file's own copy"
    assert size == archive.size_bytes
    assert (store.most_held, len(store.gotten)) == (1, 7)


def _noise() -> bytes:
    """A picture of more than 5 MB."""
    out = io.BytesIO()
    Image.effect_noise((2400, 2400), 100).save(out, "PNG", compress_level=1)
    return out.getvalue()


async def test_a_client_that_leaves_stops_the_file(shop: Shop) -> None:
    """Over a real connection: nothing is fetched for nobody."""
    customer, job = await shop.sold()
    big = _noise()

    async def noise(request: GenerationRequest) -> bytes:
        # More than any buffer between us and the client holds.
        return big + request.prompt_index.to_bytes(4, "big")

    shop.provider.on_fetch = noise
    await shop.drain()
    store = _Store(shop.darkroom.store)
    shop.darkroom = replace(shop.darkroom, store=store)
    link = shop.darkroom.links.archive(user_id=customer.user_id, job_id=job.id)
    async with loopback(application_of(shop)) as address, httpx.AsyncClient() as client:
        async with client.stream("GET", address + link) as answer:
            async for _piece in answer.aiter_raw():
                break
        for _ in range(40):
            await asyncio.sleep(0.01)
        fetched = len(store.gotten)
        assert fetched < 7
        await asyncio.sleep(0.05)
        assert (len(store.gotten), store.held) == (fetched, 0)


async def test_a_damaged_object_breaks_the_file_instead_of_missing_from_it(sold: Sold) -> None:
    async with sold.shop.database.connection() as tx:
        await tx.execute("UPDATE generated_photos SET sha256 = repeat('0', 64) WHERE id = 3")
    view = await sold.view()
    # A row that was changed by hand is what the audit finds as well (`key_names_its_content`).
    sold.shop.audit_at_end = False
    archive = await zip_photos(
        sold.shop.darkroom, user_id=sold.customer.user_id, job_id=sold.job.id
    )
    with pytest.raises(DamagedPhotoError):
        _ = [piece async for piece in archive.read()]
    async with loopback(application_of(sold.shop)) as address, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(address + view["photosZipUrl"])


async def test_a_set_with_a_photo_that_is_known_to_be_lost(sold: Sold) -> None:
    """Announced with all its bytes, such a file broke off at the lost photo each time."""
    lost = [(2, "missing"), (5, "unreadable")]
    async with sold.shop.database.connection() as tx:
        for row, finding in lost:
            await tx.execute(
                "UPDATE generated_photos SET bytes_finding = %s, bytes_checked_at = now() WHERE id = %s",
                [finding, row],
            )
    keys = await sold.shop.rows("SELECT object_key FROM generated_photos WHERE id IN (2, 5)")
    for (key,) in keys:
        await sold.shop.darkroom.store.delete(key)
    link = (await sold.view())["photosZipUrl"]
    answer = await sold.client.get(link)
    assert answer.headers["content-length"] == str(len(answer.content))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        note = archive.read(names[-1]).decode()
    assert len(names) == 7 - len(lost) + 1
    assert names[-1] == f"darkroom-{sold.job.id}-lost.txt"
    named = [line for line in note.splitlines() if line.startswith("darkroom-")]
    assert {*names[:-1], *named} == {
        f"darkroom-{sold.job.id}-{place:02}.jpg" for place in range(1, 8)
    }
    assert (await sold.client.get(link)).content == answer.content
    async with sold.shop.database.connection() as tx:
        await tx.execute(
            "UPDATE generated_photos SET bytes_finding = 'missing', bytes_checked_at = now()"
        )
    assert (await sold.client.get(link)).status_code == 404


async def test_a_lost_object_is_not_found_and_a_silent_store_is_503(sold: Sold) -> None:
    link = await sold.link()
    keys = await sold.shop.rows("SELECT object_key FROM generated_photos")

    silent: Darkroom = replace(
        sold.shop.darkroom, store=_Store(sold.shop.darkroom.store, silent=True)
    )
    whole, sold.shop.darkroom = sold.shop.darkroom, silent
    async with client_of(application_of(sold.shop)) as client:
        answer = await client.get(link)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "UNAVAILABLE")
    assert "retry-after" in answer.headers
    sold.shop.darkroom = whole
    for row in keys:
        await whole.store.delete(row["object_key"])
    assert (await sold.client.get(link)).json()["error"]["code"] == "PHOTO_NOT_FOUND"


async def test_a_large_photo_comes_in_pieces_over_a_real_connection(shop: Shop) -> None:
    """bugbook F9, bugbook F11: no limit of 5 MB, no provider's host, no proxy in between."""
    big = _noise()

    async def noise(request: GenerationRequest) -> bytes:
        return big + request.prompt_index.to_bytes(4, "big")

    shop.provider.on_fetch = noise
    customer, job = await shop.sold()
    await shop.drain()
    links = shop.darkroom.links
    photo = (await shop.rows("SELECT id, sha256, size_bytes FROM generated_photos LIMIT 1"))[0]
    link = links.photo(user_id=customer.user_id, photo_id=photo["id"])
    del job
    assert photo["size_bytes"] > 5_000_000
    async with loopback(application_of(shop)) as address, httpx.AsyncClient() as client:
        answer = await client.get(address + link)
        assert hashlib.sha256(answer.content).hexdigest() == photo["sha256"]
        tail = await client.get(address + link, headers={"Range": "bytes=5000000-"})
        assert tail.content == answer.content[5_000_000:]
        head = await client.head(address + link)
        assert head.headers["content-length"] == str(photo["size_bytes"])
        small = await client.get(
            address + links.photo(user_id=customer.user_id, photo_id=photo["id"], variant="thumb")
        )
        assert len(small.content) < photo["size_bytes"] / 20
