"""The doors that the outside queue knocks at: what it gave up on, its schedules, and its keys."""

import json
import logging
from base64 import b64encode
from collections.abc import Callable, Generator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import structlog
import structlog.testing
from prometheus_client import REGISTRY

from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.edges.queue_door import REFUSALS_ALARM
from darkroom.flow.take_notices import take_due_notices
from darkroom.twin.qstash import sign_delivery
from tests.edges.serving import application_of, client_of
from tests.shop import Shop

KEYS = [f"a-signing-key-of-32-characters-{number:02}" for number in range(4)]
BASE = "http://127.0.0.1:8000"
FAILED = "/api/jobs/failed"
PROCESS = "/api/jobs/process"
CRONS = ("/api/cron/poll-kie-tasks", "/api/cron/sweep")

Knock = Callable[[str, bytes], Mapping[str, str]]


def signed_by(number: int) -> Knock:
    def sign(path: str, body: bytes) -> Mapping[str, str]:
        return {"Upstash-Signature": sign_delivery(body, url=f"{BASE}{path}", key=KEYS[number])}

    return sign


def receiver_at(rotation: int) -> QStashReceiver:
    """With the keys of the n-th rotation."""
    return QStashReceiver(current_key=KEYS[rotation], next_key=KEYS[rotation + 1])


def told(job_id: object, **changes: object) -> bytes:
    """What QStash says of a message that it gave up on; the original is inside."""
    source = json.dumps({"jobId": job_id}).encode()
    body: dict[str, object] = {
        "status": 500,
        "header": {},
        "body": b64encode(b"{}").decode(),
        "retried": 3,
        "maxRetries": 3,
        "sourceMessageId": "msg_1",
        "url": f"{BASE}{PROCESS}",
        "method": "POST",
        "sourceBody": b64encode(source).decode(),
        "dlqId": "dlq_1",
        **changes,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


async def knock(
    client: httpx.AsyncClient, path: str, body: bytes, sign: Knock, method: str = "POST"
) -> httpx.Response:
    return await client.request(method, path, content=body, headers=sign(path, body))


@contextmanager
def logged() -> Generator[list[MutableMapping[str, Any]]]:
    """What is logged from information upwards, whatever the run's own level."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.configure(**before)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_what_the_queue_gave_up_on_makes_its_job_due_once_and_tells_a_person(
    shop: Shop,
) -> None:
    """bugbook B10: the message was nested in base64, and the handler looked for it at the top."""
    _, job = await shop.sold()
    await shop.rows(
        "UPDATE kie_tasks SET due_at = darkroom_now() + INTERVAL '1 hour' "
        "WHERE job_id = %s RETURNING id",
        job.id,
    )
    before = metric("darkroom_queue_failures_total", outcome="rung")
    body = told(job.id)
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        answers = [await knock(client, FAILED, body, signed_by(0)) for _ in range(3)]
        await knock(client, FAILED, told(job.id, dlqId="dlq_2"), signed_by(1))
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"success": True})
    ] * 3
    # The door stored it and did nothing.
    due = "SELECT count(*) FROM kie_tasks WHERE due_at <= darkroom_now()"
    assert await shop.value(due) == 0
    kept = await shop.rows("SELECT source, external_id, kind FROM inbox")
    assert kept == [{"source": "qstash", "external_id": "msg_1", "kind": "queue_failure"}]
    with logged() as lines:
        while await take_due_notices(shop.darkroom):
            pass
    assert await shop.value(due) == 7
    (line,) = [line for line in lines if line["event"] == "queue gave up on a delivery"]
    assert (line["log_level"], line["job_id"], line["status"]) == ("error", job.id, 500)
    assert metric("darkroom_queue_failures_total", outcome="rung") == before + 1
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert len(shop.provider.created) == 7


async def test_a_failure_of_a_job_that_ended_is_only_noted(shop: Shop) -> None:
    _, job = await shop.sold()
    await shop.drain()
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        await knock(client, FAILED, told(job.id), signed_by(0))
    with logged() as lines:
        await take_due_notices(shop.darkroom)
    assert await shop.value("SELECT outcome FROM inbox") == "job_ended"
    assert not [line for line in lines if line["log_level"] == "error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"sourceBody": "not base64"},
        {"sourceBody": b64encode(b"[]").decode()},
        {"sourceBody": b64encode(b'{"jobId": 99999999}').decode()},
        {"sourceBody": b64encode(b'{"jobId": null}').decode()},
        {"sourceBody": None, "status": "x", "retried": -1, "dlqId": None},
        {"sourceMessageId": None},
        {"sourceMessageId": "m" * 400},
    ],
)
async def test_a_failure_that_names_no_job_of_ours_is_an_alarm_all_the_same(
    shop: Shop, changes: dict[str, Any]
) -> None:
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        answer = await knock(client, FAILED, told(None, **changes), signed_by(0))
    assert answer.json() == {"success": True}
    with logged() as lines:
        await take_due_notices(shop.darkroom)
    assert [line["outcome"] for line in lines if line["log_level"] == "error"] == ["no_job"]
    assert await shop.value("SELECT outcome FROM inbox") == "no_job"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"sourceMessageId": "\\u0000"}'])
async def test_a_failure_that_nobody_can_read_is_not_sent_again(shop: Shop, body: bytes) -> None:
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        answer = await knock(client, FAILED, body, signed_by(0))
    assert (answer.status_code, answer.headers["upstash-nonretryable-error"]) == (489, "true")
    assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert await shop.value("SELECT count(*) FROM inbox") == 0


async def test_a_signature_for_one_door_opens_no_other(shop: Shop) -> None:
    body = told(1)
    async with client_of(application_of(shop, receiver=receiver_at(0), cron=None)) as client:
        for_process = signed_by(0)(PROCESS, body)
        for path in (FAILED, *CRONS):
            answer = await client.post(path, content=body, headers=for_process)
            assert answer.status_code == 401
        unsigned = await client.post(FAILED, content=body)
    assert (unsigned.status_code, unsigned.json()) == (401, {"error": "Unauthorized"})
    assert await shop.value("SELECT count(*) FROM inbox") == 0


async def test_keys_are_rotated_without_a_lost_delivery_and_twice_is_an_alarm(shop: Shop) -> None:
    """Before the redeploy the next key is believed; after two rotations nothing is, and that is said once."""
    body = b'{"jobId": null}'
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        with logged() as lines:
            for number in (0, 1):
                assert (await knock(client, PROCESS, body, signed_by(number))).status_code == 200
            refused = [await knock(client, PROCESS, body, signed_by(2)) for _ in range(20)]
            assert {answer.status_code for answer in refused} == {401}
            assert metric("darkroom_queue_refusals_in_a_row") == 20
            back = await knock(client, PROCESS, body, signed_by(1))
    assert back.status_code == 200
    alarms = [line for line in lines if line["log_level"] == "error"]
    assert [line["event"] for line in alarms] == ["queue deliveries refused in a row"]
    assert metric("darkroom_queue_refusals_in_a_row") == 0
    async with client_of(application_of(shop, receiver=receiver_at(1))) as client:
        for number in (1, 2):
            assert (await knock(client, PROCESS, body, signed_by(number))).status_code == 200
        assert (await knock(client, PROCESS, body, signed_by(0))).status_code == 401


async def test_refusals_between_believed_deliveries_and_strangers_are_no_alarm(shop: Shop) -> None:
    body = b'{"jobId": null}'
    async with client_of(application_of(shop, receiver=receiver_at(0))) as client:
        with logged() as lines:
            for _ in range(3):
                for _ in range(REFUSALS_ALARM - 1):
                    await knock(client, PROCESS, body, signed_by(3))
                await knock(client, PROCESS, body, signed_by(0))
            for _ in range(2 * REFUSALS_ALARM):
                await client.post(PROCESS, content=body)
    assert not [line for line in lines if line["log_level"] == "error"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_queues_own_schedule_runs_a_round_without_the_secret(
    shop: Shop, method: str
) -> None:
    """bugbook C3: anyone could call the poll. A signature for exactly this address is as good as the secret."""
    await shop.sold()
    async with client_of(application_of(shop, receiver=receiver_at(0), cron=None)) as client:
        for _ in range(3):
            for path in CRONS:
                answer = await knock(client, path, b"", signed_by(1), method)
                assert answer.status_code == 200, answer.text
        for path in CRONS:
            other = next(one for one in CRONS if one != path)
            headers = signed_by(0)(other, b"")
            assert (await client.request(method, path, headers=headers)).status_code == 401
            headers = signed_by(0)(path, b"")
            query = await client.request(method, f"{path}?x=1", content=b"x", headers=headers)
            assert query.status_code == 401
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert len(shop.provider.created) == 7


async def test_the_rounds_are_closed_when_neither_is_configured(shop: Shop) -> None:
    async with client_of(application_of(shop, cron=None)) as client:
        for path in CRONS:
            for method in ("GET", "POST"):
                assert (await knock(client, path, b"", signed_by(0), method)).status_code == 401
