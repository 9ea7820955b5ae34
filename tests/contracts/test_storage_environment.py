"""What stands in the environment for other programs changes nothing between us and a bucket."""

import base64
import os
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.storage import Storage, open_s3
from darkroom.adapters.storage_s3 import S3Place
from darkroom.twin.loopback import loopback

ELSEWHERE = "http://127.0.0.1:9"
STRAY = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "else",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLE",
    "AWS_REGION": "eu-north-1",
    "AWS_DEFAULT_REGION": "eu-north-1",
    "AWS_BUCKET": "another",
    "AWS_ENDPOINT": ELSEWHERE,
    "AWS_ENDPOINT_URL": ELSEWHERE,
    "AWS_ENDPOINT_URL_S3": ELSEWHERE,
    "AWS_PROXY_URL": ELSEWHERE,
    "AWS_SKIP_SIGNATURE": "true",
    "AWS_UNSIGNED_PAYLOAD": "true",
    "AWS_CHECKSUM_ALGORITHM": "SHA256",
    "AWS_S3_EXPRESS": "true",
    "AWS_REQUEST_PAYER": "true",
    "AWS_SERVER_SIDE_ENCRYPTION": "sse-c",
    "AWS_SSE_CUSTOMER_KEY_BASE64": base64.b64encode(bytes(32)).decode(),
    "AWS_SSE_KMS_KEY_ID": "a-key",
    "AWS_SSE_BUCKET_KEY_ENABLED": "true",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    "AWS_CONDITIONAL_PUT": "disabled",
    "AWS_COPY_IF_NOT_EXISTS": "multipart",
    "AWS_ALLOW_HTTP": "false",
    "AWS_TIMEOUT": "1ms",
    "AWS_DEFAULT_CONTENT_TYPE": "text/plain",
    "AWS_USER_AGENT": "somebody else",
}
"""Everything that obstore is known to take, set to what would be felt."""
SIGNED = ("authorization", "x-amz-date", "host")
"""Of the moment, and of the port."""


@pytest.fixture
def stray(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value)
    return STRAY


async def test_a_bucket_is_spoken_to_by_our_settings_alone(
    s3_place: S3Place, stray: Mapping[str, str]
) -> None:
    """Lambda sets AWS_SESSION_TOKEN: each call was a 403, and so was each link."""
    storage = open_s3(s3_place)
    await storage.prove()
    await storage.put_once("k", b"data", "image/jpeg")
    assert await storage.get("k") == b"data"
    assert await storage.list_keys("k") == []
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(storage.readable_link("k"))
        put = await http.put(storage.writable_link("uploads/1", seconds=60), content=b"selfie")
    assert (answer.content, put.status_code) == (b"data", 200)
    # It belongs to others, and is theirs again.
    assert {name: os.environ.get(name) for name in stray} == stray


async def test_requests_and_links_are_the_same_as_without_it(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []

    async def keep(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in SIGNED}
        names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
        seen.append({**headers, "signed": names, "path": request.url.path})
        await request.body()
        return Response(headers={"etag": '"x"'})

    async with loopback(Starlette(routes=[Route("/{path:path}", keep, methods=["PUT"])])) as url:
        place = replace(s3_place, endpoint=url)
        clean = open_s3(place)
        for name, value in STRAY.items():
            monkeypatch.setenv(name, value)
        for storage in (clean, open_s3(place)):
            await storage.put_once("k", b"data", "image/jpeg")
    assert seen[0] == seen[1]
    one, other = _links_of_one_second(clean, open_s3(place))
    assert one == other


@pytest.mark.parametrize(
    ("bucket", "start"),
    [
        ("photos", "https://photos.s3.eu-west-1.amazonaws.com/k?"),
        ("my.photos", "https://s3.eu-west-1.amazonaws.com/my.photos/k?"),
    ],
)
def test_amazons_own_address_follows_from_the_region(
    stray: Mapping[str, str], bucket: str, start: str
) -> None:
    del stray
    link = open_s3(S3Place(bucket, "", None, "eu-west-1", "key", "secret")).readable_link("k")
    assert link.startswith(start)
    assert set(dict(parse_qsl(urlsplit(link).query))) == {
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
    }


def _links_of_one_second(first: Storage, second: Storage) -> tuple[str, str]:
    """A link carries the second it was signed in: of two tries at most one meets its end."""
    one, other = first.readable_link("k"), second.readable_link("k")
    if _date(one) != _date(other):
        one, other = first.readable_link("k"), second.readable_link("k")
    return one, other


def _date(link: str) -> str:
    return dict(parse_qsl(urlsplit(link).query))["X-Amz-Date"]
