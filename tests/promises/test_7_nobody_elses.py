"""Promise 7: identity is signed, an id is not one; what nobody signed changes nothing and is told nothing."""

import logging
from collections.abc import Generator, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import pytest
import structlog
import structlog.testing
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from psycopg.sql import SQL, Identifier

from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.edges import site
from darkroom.flow.share_photos import share
from darkroom.flow.sign_in import sign_in
from darkroom.ports.identity import Person
from tests.contracts.test_init_data import NOW, TOKEN, signed
from tests.edges.serving import application_of, client_of
from tests.shop import Customer, Shop

OPEN_DOORS: Final = {
    "GET /api/openapi.json",
    "HEAD /api/openapi.json",
    # What is promised to whoever may buy.
    "GET /api/policy",
    # What is sold, and for how much.
    "GET /api/catalog",
    "GET /healthz",
    "GET /metrics",
    # Ends the session that it is shown, if it is one.
    "DELETE /api/session",
}
"""What anybody may open. Every other door asks who it is."""
BY_TOKEN: Final = "POST /api/webhooks/generation/{provider}/{token}"
"""Whose it is stands in the address: a token that we never gave out is not found."""
OPEN_PAGES: Final = {"GET /", "GET /terms", "GET /privacy", "GET /sign-in", "GET /left"}
"""Pages that are the same for everybody, or ask who it is."""
PAGES: Final = {
    f"{method} {getattr(route, 'path', '')}"
    for room in site.PAGES
    for route in room.router.routes
    for method in getattr(route, "methods", ())
}
PAGES_BY_TOKEN: Final = {
    "GET /assets/{name}": 404,
    "GET /s/{token}": 404,
    "GET /s/{token}/{photo_id}": 404,
    "GET /sign-in/{token}": 410,
    # A browser's language: a cookie, and no row.
    "GET /language/{locale}": 303,
}
ANYBODY: Final[tuple[dict[str, str], ...]] = (
    {},
    {"neonUserId": "1"},
    {"userId": "1"},
    {"telegramUserId": "1001"},
)
"""Ids in the query, by every name they had."""
FAKES: Final[tuple[dict[str, str], ...]] = (
    {},
    {"Cookie": "darkroom_session=x"},
    {"Cookie": "admin_session=x; partner_session=x; session=x"},
    {"Authorization": "Bearer 1001"},
    {"Authorization": "tma user=%7B%22id%22%3A1001%7D&auth_date=1&hash=x"},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
    {"X-Telegram-User-Id": "1001", "X-User-Id": "1"},
)


def _production(shop: Shop) -> FastAPI:
    check = TelegramInitData(TOKEN, clock=lambda: datetime.fromtimestamp(NOW, UTC))
    receiver = QStashReceiver(current_key="sig_one_key_of_the_queue", next_key="sig_another_one")
    return application_of(shop, demo=False, identity_check=check, receiver=receiver)


def _doors(app: FastAPI) -> set[str]:
    return {
        f"{method} {route.path}"
        for route in iter_route_contexts(app.routes)
        for method in route.methods or set[str]()
    }


async def _everything(shop: Shop) -> dict[str, str]:
    """Every table, by a hash of all its rows."""
    found: dict[str, str] = {}
    tables = await shop.rows(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    async with shop.database.connection() as tx:
        for row in tables:
            query = SQL("SELECT md5(string_agg(x::TEXT, '|' ORDER BY x::TEXT)) FROM {} x")
            cursor = await tx.execute(query.format(Identifier(row["relname"])))
            found[row["relname"]] = str(await cursor.fetchone())
    return found


async def _addresses(shop: Shop, customer: Customer, job_id: int) -> dict[str, object]:
    """What stands in the addresses: real things of a real customer, which a stranger may have guessed."""
    made = await share(
        shop.darkroom,
        user_id=customer.user_id,
        job_id=job_id,
        photo_id=None,
        days=1,
        request_id=uuid4(),
    )
    return {
        "job_id": job_id,
        "avatar_id": customer.avatar_id,
        "payment_id": await shop.value("SELECT min(id) FROM payments"),
        "photo_id": await shop.value("SELECT min(id) FROM generated_photos"),
        "share_id": made.id,
        "reference_id": await shop.value("SELECT min(id) FROM reference_photos"),
        "provider": "bank",
        "selfie_id": await shop.value("SELECT min(id) FROM reference_photos"),
        "name": "app.css",
        "locale": "en",
        "token": UUID(int=0),
    }


def _judge_page(door: str, answers: list[httpx.Response]) -> None:
    """A form that names no page of ours is refused; a page sends strangers to the sign-in."""
    statuses = {answer.status_code for answer in answers}
    door = door.replace("HEAD ", "GET ")
    if door.startswith("POST"):
        assert statuses == {401}, door
    elif door in OPEN_PAGES:
        assert statuses == {200}, door
    elif door in PAGES_BY_TOKEN:
        assert statuses == {PAGES_BY_TOKEN[door]}, door
    else:
        assert statuses == {303}, door
        targets = {answer.headers["Location"].partition("?")[0] for answer in answers}
        assert targets == {"/sign-in"}, door


async def test_no_door_opens_to_nobody(shop: Shop) -> None:
    """bugbook D15, bugbook G2, bugbook G6, bugbook G10, bugbook G12, bugbook G15, bugbook G23.

    Every address there is, by every fake there was, with real ids of somebody else: 401, and not one row
    of any table is another. Whoever builds a door finds it here.
    """
    customer, job = await shop.sold()
    await shop.drain()
    app = _production(shop)
    names = await _addresses(shop, customer, job.id)
    before = await _everything(shop)
    opened: set[str] = set()
    async with client_of(app) as client:
        for door in sorted(_doors(app)):
            method, path = door.split(" ")
            provider = "scripted" if door == BY_TOKEN else "bank"
            address = path.format_map({**names, "provider": provider})
            answers = [
                await client.request(
                    method, address, params=query, headers=fake, json={"userId": 1, **query}
                )
                for fake in FAKES
                for query in ANYBODY
            ]
            statuses = {answer.status_code for answer in answers}
            if door in PAGES:
                _judge_page(door, answers)
                continue
            if door in OPEN_DOORS:
                assert statuses <= {200, 204}, door
                opened.add(door)
            elif door == BY_TOKEN:
                assert statuses == {404}, door
            else:
                assert statuses == {401}, door
            assert not any(
                set(answer.headers) & {"set-cookie"} for answer in answers if door not in OPEN_DOORS
            ), door
    assert opened == OPEN_DOORS
    assert await _everything(shop) == before


@pytest.mark.parametrize(
    "door",
    [
        "POST /api/jobs/failure",
        "POST /api/jobs/{job_id}/reset",
        "POST /api/payment/cancel",
        "POST /api/payments/{payment_id}/cancel",
        "DELETE /api/payments/{payment_id}",
        "PATCH /api/jobs/{job_id}",
        "GET /api/auth/test-login",
        "POST /api/auth/test-login",
        "GET /api/test",
        "GET /api/ping",
        "GET /api/edge-db-test",
        "GET /api/referral/test-stats",
        "POST /api/test-kie",
    ],
)
async def test_doors_of_the_older_system_are_walled_up(shop: Shop, door: str) -> None:
    """bugbook B11, bugbook B12, bugbook D15, bugbook G15, bugbook G23: not even for the set's own owner.

    A set ends by its tasks and its deadline alone; money goes back by what was not delivered.
    """
    customer, job = await shop.sold()
    before = await _everything(shop)
    method, path = door.split(" ")
    address = path.format_map({"job_id": job.id, "payment_id": job.payment_id})
    # As the queue wrapped a failure, and as the page asked for its money.
    body = {
        "status": 500,
        "body": "e30=",
        "jobId": job.id,
        "paymentId": job.payment_id,
        "amount": 100,
        "userId": customer.user_id,
    }
    me = {"telegramUserId": customer.telegram_user_id}
    async with client_of(application_of(shop)) as client:
        answer = await client.request(method, address, json=body, params=me)
    assert answer.status_code in (404, 405)
    assert await _everything(shop) == before
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"


async def test_a_wrong_secret_is_told_nothing_about_the_right_one(shop: Shop) -> None:
    """bugbook G9: an address for tests told the beginning of the hash."""
    session = await sign_in(shop.darkroom, Person(500, "en"))
    right, init_data = session.token, signed()
    wrong = [
        f"Bearer {right[:-1]}{'A' if right[-1] != 'A' else 'B'}",
        f"Bearer {right[:10]}",
        f"Bearer {right}=",
        "Bearer nonsense",
        f"tma {init_data[:-1]}{'0' if init_data[-1] != '0' else '1'}",
        f"tma {init_data[:-32]}",
        "tma nonsense",
    ]
    async with client_of(_production(shop)) as client:
        answers = [
            await client.get("/api/jobs/1", headers={"Authorization": value}) for value in wrong
        ]
        good = await client.get("/api/jobs/1", headers={"Authorization": f"Bearer {right}"})
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert good.status_code == 404


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example"]
)
async def test_no_other_site_may_read_our_answers(shop: Shop, origin: str) -> None:
    """bugbook G17: whatever origin asked was told that it may."""
    session = await sign_in(shop.darkroom, Person(500, "en"))
    headers = {"Origin": origin, "Cookie": f"darkroom_session={session.token}"}
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    async with client_of(_production(shop)) as client:
        answers = [
            await client.get("/api/avatars", headers=headers),
            await client.post("/api/generate", json={}, headers=headers),
            await client.options("/api/generate", headers={**headers, **asking}),
            await client.get("/healthz", headers=headers),
        ]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answers[2].status_code == 405


@pytest.fixture
def log_lines(caplog: pytest.LogCaptureFixture) -> Generator[list[MutableMapping[str, Any]]]:
    """Everything that is logged, whatever the run's own level."""
    caplog.set_level(logging.WARNING)  # what a library says reaches nobody below this
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


async def test_a_whole_sale_is_logged_without_a_word_about_the_person(
    shop: Shop, log_lines: list[MutableMapping[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """bugbook G20: payloads, addresses and tokens stood in the logs."""
    async with client_of(_production(shop)) as client:
        init_data = {"Authorization": f"tma {signed()}"}
        token = (await client.post("/api/session", headers=init_data)).json()["data"]["token"]
        client.cookies.clear()
        me = {"Authorization": f"Bearer {token}"}
        made = await client.post("/api/avatars", json={"name": "Secret Name"}, headers=me)
        avatar_id = made.json()["data"]["avatarId"]
        files = {"files": ("my-secret-file.jpg", b"secret bytes", "image/jpeg")}
        await client.post(f"/api/avatars/{avatar_id}/references", files=files, headers=me)
        wish = {"tierId": "starter", "avatarId": avatar_id, "styleId": "signature"}
        order = (await client.post("/api/payments", json=wish, headers=me)).json()["data"]
        await _send_notices(client, order["paymentId"])
        await shop.drain()
        paid = (await client.get(f"/api/payments/{order['paymentId']}", headers=me)).json()["data"]
        job = (await client.get(f"/api/jobs/{paid['jobId']}", headers=me)).json()["data"]
        photo = await client.get(job["photos"][0]["imageUrl"])
        assert (job["status"], photo.status_code) == ("completed", 200)
    prompts = await shop.rows("SELECT prompt FROM kie_tasks")
    tokens = await shop.rows("SELECT token FROM task_attempts")
    secrets = {
        token,
        signed().rsplit("hash=", 1)[1],
        "Ann",
        "424242",
        "Secret Name",
        "my-secret-file",
        "secret bytes",
        "secret-of-the-notice",
        order["checkoutUrl"],
        job["photos"][0]["imageUrl"].rsplit("signature=", 1)[1],
        *(row["prompt"] for row in prompts),
        *(str(row["token"]) for row in tokens),
    }
    said = repr(log_lines) + caplog.text
    assert "job settled" in said
    assert "payment notice refused" in said
    assert not [secret for secret in secrets if secret in said]


async def _send_notices(client: httpx.AsyncClient, payment_id: int) -> None:
    """One that nobody signed, and the bank's own."""
    path = "/api/webhooks/payments/bank"
    body = f"{payment_id} paid secret-of-the-notice".encode()
    assert (await client.post(path, content=body)).status_code == 401
    assert (await client.post(path, content=body, headers={"signed": "yes"})).status_code == 200
