"""Messages from outside at our doors: signed or refused, kept once, acted on later."""

import asyncio
import base64
import hashlib
import json
import time
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest

from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.config import IsolatedSettings
from darkroom.edges import worker
from darkroom.edges.worker import Worker
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.generation import GenerationRequest
from tests.edges.serving import CRON_SECRET, application_of, client_of
from tests.shop import Shop

# The queue's public test keys (its development server's user 1).
CURRENT = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
URL = "http://127.0.0.1:8000/api/jobs/process"


def _sign(raw: bytes, /, *, key: str = CURRENT, **changes: Any) -> str:  # noqa: ANN401 - JWT claims
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": "Upstash",
        "sub": URL,
        "exp": now + 300,
        "nbf": now,
        "iat": now,
        "jti": "jwt_1",
        "body": base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode(),
        **changes,
    }
    return jwt.encode(  # pyright: ignore[reportUnknownMemberType] - its stubs lack one type
        {name: value for name, value in claims.items() if value is not None}, key
    )


@pytest.fixture
def receiver() -> QStashReceiver:
    return QStashReceiver(current_key=CURRENT, next_key=NEXT)


async def _deliver(
    client: httpx.AsyncClient, body: bytes, signature: str | None, message_id: str | None = "msg_1"
) -> httpx.Response:
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers["Upstash-Signature"] = signature
    if message_id is not None:
        headers["Upstash-Message-Id"] = message_id
    return await client.post("/api/jobs/process", content=body, headers=headers)


async def test_a_delivery_twice_and_twice_at_once(shop: Shop, receiver: QStashReceiver) -> None:
    """bugbook B1, bugbook B2; manual acceptance script 5: no additional provider tasks."""
    _, job = await shop.sold()
    body = json.dumps({"jobId": job.id}).encode()
    async with client_of(application_of(shop, receiver=receiver)) as client:
        first = await asyncio.gather(*(_deliver(client, body, _sign(body)) for _ in range(2)))
        again = await _deliver(client, body, _sign(body, key=NEXT))
    answers = [answer.json() for answer in (*first, again)]
    assert {answer.status_code for answer in (*first, again)} == {200}
    assert answers.count({"success": True}) == 1
    duplicate = {"success": True, "duplicate": True, "message": "Already processed"}
    assert answers.count(duplicate) == 2
    await shop.drain()
    assert len(shop.provider.created) == 7


async def test_without_a_message_id_it_is_processed(shop: Shop, receiver: QStashReceiver) -> None:
    _, job = await shop.sold()
    body = json.dumps({"jobId": job.id}).encode()
    async with client_of(application_of(shop, receiver=receiver)) as client:
        answers = [(await _deliver(client, body, _sign(body), None)).json() for _ in range(2)]
        long = await _deliver(client, body, _sign(body), "m" * 300)
        long_again = await _deliver(client, body, _sign(body), "m" * 300)
    assert answers == [{"success": True}] * 2
    assert (long.json(), long_again.json()["duplicate"]) == ({"success": True}, True)
    await shop.drain()
    assert len(shop.provider.created) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"sub": "http://127.0.0.1:8000/api/other"},
        {"iss": "Someone"},
        {"exp": int(time.time()) - 10},
        {"nbf": int(time.time()) + 1000},
        {"body": "AAAA"},
        {"body": None},
        {"key": "sig_of_somebody_else_with_enough_bytes"},
    ],
)
async def test_what_the_queue_did_not_sign_is_401(
    shop: Shop, receiver: QStashReceiver, change: dict[str, Any]
) -> None:
    _, job = await shop.sold()
    body = json.dumps({"jobId": job.id}).encode()
    async with client_of(application_of(shop, receiver=receiver)) as client:
        answer = await _deliver(client, body, _sign(body, **change))
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
    assert await shop.value("SELECT count(*) FROM qstash_processed_messages") == 0


@pytest.mark.parametrize("signature", [None, "", "x", "a.b.c", "é"])
async def test_no_signature_at_all_is_401(
    shop: Shop, receiver: QStashReceiver, signature: str | None
) -> None:
    async with client_of(application_of(shop, receiver=receiver)) as client:
        headers = [] if signature is None else [(b"upstash-signature", signature.encode())]
        answer = await client.post("/api/jobs/process", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})


async def test_a_queue_that_is_not_configured_lets_nobody_in(shop: Shop) -> None:
    body = b'{"jobId": 1}'
    async with client_of(application_of(shop, receiver=None)) as client:
        answer = await _deliver(client, body, _sign(body))
    assert answer.status_code == 401


@pytest.mark.parametrize("body", [b"", b"{}", b'{"jobId": "x"}', b"[]", b"[" * 90_000, b"\xff"])
async def test_a_signed_delivery_that_nobody_can_read_is_not_sent_again(
    shop: Shop, receiver: QStashReceiver, body: bytes
) -> None:
    """Any status but 489 with this header is repeated for a day, and every time it is as unreadable."""
    async with client_of(application_of(shop, receiver=receiver)) as client:
        answer = await _deliver(client, body, _sign(body))
    if body == b"\xff":
        # The vendor's receiver reads text only: what is none was signed by nobody.
        assert answer.status_code == 401
        return
    assert (answer.status_code, answer.headers["upstash-nonretryable-error"]) == (489, "true")
    assert answer.json()["error"] == {
        "code": "INVALID_REQUEST",
        "message": "jobId is missing",
        "details": {"code": "INVALID_REQUEST"},
    }
    assert await shop.value("SELECT count(*) FROM qstash_processed_messages") == 0


@pytest.mark.parametrize("body", [b'{"jobId": 99999999}', b'{"jobId": null}'])
async def test_a_signed_delivery_of_no_job_of_ours_changes_nothing(
    shop: Shop, receiver: QStashReceiver, body: bytes
) -> None:
    """No job is whatever is due."""
    async with client_of(application_of(shop, receiver=receiver)) as client:
        answers = [(await _deliver(client, body, _sign(body))).json() for _ in range(2)]
    assert answers[0] == {"success": True}
    assert answers[1]["duplicate"] is True
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0


async def test_cron_is_closed_without_its_secret_and_runs_a_round_with_it(shop: Shop) -> None:
    """bugbook C3: anyone could call the poll."""
    await shop.sold()
    paths = ("/api/cron/poll-kie-tasks", "/api/cron/sweep")
    async with client_of(application_of(shop, cron=None)) as client:
        for path in paths:
            answer = await client.get(path, headers={"Authorization": "Bearer "})
            assert answer.status_code == 401
    async with client_of(application_of(shop)) as client:
        for path in paths:
            wrong = await client.get(path, headers={"Authorization": "Bearer wrong"})
            assert wrong.status_code == 401
        secret = {"Authorization": f"Bearer {CRON_SECRET}"}
        for _ in range(3):
            rounds = await asyncio.gather(*(client.get(path, headers=secret) for path in paths * 2))
            assert {answer.status_code for answer in rounds} == {200}
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert len(shop.provider.created) == 7


async def test_one_cron_call_does_what_is_due_and_not_twenty_photos(shop: Shop) -> None:
    """bugbook C4: ten tasks a minute; about four big sets at once exceeded the deadline."""
    for _ in range(4):
        await shop.sold(tier="premium")
    async with client_of(application_of(shop)) as client:
        await client.get(
            "/api/cron/poll-kie-tasks", headers={"Authorization": f"Bearer {CRON_SECRET}"}
        )
    assert await shop.value("SELECT count(*) FROM generated_photos") == 92


async def test_a_signed_notice_is_kept_answered_and_acted_on_later(shop: Shop) -> None:
    """bugbook A14, bugbook E8: generation hung on the browser; the bank got JSON and sent again."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    async with client_of(application_of(shop)) as client:
        answer = await client.post(
            "/api/webhooks/payments/bank",
            content=f"{payment_id} paid e1".encode(),
            headers={"signed": "yes"},
        )
    assert (answer.status_code, answer.text) == (200, "OK")
    # The door stored it and did nothing.
    assert await shop.value("SELECT status FROM payments") == "pending"
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_a_callback_is_a_doorbell_for_its_own_token_only(shop: Shop) -> None:
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    token = shop.provider.token_of("task-1")
    async with client_of(application_of(shop)) as client:
        path = f"/api/webhooks/generation/scripted/{token}"
        body = {"code": 200, "data": {"taskId": "task-1", "state": "fail"}}
        answers = [await client.post(path, json=body) for _ in range(3)]
        stranger = await client.post(
            "/api/webhooks/generation/scripted/00000000-0000-0000-0000-000000000000", json=body
        )
        garbage = await client.post(path, content=b"{")
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (stranger.status_code, garbage.status_code) == (404, 404)
    assert await shop.value("SELECT count(*) FROM inbox WHERE kind = 'generation'") == 1
    await shop.drain()
    # The body said "fail"; the source said otherwise.
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_health_and_metrics(shop: Shop) -> None:
    async with client_of(application_of(shop)) as client:
        assert (await client.get("/healthz")).json()["success"] is True
        assert "darkroom_outside_call_seconds" in (await client.get("/metrics")).text
        name = await shop.value("SELECT current_database()")
        async with shop.database.connection() as tx:
            await tx.execute(
                f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode()
            )
            await tx.execute("SET default_transaction_read_only = on")
            # No connection from before is left to answer otherwise.
            await tx.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        answers = [await client.get("/healthz") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
    shop.audit_at_end = False


async def test_without_its_table_a_delivery_is_refused_and_never_waved_through(
    shop: Shop, receiver: QStashReceiver
) -> None:
    """bugbook B3: the table was missing, the error was swallowed, and every message counted as a new one."""
    _, job = await shop.sold()
    body = json.dumps({"jobId": job.id}).encode()
    async with client_of(application_of(shop, receiver=receiver)) as client:
        async with shop.database.connection() as tx:
            await tx.execute("ALTER TABLE qstash_processed_messages RENAME TO gone")
        refused = await _deliver(client, body, _sign(body))
        async with shop.database.connection() as tx:
            await tx.execute("ALTER TABLE gone RENAME TO qstash_processed_messages")
        again = await _deliver(client, body, _sign(body))
    assert (refused.status_code, refused.json()["success"]) == (503, False)
    assert refused.headers["retry-after"]
    assert again.json() == {"success": True}
    await shop.drain()


async def test_a_cron_call_that_is_cut_off_leaves_nothing_half(shop: Shop) -> None:
    """bugbook B24: what a serverless call had begun in the background died with it, in the middle of a set."""
    entered = asyncio.Event()

    async def slow(request: GenerationRequest) -> None:
        if request.prompt_index == 3 and not entered.is_set():
            entered.set()
            await asyncio.Event().wait()

    shop.provider.on_create = slow
    await shop.sold()
    secret = {"Authorization": f"Bearer {CRON_SECRET}"}
    async with client_of(application_of(shop)) as client:
        cut = asyncio.create_task(client.get("/api/cron/poll-kie-tasks", headers=secret))
        await entered.wait()
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        assert await shop.value("SELECT status FROM generation_jobs") == "processing"
        for _ in range(10):
            answer = await client.get("/api/cron/poll-kie-tasks", headers=secret)
            assert answer.status_code == 200
            await shop.advance(20)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7
    # What was cut off in the middle of its call may have arrived there: the ledger has a line for each.
    lost = await shop.value("SELECT count(*) FROM task_attempts WHERE end_state = 'lost'")
    assert lost >= 1
    assert await shop.value("SELECT count(*) FROM task_attempts") == 7 + lost


async def test_a_cron_secret_with_a_stray_newline_works(shop: Shop) -> None:
    """bugbook H18: the environment held another value than the caller, and every cron was turned away."""
    settings = IsolatedSettings.model_validate({"CRON_SECRET": f" {CRON_SECRET}\r\n"})
    assert settings.cron_secret is not None
    app = application_of(shop, cron=settings.cron_secret.get_secret_value())
    async with client_of(app) as client:
        for path in ("/api/cron/poll-kie-tasks", "/api/cron/sweep"):
            answer = await client.get(path, headers={"Authorization": f"Bearer {CRON_SECRET}"})
            assert answer.status_code == 200


async def test_a_broken_promise_is_seen_from_outside_without_anybody_asking(shop: Shop) -> None:
    """bugbook H10: the health page looked at the database alone, and nobody was ever told anything."""
    await shop.sold()
    await shop.drain()
    async with shop.database.transaction() as tx:
        await tx.execute("SET LOCAL session_replication_role = replica")
        await tx.execute("UPDATE generation_jobs SET completed_photos = 1")
    line = 'darkroom_audit_findings{question="progress_is_honest"} 1.0'
    limits = shop.darkroom.limits.model_copy(update={"audit_seconds": 0.05})
    async with (
        client_of(application_of(shop)) as client,
        Worker(replace(shop.darkroom, limits=limits)).running(),
        asyncio.timeout(10),
    ):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.02)
    worker.AUDIT_FINDINGS.clear()
    shop.audit_at_end = False
