"""Who gets in: signed init data, or a session made from it; and nothing else."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from darkroom.adapters.telegram_init_data import TelegramInitData
from darkroom.core.people import create_avatar
from darkroom.core.sessions import open_session
from darkroom.flow.add_selfie import add_selfie
from tests.contracts.test_init_data import NOW, TOKEN, signed
from tests.edges.serving import application_of, client_of
from tests.scripted import picture_of
from tests.shop import Shop

TELEGRAM_USER = 424242


def _production(shop: Shop):
    check = TelegramInitData(TOKEN, clock=lambda: datetime.fromtimestamp(NOW, UTC))
    return application_of(shop, demo=False, identity_check=check)


def _tma() -> dict[str, str]:
    return {"Authorization": f"tma {signed()}"}


async def _generate(
    client: httpx.AsyncClient, avatar_id: int, headers: dict[str, str]
) -> httpx.Response:
    body = {"avatarId": avatar_id, "styleId": "signature", "telegramUserId": 999}
    return await client.post("/api/generate", json=body, headers=headers)


async def test_signed_init_data_is_an_identity_and_makes_the_user_once(shop: Shop) -> None:
    async with client_of(_production(shop)) as client:
        answers = await asyncio.gather(
            *(client.get("/api/jobs/1", headers=_tma()) for _ in range(10))
        )
    assert {answer.status_code for answer in answers} == {404}
    users = await shop.rows("SELECT telegram_user_id, locale FROM users")
    assert users == [{"telegram_user_id": TELEGRAM_USER, "locale": "ru"}]


async def test_the_signature_counts_and_not_the_id_in_the_body(shop: Shop) -> None:
    """bugbook G1: whoever knew a number was its owner."""
    victim = await shop.customer(999)
    await shop.paid(victim)
    mine = await shop.customer(TELEGRAM_USER)
    await shop.paid(mine)
    async with client_of(_production(shop)) as client:
        theirs = await _generate(client, victim.avatar_id, _tma())
        own = await _generate(client, mine.avatar_id, _tma())
    assert (theirs.status_code, theirs.json()["error"]["code"]) == (404, "AVATAR_NOT_FOUND")
    assert own.status_code == 200


async def test_a_session_stands_for_the_init_data_until_it_ends(shop: Shop) -> None:
    customer = await shop.customer(TELEGRAM_USER)
    await shop.paid(customer)
    async with client_of(_production(shop)) as client:
        opened = await client.post("/api/session", headers=_tma())
        token = opened.json()["data"]["token"]
        cookie = opened.headers["set-cookie"]
        assert opened.status_code == 201
        assert all(
            word in cookie for word in ("HttpOnly", "Secure", "SameSite=None", "Partitioned")
        )
        client.cookies.clear()
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/api/payments/1", headers=bearer)).status_code == 200
        await client.delete("/api/session", headers=bearer)
        await client.delete("/api/session", headers=bearer)
        assert (await client.get("/api/payments/1", headers=bearer)).status_code == 401
    stored = await shop.rows("SELECT token_sha256 FROM sessions")
    assert token not in str(stored)


async def test_a_session_expires(shop: Shop) -> None:
    await shop.customer(TELEGRAM_USER)
    async with client_of(_production(shop)) as client:
        token = (await client.post("/api/session", headers=_tma())).json()["data"]["token"]
        client.cookies.clear()
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await client.get("/api/jobs/1", headers=bearer)).status_code == 404
        await shop.advance(30 * 86_400 + 1)
        assert (await client.get("/api/jobs/1", headers=bearer)).status_code == 401
        await shop.advance(8 * 86_400)
        await shop.drain()
    assert await shop.value("SELECT count(*) FROM sessions") == 0


async def test_a_cookie_changes_things_only_from_our_own_pages(shop: Shop) -> None:
    """bugbook G21: a cookie was enough, whichever page had sent it along."""
    customer = await shop.customer(TELEGRAM_USER)
    await shop.paid(customer)
    async with client_of(_production(shop)) as client:
        token = (await client.post("/api/session", headers=_tma())).json()["data"]["token"]
        client.cookies.clear()
        cookie = {"Cookie": f"darkroom_session={token}"}
        assert (await client.get("/api/payments/1", headers=cookie)).status_code == 200
        for origin in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            answer = await _generate(client, customer.avatar_id, {**cookie, **origin})
            assert answer.status_code == 401
        ours = await _generate(client, customer.avatar_id, {**cookie, "Origin": "http://localhost"})
    assert ours.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "tma "},
        {"Authorization": "tma " + signed().replace("424242", "999999")},
        {"Authorization": "tma " + signed(auth_date=str(NOW - 100_000))},
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": "Basic 424242"},
        {"Authorization": "424242"},
        {"Cookie": "darkroom_session=x"},
        {"X-Telegram-User-Id": "424242"},
    ],
)
@pytest.mark.parametrize("path", ["/api/jobs/1", "/api/payments/1?telegramUserId=424242"])
async def test_nothing_else_gets_in(shop: Shop, headers: dict[str, str], path: str) -> None:
    """bugbook G1, bugbook G5: a number, a cookie of any text, or init data of the day before yesterday."""
    async with client_of(_production(shop)) as client:
        answer = await client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
        opened = await client.post("/api/session", headers=headers)
        assert opened.status_code == 401


async def test_a_wrong_signature_is_not_rescued_by_the_demo_mode(shop: Shop) -> None:
    async with client_of(application_of(shop)) as client:
        answer = await client.get(
            "/api/jobs/1?telegramUserId=424242", headers={"Authorization": "tma nonsense"}
        )
    assert answer.status_code == 401


async def test_a_customer_without_telegram_buys_and_sees_like_any_other(shop: Shop) -> None:
    """bugbook A18: what happens after the money was written for Telegram's ids alone."""
    shop.darkroom = replace(shop.darkroom, chat_enabled=True)
    user_id = await shop.value("INSERT INTO users (telegram_user_id) VALUES (NULL) RETURNING id")
    async with shop.database.transaction() as tx:
        avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
        await open_session(tx, user_id=user_id, token="web-session", origin="telegram", days=1)
    await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture_of(1))
    wish = {"tierId": "starter", "avatarId": avatar_id, "styleId": "signature"}
    headers = {"Authorization": "Bearer web-session"}
    async with client_of(_production(shop)) as client:
        order = (await client.post("/api/payments", json=wish, headers=headers)).json()["data"]
        await shop.notify(order["paymentId"])
        await shop.drain()
        path = f"/api/payments/{order['paymentId']}"
        paid = (await client.get(path, headers=headers)).json()["data"]
        job = (await client.get(f"/api/jobs/{paid['jobId']}", headers=headers)).json()["data"]
        photo = await client.get(job["photos"][0]["imageUrl"])
    assert (job["status"], len(job["photos"]), photo.status_code) == ("completed", 7, 200)
    # Nothing waits for a chat that there is not.
    assert await shop.value("SELECT count(*) FROM telegram_message_queue") == 0
