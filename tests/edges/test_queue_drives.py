"""A whole order that only the outside queue drives: no worker, no cron, and deliveries as bad as they come."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.adapters.qstash_doorbell import QStashDoorbell
from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.adapters.qstash_schedules import QStashSchedules
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_faults import Fault, Kind
from tests.edges.serving import application_of
from tests.shop import Shop

ORDERS = 3


class Later:
    """An application that is built once its own address is known."""

    inner: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.inner is not None
        await self.inner(scope, receive, send)


@asynccontextmanager
async def open_to_the_queue(shop: Shop) -> AsyncGenerator[tuple[QStashTwin, str]]:
    """The shop behind a real server, with a queue that knows its address; its rounds are scheduled there."""
    later = Later()
    async with qstash_twin() as queue, loopback(later) as url:
        bell = QStashDoorbell(
            token=queue.habits.token, base_url=queue.base_url, public_url=url, retries=3
        )
        clock = QStashSchedules(token=queue.habits.token, base_url=queue.base_url, public_url=url)
        await clock.install("darkroom-poll", path="/api/cron/poll-kie-tasks", cron="* * * * *")
        shop.darkroom = replace(shop.darkroom, doorbell=bell, base_url=url)
        receiver = QStashReceiver(
            current_key=queue.habits.current_key, next_key=queue.habits.next_key
        )
        later.inner = application_of(shop, receiver=receiver, cron=None)
        try:
            yield queue, url
        finally:
            await clock.close()
            await bell.close()


async def test_bad_deliveries_make_one_generation_each_and_waste_no_task(shop: Shop) -> None:
    """bugbook B1, bugbook B2: redelivered and concurrent messages made duplicate provider tasks."""
    async with (
        open_to_the_queue(shop) as (queue, url),
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as browser,
    ):
        for kind in (
            *(Kind.AT_ONCE, Kind.TWICE, Kind.LATE, Kind.EXPIRED, Kind.CORRUPT, Kind.WRONG_SUB),
            *(Kind.NEXT_KEY, Kind.LOST, Kind.AT_ONCE, Kind.TWICE),
        ):
            queue.lots.script("delivery", Fault(kind))
        queue.lots.script("publish", Fault(Kind.KEEP_THEN_DROP))
        for _ in range(ORDERS):
            customer = await shop.customer()
            await shop.paid(customer)
            wish = {
                "telegramUserId": customer.telegram_user_id,
                "avatarId": customer.avatar_id,
                "styleId": "signature",
                "useStoredReferences": True,
            }
            clicks = await asyncio.gather(
                *(browser.post("/api/generate", json=wish) for _ in range(2))
            )
            assert sorted(click.status_code for click in clicks) in ([200, 402], [201, 402])
        for _ in range(10):
            await queue.advance(60)
            await shop.advance(20)
        await queue.advance(3600)
    jobs = await shop.rows("SELECT status, completed_photos FROM generation_jobs")
    assert jobs == [{"status": "completed", "completed_photos": 7}] * ORDERS
    assert len(shop.provider.created) == 7 * ORDERS
    assert await shop.value("SELECT count(*) FROM task_attempts") == 7 * ORDERS
    # Every message had its effect once, however often it came; none was given up.
    rings = [one for one in queue.messages.values() if one.order.url.endswith("/api/jobs/process")]
    assert len(rings) == ORDERS
    assert {one.state for one in rings} == {"DELIVERED"}
    effects = await shop.rows("SELECT message_id FROM qstash_processed_messages")
    assert Counter(row["message_id"] for row in effects) == Counter(one.id for one in rings)
    assert len([one for one in queue.deliveries if one.url.endswith("process")]) > ORDERS
    assert queue.counts["deduplicated"] == 1
    # A round that was not believed is not repeated: the next minute has its own.
    given_up = {one.message.order.schedule_id for one in queue.dead.values()}
    assert given_up <= {"darkroom-poll"}


async def test_what_is_given_up_comes_back_and_the_order_goes_on(shop: Shop) -> None:
    """bugbook B10: after the last retry the callback said what was wrong, and nobody could read it."""
    async with open_to_the_queue(shop) as (queue, _):
        queue.lots.script("delivery", *[Fault(Kind.STRANGER)] * 4)
        _, job = await shop.sold()
        del queue.schedules["darkroom-poll"]
        await queue.advance(3600)
        assert (queue.counts["dlq"], queue.counts["delivered"]) == (1, 1)
    (kept,) = await shop.rows("SELECT kind, payload->>'job_id' AS job FROM inbox")
    assert kept == {"kind": "queue_failure", "job": str(job.id)}
    await shop.drain()
    assert await shop.value("SELECT outcome FROM inbox") == "rung"
    assert len(shop.provider.created) == 7
