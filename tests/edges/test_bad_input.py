"""Whatever comes in, the answer is our envelope with a code, never a 500, and nothing is lost or made."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.twin.loopback import loopback
from tests.contracts.test_init_data import TOKEN
from tests.edges.serving import application_of, client_of
from tests.shop import Shop

DEEP = b'{"telegramUserId": 123, "avatarId": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
POSTS = ("/api/generate", "/api/payments", "/api/avatars")


def _code(answer: httpx.Response) -> str:
    content: dict[str, Any] = answer.json()
    assert content["success"] is False
    assert content["error"]["code"] == content["error"]["details"]["code"]
    assert "Traceback" not in answer.text
    return str(content["error"]["code"])


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (DEEP, "application/json"),
        (b'{"telegramUserId": 123}', "text/plain"),
        (b'{"telegramUserId": 123}', "application/xml"),
        (b"telegramUserId=123&avatarId=1", "application/x-www-form-urlencoded"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"--x", "multipart/form-data"),
        (b'{"telegramUserId": 123}', "application/json; charset=utf-16"),
        (b'{"telegramUserId": 1e400}', "application/json"),
        (b'{"telegramUserId": "' + b"9" * 5000 + b'"}', "application/json"),
        (b"\xef\xbb\xbf{}", "application/json"),
        (b'{"telegramUserId": 123, "tierId": "\\udfff", "name": "\\u0000"}', "application/json"),
    ],
)
async def test_odd_bodies(shop: Shop, path: str, body: bytes, content_type: str) -> None:
    await shop.customer(123)
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            f"{path}?telegramUserId=123", content=body, headers={"Content-Type": content_type}
        )
    assert 400 <= answer.status_code < 500, answer.text
    _code(answer)
    assert await shop.value("SELECT count(*) FROM payments") == 0


@pytest.mark.parametrize("path", [*POSTS, "/api/jobs/process", "/api/webhooks/payments/bank"])
async def test_a_client_that_leaves_in_the_middle_is_no_error_of_ours(
    shop: Shop, path: str
) -> None:
    """Each was logged as an unhandled error, in the hundreds when a network failed."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:  # noqa: ANN401 - ASGI's
        sent.append(dict(message))

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": [*headers, (b"content-length", b"100")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80),
    }  # fmt: skip
    await application_of(shop)(scope, receive, send)
    assert all(message.get("status", 400) < 500 for message in sent)
    assert await shop.value("SELECT count(*) FROM payments") == 0


@pytest.mark.parametrize(
    "query",
    [
        "before=x",
        "before=0",
        "before=9223372036854775808",
        "before=1e3",
        "limit=0",
        "limit=101",
        "limit=x",
        "limit=1&limit=x",
        "before=%00",
        "before=%ff",
    ],
)
async def test_odd_queries(shop: Shop, query: str) -> None:
    customer = await shop.customer(123)
    path = f"/api/avatars/{customer.avatar_id}/photos?telegramUserId=123&{query}"
    async with client_of(application_of(shop)) as client:
        answer = await client.get(path)
    assert answer.status_code == 400, answer.text
    assert _code(answer) == "INVALID_REQUEST"


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs/%00",
        "/api/jobs/9223372036854775808",
        "/api/jobs/-1",
        "/api/jobs/1.0",
        "/api/jobs/%ff%fe",
        "/api/jobs/" + "1" * 5000,
        "/api/payments/%F0%9F%98%80",
        "/api/photos/x/image",
    ],
)
async def test_odd_paths(shop: Shop, path: str) -> None:
    await shop.customer(123)
    async with client_of(application_of(shop)) as client:
        answer = await client.get(f"{path}?telegramUserId=123")
    assert answer.status_code in (400, 404), answer.text
    _code(answer)


@pytest.mark.parametrize("key", ["", "k" * 256, "k" * 5000])
async def test_odd_idempotency_keys(shop: Shop, key: str) -> None:
    await shop.customer(123)
    body = {"telegramUserId": 123, "tierId": "starter"}
    async with client_of(application_of(shop)) as client:
        answer = await client.post("/api/payments", json=body, headers={"Idempotency-Key": key})
    assert (answer.status_code, _code(answer)) == (400, "INVALID_KEY")
    assert await shop.value("SELECT count(*) FROM payments") == 0


async def test_ten_thousand_headers(shop: Shop) -> None:
    async with loopback(application_of(shop)) as address:
        host, port = address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /api/jobs/1?telegramUserId=1 HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"".join(b"x-%d: 1\r\n" % number for number in range(10_000)) + b"\r\n")
        await writer.drain()
        answer = await reader.read(4096)
        writer.close()
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
            many = await client.get("/healthz", headers={f"x-{n}": "1" for n in range(150)})
            large = await client.get("/healthz", headers={"x": "a" * 40_000})
            after = await client.get("/healthz")
    assert answer.split(b" ")[1] in (b"400", b"431")
    assert (many.status_code, _code(many)) == (431, "HEADERS_TOO_LARGE")
    assert large.status_code in (400, 431)
    assert after.status_code == 200


async def test_a_body_too_large_is_413_for_a_signed_in_customer_too(shop: Shop) -> None:
    """Not only where the identity reads the body first."""
    check = TelegramInitData(TOKEN)
    app = application_of(shop, demo=False, identity_check=check)
    async with client_of(app) as client:
        unsigned = await client.post("/api/generate", content=b"x" * 2_000_000)
    assert unsigned.status_code in (401, 413)
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            "/api/payments?telegramUserId=1",
            content=json.dumps({"tierId": "x" * 2_000_000}),
            headers={"Content-Type": "application/json"},
        )
    assert (answer.status_code, _code(answer)) == (413, "TOO_LARGE")


async def test_two_that_were_500s_for_anybody(shop: Shop) -> None:
    """NUL in a provider's name reached SQL; a broken Origin broke the parser."""
    token = "00000000-0000-0000-0000-000000000000"
    async with client_of(application_of(shop)) as client:
        nul = await client.post(
            f"/api/webhooks/generation/%00/{token}", json={"data": {"taskId": "x"}}
        )
        for origin in ("http://[", "http://[::1", "\\", "http://a:b:c"):
            broken = await client.post(
                "/api/generate",
                json={},
                headers={"Cookie": "darkroom_session=x", "Origin": origin},
            )
            assert broken.status_code == 401
            _code(broken)
    assert (nul.status_code, _code(nul)) == (404, "PROVIDER_NOT_FOUND")


async def test_unknown_methods_and_paths(shop: Shop) -> None:
    async with client_of(application_of(shop)) as client:
        for method, path in (
            ("PUT", "/api/generate"),
            ("DELETE", "/api/payments/1"),
            ("PATCH", "/healthz"),
            ("GET", "/api/../etc/passwd"),
            ("GET", "/api/cron"),
            ("BREW", "/api/generate"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code in (404, 405), (method, path)
            _code(answer)
