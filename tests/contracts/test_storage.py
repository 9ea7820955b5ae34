"""The object store's contract: on a folder, in memory, and on a real S3 server."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import obstore
import pytest

from darkroom.adapters.storage import (
    PIECE_BYTES,
    REQUEST_SECONDS,
    Storage,
    open_memory,
    open_s3,
    open_storage,
)
from darkroom.adapters.storage_s3 import MULTIPART_ABOVE_BYTES, S3Place, open_bucket
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.storage import (
    NoLinksError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectTooLargeError,
    StorageBrokenError,
    StorageUnavailableError,
)
from darkroom.twin.store_faults import (
    SeededStoreFaults,
    StoreFault,
    StoreProxy,
    StoreRequest,
    no_faults,
)

KINDS = ["folder", "memory", "s3"]
JPEG = "image/jpeg"


def open_kind(
    request: pytest.FixtureRequest, tmp_path: Path, *, request_seconds: float = REQUEST_SECONDS
) -> Storage:
    """The store of a fixture's kind. For fixtures: a server is started outside of a test's loop."""
    match request.param:
        case "folder":
            return open_storage(None, tmp_path / "o")
        case "memory":
            return open_memory()
        case _:
            # Asked for here, so that the others do not start a server.
            place = request.getfixturevalue("s3_place")
            return open_s3(place, request_seconds=request_seconds)


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_kind(request, tmp_path)


@pytest.fixture(params=KINDS)
def hasty(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """It gives a request up after 3 s."""
    return open_kind(request, tmp_path, request_seconds=3)


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - to repeat a run


def once(fault: StoreFault, method: str):
    """This fault at the first request of this method."""

    def decide(request: StoreRequest) -> StoreFault | None:
        return fault if (request.method, request.number) == (method, 1) else None

    return decide


async def test_what_was_put_is_there(storage: Storage) -> None:
    await storage.put_once("a/b/c.jpg", b"data", JPEG)
    assert await storage.get("a/b/c.jpg") == b"data"


async def test_the_same_bytes_again_are_success_and_others_a_conflict(storage: Storage) -> None:
    """bugbook C16: a retry stored the same photo again under a random key."""
    await asyncio.gather(*(storage.put_once("k", b"data", JPEG) for _ in range(10)))
    for other in (b"othr", b"other", b"o", b""):
        with pytest.raises(ObjectConflictError):
            await storage.put_once("k", other, JPEG)
    assert await storage.get("k") == b"data"


async def test_of_48_writers_of_one_key_one_wins_and_the_others_are_told(hasty: Storage) -> None:
    """SeaweedFS makes rivals for one key wait a second each: some give up, ask again, and are told then."""

    async def write(data: bytes) -> bool:
        while True:
            try:
                await hasty.put_once("k", data, JPEG)
            except ObjectConflictError:
                return False
            except StorageUnavailableError:
                continue
            return True

    writers = [f"writer {number:02}".encode() for number in range(48)]
    results = await asyncio.gather(*(write(data) for data in writers))
    won = [data for data, result in zip(writers, results, strict=True) if result]
    assert won == [await hasty.get("k")]


async def test_a_missing_object_is_missing_and_deleting_it_is_harmless(storage: Storage) -> None:
    with pytest.raises(ObjectMissingError):
        await storage.get("nothing")
    with pytest.raises(ObjectMissingError):
        await storage.describe("nothing")
    await storage.delete("nothing")
    await storage.put_once("k", b"data", JPEG)
    await storage.delete("k")
    with pytest.raises(ObjectMissingError):
        await storage.get("k")


async def test_an_object_larger_than_its_reader_expects_is_not_read(storage: Storage) -> None:
    await storage.put_once("k", b"12345", JPEG)
    with pytest.raises(ObjectTooLargeError):
        await storage.get("k", most_bytes=4)
    assert await storage.get("k", most_bytes=5) == b"12345"


async def test_an_object_is_described_without_its_bytes(storage: Storage) -> None:
    await storage.put_once("a/k", b"12345", JPEG)
    described = await storage.describe("a/k")
    assert (described.key, described.size_bytes) == ("a/k", 5)
    assert abs(datetime.now(UTC) - described.modified_at) < timedelta(seconds=60)
    # The same bytes again do not make it younger: what counts for the sweeper is when they first came.
    await storage.put_once("a/k", b"12345", JPEG)
    assert await storage.describe("a/k") == described


async def test_the_keys_of_one_folder_are_listed(storage: Storage) -> None:
    for key in ("people/1/a", "people/1/b/c", "people/12/a", "others/1/a"):
        await storage.put_once(key, b"data", JPEG)
    assert await storage.list_keys("people/1") == ["people/1/a", "people/1/b/c"]
    assert await storage.list_keys("people/2") == []


async def test_a_folder_is_walked_page_by_page_in_the_order_of_keys(storage: Storage) -> None:
    keys = [f"p/{number % 3}/{number:02}-{number % 5}" for number in range(25)]
    for key in (*keys, "p0/a", "o/a", "pp"):
        await storage.put_once(key, key.encode(), JPEG)
    for limit in (1, 7, 25, 26, 1000):
        walked: list[str] = []
        after = ""
        while page := await storage.list_page("p", after=after, limit=limit):
            assert len(page) <= limit
            assert [one.size_bytes for one in page] == [len(one.key) for one in page]
            walked += [one.key for one in page]
            after = page[-1].key
        assert walked == sorted(keys), limit
    # From a key that is gone, and from the end.
    await storage.delete(sorted(keys)[3])
    after_gone = await storage.list_page("p", after=sorted(keys)[3], limit=2)
    assert [one.key for one in after_gone] == sorted(keys)[4:6]
    assert await storage.list_page("nobody", limit=5) == []
    with pytest.raises(ValueError, match="1 to 1000"):
        await storage.list_page("p", limit=1001)


async def test_it_is_never_called_inside_a_transaction(storage: Storage) -> None:
    calls = (
        storage.put_once("k", b"data", JPEG),
        storage.get("k"),
        storage.describe("k"),
        storage.read("k"),
        storage.delete("k"),
        storage.list_keys("k"),
        storage.list_page("k", limit=1),
        storage.prove(),
    )
    with transaction_marked():
        for call in calls:
            with pytest.raises(TransactionOpenError):
                await call


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "o")
    (tmp_path / "o" / "blocked").write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageUnavailableError):
        await storage.put_once("blocked/k", b"data", JPEG)


async def test_a_part_is_read_piece_by_piece(storage: Storage) -> None:
    data = bytes(range(256)) * 4000
    await storage.put_once("k", data, JPEG)
    for first, beyond in (
        (0, None),
        (0, 1),
        (5, 700_000),
        (len(data) - 1, len(data)),
        (1000, None),
    ):
        pieces = [piece async for piece in await storage.read("k", first=first, beyond=beyond)]
        assert b"".join(pieces) == data[first:beyond], (first, beyond)
    left = await storage.read("k")
    assert (await anext(left))[:3] == data[:3]
    await left.aclose()
    with pytest.raises(ObjectMissingError):
        await storage.read("nothing")


async def test_a_slow_reader_of_a_folder_holds_one_piece(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "o")
    await storage.put_once("k", bytes(3 * PIECE_BYTES + 1), JPEG)
    sizes = [len(piece) async for piece in await storage.read("k")]
    assert sizes == [PIECE_BYTES] * 3 + [1]


async def test_a_customer_who_reads_slower_than_a_request_may_take_gets_everything(
    s3_place: S3Place,
) -> None:
    storage = open_s3(s3_place, request_seconds=0.3)
    data = noise(3, 24 * PIECE_BYTES)
    await open_s3(s3_place).put_once("k", data, JPEG)
    got = b""
    async for piece in await storage.read("k"):
        got += piece
        await asyncio.sleep(0.05)
    assert got == data


async def test_a_large_object_goes_in_parts_and_comes_back_byte_for_byte(
    storage: Storage,
) -> None:
    data = noise(1, MULTIPART_ABOVE_BYTES + 1_000_001)
    other = data[:-1] + bytes([data[-1] ^ 1])
    key = f"big/{hashlib.sha256(data).hexdigest()}"
    await asyncio.gather(*(storage.put_once(key, data, JPEG) for _ in range(3)))
    assert await storage.get(key) == data
    await storage.put_once(key, data, JPEG)
    with pytest.raises(ObjectConflictError):
        await storage.put_once(key, other, JPEG)
    assert hashlib.sha256(await storage.get(key)).digest() == hashlib.sha256(data).digest()


async def test_a_store_is_proven_and_nothing_is_left_of_it(storage: Storage) -> None:
    await storage.prove()
    assert await storage.list_keys("proofs") == []


async def test_a_folder_has_no_links(tmp_path: Path) -> None:
    for storage in (open_storage(None, tmp_path / "o"), open_memory()):
        with pytest.raises(NoLinksError, match="DARKROOM_STORAGE_URL"):
            storage.readable_link("k")
        with pytest.raises(NoLinksError, match="DARKROOM_STORAGE_URL"):
            storage.writable_link("k", seconds=60)


async def test_a_link_opens_one_object_for_reading_and_nothing_else(
    bucket: Storage, http: httpx.AsyncClient
) -> None:
    await bucket.put_once("refs/a b.jpg", b"selfie", JPEG)
    await bucket.put_once("refs/b.jpg", b"another", JPEG)
    link = bucket.readable_link("refs/a b.jpg")
    answer = await http.get(link)
    assert (answer.status_code, answer.content) == (200, b"selfie")
    assert answer.headers["content-type"] == JPEG
    parts = urlsplit(link)
    elsewhere = urlunsplit(parts._replace(path=parts.path.replace("a%20b", "b")))
    longer = link.replace("X-Amz-Expires=21600", "X-Amz-Expires=21601")
    assert longer != link
    assert elsewhere != link
    for wrong in (elsewhere, longer, link[:-1] + ("0" if link[-1] != "0" else "1")):
        assert (await http.get(wrong)).status_code == 403
    assert (await http.get(urlunsplit(parts._replace(query="")))).status_code == 403
    assert (await http.put(link, content=b"x")).status_code == 403


async def test_a_link_whose_time_is_over_opens_nothing(
    s3_place: S3Place, bucket: Storage, http: httpx.AsyncClient
) -> None:
    await bucket.put_once("k", b"selfie", JPEG)
    link = obstore.sign(open_bucket(s3_place), "GET", "k", timedelta(seconds=1))
    async with asyncio.timeout(10):
        while (answer := await http.get(link)).status_code == 200:
            await asyncio.sleep(0.05)
    assert answer.status_code == 403


async def test_a_link_for_writing_takes_one_object(
    bucket: Storage, http: httpx.AsyncClient
) -> None:
    link = bucket.writable_link("uploads/1", seconds=60)
    answer = await http.put(link, content=b"from a phone", headers={"Content-Type": JPEG})
    assert answer.status_code == 200
    assert await bucket.get("uploads/1", most_bytes=100) == b"from a phone"
    assert (await bucket.describe("uploads/1")).size_bytes == 12
    elsewhere = link.replace("uploads/1", "uploads/2")
    assert (await http.put(elsewhere, content=b"x")).status_code == 403
    for seconds in (0, 604_801):
        with pytest.raises(ValueError, match="7 days"):
            bucket.writable_link("k", seconds=seconds)


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"secret_access_key": "wrong-secret"}, "S3_SECRET_ACCESS_KEY is not the secret"),
        ({"access_key_id": "nobody"}, "S3_ACCESS_KEY_ID is not known"),
        ({"bucket": "no-such-bucket"}, "a bucket that is not there"),
        ({"endpoint": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
async def test_wrong_keys_and_places_are_told_in_one_line_and_take_nothing_for_missing(
    s3_place: S3Place, changed: dict[str, str], advice: str
) -> None:
    """A bucket that is not there has no photo that is lost, and no selfie that is erased."""
    storage = open_s3(replace(s3_place, **changed))
    calls = [storage.put_once("k", b"data", JPEG), storage.delete("k"), storage.get("k")]
    calls += [storage.list_page("k", limit=1), storage.read("k")]
    for call in calls:
        with pytest.raises(StorageUnavailableError) as refusal:
            await call
        assert "wrong-secret" not in str(refusal.value)
        assert "\n" not in str(refusal.value)
    with pytest.raises(StorageBrokenError, match=advice) as broken:
        await storage.prove()
    assert "\n" not in str(broken.value)
    assert s3_place.secret_access_key not in str(broken.value)


async def test_a_store_that_ignores_the_condition_is_found_out(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As s3rver does, and as an S3 that is older than 2024."""
    storage = open_s3(s3_place)
    careless = open_bucket(s3_place)

    async def put(key: str, data: bytes, _type: str, *, in_parts: bool) -> bool:
        del in_parts
        await careless.put_async(key, data)
        return True

    monkeypatch.setattr(storage, "_put", put)
    with pytest.raises(StorageBrokenError, match="If-None-Match"):
        await storage.prove()
    assert await storage.list_keys("proofs") == []


async def test_a_create_that_was_answered_503_after_it_was_done_is_success(
    behind: Storage, proxy: StoreProxy, bucket: Storage
) -> None:
    """The client tries again by itself and meets its own object (external-apis 6.2)."""
    proxy.faults = once(StoreFault.UNHEARD_503, "PUT")
    await behind.put_once("k", b"data", JPEG)
    assert proxy.struck == {"unheard_503": 1}
    assert proxy.seen["PUT"] == 2
    assert await bucket.get("k") == b"data"


async def test_a_create_whose_connection_was_cut_after_it_was_done_is_harmless_to_repeat(
    behind: Storage, proxy: StoreProxy, bucket: Storage
) -> None:
    proxy.faults = once(StoreFault.UNHEARD_CUT, "PUT")
    try:
        await behind.put_once("k", b"data", JPEG)
    except StorageUnavailableError:
        await behind.put_once("k", b"data", JPEG)
    assert proxy.struck == {"unheard_cut": 1}
    assert await bucket.get("k") == b"data"


async def test_a_store_that_wants_us_slower_is_asked_again_later(
    behind: Storage, proxy: StoreProxy
) -> None:
    proxy.faults = once(StoreFault.SLOW_DOWN, "PUT")
    try:
        await behind.put_once("k", b"data", JPEG)
    except StorageUnavailableError as error:
        assert "SlowDown" in str(error)
        await behind.put_once("k", b"data", JPEG)
    assert proxy.struck == {"slow_down": 1}
    assert await behind.get("k") == b"data"


async def test_a_body_that_breaks_off_is_never_taken_for_the_object(
    behind: Storage, proxy: StoreProxy, bucket: Storage
) -> None:
    data = noise(2, 400_000)
    await bucket.put_once("k", data, JPEG)

    def always(_request: StoreRequest) -> StoreFault:
        return StoreFault.SHORT_BODY

    proxy.faults = always
    with pytest.raises(StorageUnavailableError):
        await behind.get("k")
    with pytest.raises(StorageUnavailableError):
        async for _ in await behind.read("k"):
            pass
    proxy.faults = no_faults
    assert await behind.get("k") == data


async def test_a_store_that_takes_too_long_is_unavailable_and_the_put_may_be_repeated(
    s3_place: S3Place, proxy: StoreProxy
) -> None:
    storage = open_s3(replace(s3_place, endpoint=proxy.endpoint), request_seconds=0.3)
    proxy.faults = once(StoreFault.SLOW, "PUT")
    with pytest.raises(StorageUnavailableError):
        await storage.put_once("k", b"data", JPEG)
    proxy.go_on()
    await storage.put_once("k", b"data", JPEG)
    assert await storage.get("k") == b"data"


async def test_a_bad_day_of_a_store_loses_and_changes_nothing(
    behind: Storage, proxy: StoreProxy, bucket: Storage
) -> None:
    rates = dict.fromkeys(
        (StoreFault.UNHEARD_503, StoreFault.UNHEARD_CUT, StoreFault.SLOW_DOWN), 0.1
    )
    proxy.faults = SeededStoreFaults(7, {**rates, StoreFault.SHORT_BODY: 0.0})
    photos = {f"p/{number:02}": noise(number, 5000) for number in range(25)}

    async def keep(key: str, data: bytes) -> None:
        for _ in range(20):
            try:
                await behind.put_once(key, data, JPEG)
            except StorageUnavailableError:
                continue
            return
        raise AssertionError("never kept")

    await asyncio.gather(*(keep(key, data) for key, data in photos.items()))
    assert len(proxy.struck) == 3
    assert {key: await bucket.get(key) for key in await bucket.list_keys("p")} == photos
