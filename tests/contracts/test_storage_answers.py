"""What is not the store's own answer is believed of no object: a proxy's pages, and lists of nothing."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.storage import Storage, open_memory, open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.ports.storage import (
    ObjectMissingError,
    StorageBrokenError,
    StorageUnavailableError,
)
from darkroom.twin.loopback import loopback
from darkroom.twin.store_faults import StoreFault, StoreProxy, StoreRequest, no_faults

JPEG = "image/jpeg"


def always(fault: StoreFault) -> Callable[[StoreRequest], StoreFault]:
    return lambda _request: fault


def listing(keys: Sequence[str]) -> Response:
    """As S3 lists, whatever the keys."""
    when = datetime(2026, 11, 1, tzinfo=UTC).isoformat()
    objects = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{when}</LastModified><ETag>x</ETag><Size>3</Size></Contents>"
        for key in keys
    )
    text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"
    return Response(text, media_type="application/xml")


class OddStore:
    """A store that lists whatever it is told to."""

    def __init__(self) -> None:
        self.keys: Sequence[str] = ()
        self.asked = 0

    async def answer(self, request: Request) -> Response:
        """Keys, or "no such key" for any object."""
        self.asked += 1
        if "list-type" in request.query_params:
            after = request.query_params.get("start-after", "")
            return listing([key for key in self.keys if key > after])
        return Response("<Error><Code>NoSuchKey</Code></Error>", 404)


@pytest.fixture
def odd() -> OddStore:
    return OddStore()


@pytest.fixture
async def strange(odd: OddStore) -> AsyncGenerator[Storage]:
    async with loopback(Starlette(routes=[Route("/{path:path}", odd.answer)])) as url:
        yield open_s3(S3Place("photos", "", url, "auto", "key", "secret"))


@pytest.mark.parametrize("page", [StoreFault.PAGE_404, StoreFault.PAGE_200])
async def test_a_page_of_html_says_nothing_of_an_object(
    behind: Storage, bucket: Storage, proxy: StoreProxy, page: StoreFault
) -> None:
    """A proxy says so while the store restarts: selfies counted as erased that were all there."""
    await bucket.put_once("refs/1/k", b"selfie", JPEG)
    proxy.faults = always(page)
    calls = [behind.list_keys("refs/1"), behind.list_page("refs", limit=5)]
    if page is StoreFault.PAGE_404:
        calls += [behind.get("refs/1/k"), behind.describe("refs/1/k")]
        calls += [behind.read("refs/1/k"), behind.delete("refs/1/k")]
    for call in calls:
        with pytest.raises(StorageUnavailableError):
            await call
    with pytest.raises(StorageBrokenError) as broken:
        await behind.prove()
    assert "\n" not in str(broken.value)
    proxy.faults = no_faults
    assert await behind.get("refs/1/k") == b"selfie"
    assert await behind.list_keys("refs/1") == ["refs/1/k"]


async def test_a_page_instead_of_the_rest_of_a_list_is_not_its_end(
    behind: Storage, bucket: Storage, proxy: StoreProxy
) -> None:
    await bucket.put_once("refs/1/k", b"selfie", JPEG)

    def second(request: StoreRequest) -> StoreFault | None:
        return StoreFault.PAGE_200 if request.number > 1 else None

    proxy.faults = second
    with pytest.raises(StorageUnavailableError):
        await behind.list_keys("refs/1")


async def test_nothing_in_a_folder_is_still_nothing(behind: Storage, proxy: StoreProxy) -> None:
    assert await behind.list_page("refs", limit=5) == []
    assert proxy.seen == {"GET": 2}
    with pytest.raises(ObjectMissingError):
        await behind.describe("refs/1/k")


async def test_what_only_head_does_not_find_is_there(
    behind: Storage, bucket: Storage, proxy: StoreProxy
) -> None:
    await bucket.put_once("k", b"12345", JPEG)

    def head(request: StoreRequest) -> StoreFault | None:
        return StoreFault.PAGE_404 if request.method == "HEAD" else None

    proxy.faults = head
    assert await behind.describe("k") == await bucket.describe("k")


async def test_a_refusal_of_one_key_is_not_its_absence(
    behind: Storage, bucket: Storage, proxy: StoreProxy
) -> None:
    """As a policy of the bucket says of some of its folders."""
    await bucket.put_once("refs/1/k", b"selfie", JPEG)
    await bucket.put_once("other/k", b"photo", JPEG)

    def refuse(request: StoreRequest) -> StoreFault | None:
        return StoreFault.FORBIDDEN if "refs/1/k" in request.path else None

    proxy.faults = refuse
    for call in (behind.get("refs/1/k"), behind.describe("refs/1/k"), behind.delete("refs/1/k")):
        with pytest.raises(StorageUnavailableError):
            await call
    assert await behind.get("other/k") == b"photo"
    assert await bucket.get("refs/1/k") == b"selfie"


async def test_the_stand_in_refuses_what_s3_and_r2_refuse(
    s3_place: S3Place, proxy: StoreProxy
) -> None:
    """SeaweedFS keeps a body that is not the one that was signed (external-apis 6.3), and any header."""
    storage = open_s3(S3Place(s3_place.bucket, "", proxy.endpoint, "auto", "key", "secret"))
    link = storage.writable_link("k", seconds=60)
    async with httpx.AsyncClient(trust_env=False) as http:
        body = await http.put(link, content=b"b", headers={"x-amz-content-sha256": "0" * 64})
        header = await http.put(link, content=b"b", headers={"x-amz-acl": "public-read"})
    assert (body.status_code, header.status_code) == (400, 501)
    assert proxy.refused == {"XAmzContentSHA256Mismatch": 1, "NotImplemented": 1}


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("refs/7//x.jpg", "'refs/7//x.jpg'"),
        ("refs/7/./x", "'refs/7/./x'"),
        ("refs/7/a&#9;b", r"'refs/7/a\\tb'"),
        (f"refs/{300 * 'x'}//a", "xxx'$"),
    ],
)
async def test_a_key_that_cannot_be_named_is_told(
    odd: OddStore, strange: Storage, key: str, shown: str
) -> None:
    """Somebody else's object stopped the sweep for ever, and the log did not say which."""
    odd.keys = [key, "refs/7/z.jpg"]
    with pytest.raises(StorageUnavailableError, match=f"InvalidPathError: .*{shown}") as refusal:
        await strange.list_page("refs", limit=5)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        (["g/", "g/1/a"], ["g/1/a"]),
        (["g/1", "g/1-x", "g/1/"], ["g/1", "g/1-x"]),
        (["g/1/pro-x/0", "g/1/pro/", "g/1/pro/1"], ["g/1/pro-x/0", "g/1/pro/1"]),
        (["g/"], []),
    ],
)
async def test_folders_made_at_a_console_are_passed_over(
    odd: OddStore, strange: Storage, keys: list[str], shown: list[str]
) -> None:
    """Objects whose names end with a slash; without it they seemed to be out of order, and the walk stopped."""
    odd.keys = keys
    assert [one.key for one in await strange.list_page("g", limit=9)] == shown
    assert await strange.list_keys("g") == shown


async def test_a_store_that_lists_in_another_order_is_found_out(
    odd: OddStore, strange: Storage
) -> None:
    odd.keys = ["g/2", "g/1"]
    with pytest.raises(StorageUnavailableError, match="order"):
        await strange.list_page("g", limit=9)
    with pytest.raises(StorageUnavailableError, match="order"):
        await asyncio.wait_for(strange.list_keys("g"), timeout=10)


async def test_a_store_of_this_process_needs_no_proof_of_nothing() -> None:
    assert await open_memory().list_page("g", limit=9) == []
