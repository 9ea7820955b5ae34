"""Promise 3: any message may come 0, 1 or n times, late, reordered, at once; the outcome is the same."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from darkroom.core import inbox, queue_messages
from darkroom.core.answers import ReadyThere, write_ready
from darkroom.core.tasks import claim_pending
from darkroom.db.database import DatabaseRefusedError
from darkroom.flow.ask_back import ask_back
from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.read_back import read_payment
from darkroom.flow.receive import receive_generation_callback, receive_queue_message
from darkroom.flow.settle_unknown import settle_unknown_tasks
from darkroom.flow.start_generation import GenerateRequest
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.flow.tell_watchers import tell_watchers
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import GenerationRequest, NoAnswer
from tests.shop import Shop


async def test_the_same_notice_many_times_and_at_once_is_one_payment(shop: Shop) -> None:
    """bugbook E8, bugbook B2: redelivered notices; manual acceptance script 2."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    replies = await asyncio.gather(*(shop.notify(payment_id) for _ in range(20)))
    assert set(replies) == {"OK"}
    await asyncio.gather(*(take_due_notices(shop.darkroom) for _ in range(5)))
    await shop.notify(payment_id)
    await shop.notify(payment_id, event="event-2")
    await shop.drain()
    moves = await shop.rows("SELECT to_status FROM move_log WHERE kind = 'payment' ORDER BY id")
    assert [move["to_status"] for move in moves] == ["pending", "succeeded"]
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1


async def test_notices_out_of_order_never_undo_money(shop: Shop) -> None:
    """bugbook E2, bugbook E6: a late CANCELED turned a confirmed payment into a canceled one."""
    customer = await shop.customer()
    first = await shop.ordered(customer)
    await shop.notify(first, "paid", "a")
    await shop.drain()
    await shop.notify(first, "canceled", "b")
    second = await shop.ordered(customer)
    await shop.notify(second, "canceled", "c")
    await shop.drain()
    await shop.notify(second, "paid", "d")
    await shop.drain()
    statuses = await shop.rows("SELECT status FROM payments ORDER BY id")
    assert [row["status"] for row in statuses] == ["succeeded", "succeeded"]


async def test_a_notice_that_does_not_fit_changes_nothing(shop: Shop) -> None:
    """bugbook E5: amount, currency and terminal were never compared."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer)
    known = shop.bank.facts[payment_id]
    for event, change in (
        ("wrong-amount", {"price": type(known.price)(1, "RUB")}),
        ("wrong-currency", {"price": type(known.price)(known.price.amount_minor, "USD")}),
    ):
        shop.bank.facts[payment_id] = replace(known, **change)  # pyright: ignore[reportArgumentType]
        await shop.notify(payment_id, "paid", event)
    shop.bank.facts[payment_id] = known
    await take_due_notices(shop.darkroom)
    outcomes = await shop.rows("SELECT outcome FROM inbox ORDER BY id")
    assert [row["outcome"] for row in outcomes] == [
        "price_mismatch",
        "price_mismatch",
    ]
    assert await shop.value("SELECT status FROM payments") == "pending"
    # Somebody's money is there all the same: a person reads of it.
    found = await shop.rows("SELECT kind, theirs_minor FROM differences")
    assert {row["kind"] for row in found} == {"price_mismatch"}


async def test_the_same_queue_message_twice_and_at_once_has_one_effect(shop: Shop) -> None:
    """bugbook B1, bugbook B2: redelivery made duplicate provider tasks; both deliveries passed the check."""
    _, job = await shop.sold()

    async def deliver() -> bool:
        return await receive_queue_message(shop.darkroom, message_id="msg_1", job_id=job.id)

    fresh = await asyncio.gather(*(deliver() for _ in range(10)))
    assert fresh.count(True) == 1
    assert await deliver() is False
    await shop.drain()
    assert len(shop.provider.created) == 7
    assert await shop.value("SELECT count(*) FROM qstash_processed_messages") == 1


async def test_a_delivery_that_dies_before_its_commit_is_not_remembered(shop: Shop) -> None:
    """bugbook B4: the retry of a failed delivery was skipped."""
    _, job = await shop.sold()

    class DiesError(Exception):
        pass

    async def die(name: str) -> None:
        if name == "receive.queue_before_commit":
            raise DiesError

    with checkpoints_handled_by(die), pytest.raises(DiesError):
        await receive_queue_message(shop.darkroom, message_id="msg_1", job_id=job.id)
    assert await receive_queue_message(shop.darkroom, message_id="msg_1", job_id=job.id) is True


async def test_twin_looked_up_first_and_recorded_last_acts_twice(shop: Shop) -> None:
    """The guard removed (bugbook B2): check, act, then record lets two deliveries act."""
    acted = 0
    both_looked = asyncio.Barrier(2)

    async def deliver() -> None:
        nonlocal acted
        seen = await shop.value(
            "SELECT EXISTS (SELECT FROM qstash_processed_messages WHERE message_id = 'm')"
        )
        await both_looked.wait()
        if not seen:
            acted += 1
        async with shop.database.transaction() as tx:
            await queue_messages.accept_message(tx, "m")

    await asyncio.gather(deliver(), deliver())
    assert acted == 2, "the twin must fail"


async def test_many_pollers_over_the_same_rows_do_each_once(shop: Shop) -> None:
    """bugbook C2: overlapping cron runs inserted, sent and refunded twice."""
    asked: list[int] = []

    async def count(request: GenerationRequest) -> None:
        asked.append(request.task_id)

    shop.provider.on_ask = count
    await shop.sold(tier="premium")
    await shop.sold(tier="premium")
    for step in (submit_due_tasks, poll_due_tasks, collect_due_photos, finish_due_jobs):
        for _ in range(4):
            await asyncio.gather(*(step(shop.darkroom) for _ in range(6)))
    assert len(asked) == len(set(asked)) == 46
    assert len(shop.provider.created) == 46
    assert await shop.value("SELECT count(*) FROM generated_photos") == 46
    ended = await shop.value(
        "SELECT count(*) FROM move_log WHERE kind = 'job' AND to_status = 'completed'"
    )
    assert ended == 2


async def test_twin_without_the_fence_a_stale_poller_stores_twice(shop: Shop) -> None:
    """The guard removed: without `claim` in the move, a worker that lost its lease still moves the row."""
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    async with shop.database.connection() as tx:
        stale = (await claim_pending(tx, limit=1, lease_seconds=10))[0]
    await shop.advance(11)
    async with shop.database.connection() as tx:
        fresh = (await claim_pending(tx, limit=1, lease_seconds=10))[0]
        assert fresh.id == stale.id
        assert await write_ready(tx, [ReadyThere(stale, "stale", None, None)]) == set()
        unfenced = await tx.execute(
            "UPDATE kie_tasks SET status = 'storing' WHERE id = %s AND status = 'pending'",
            [stale.id],
        )
        assert unfenced.rowcount == 1, "the twin must fail"
    shop.audit_at_end = False


async def test_a_lost_answer_waits_for_its_callback_and_is_adopted(shop: Shop) -> None:
    """bugbook B6: the paid provider task was orphaned, and another one bought."""

    async def lost(request: GenerationRequest) -> NoAnswer | None:
        if request.prompt_index == 0:
            shop.provider.make(request)
            return NoAnswer("timeout")
        return None

    shop.provider.on_create = lost
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    assert (await shop.statuses())[0] == "unknown"
    orphan, request = next(iter(shop.provider.created.items()))
    await asyncio.gather(
        *(
            receive_generation_callback(
                shop.darkroom,
                provider_name="scripted",
                token=request.token,
                provider_task_id=orphan,
            )
            for _ in range(5)
        )
    )
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE adopted") == 1


async def test_a_doorbell_does_not_cut_the_wait_for_a_lost_answer_short(shop: Shop) -> None:
    """bugbook B1, bugbook B6: a redelivery bought a second task while the first one's callback was under way.

    Found by the matrix.
    """

    async def lost(request: GenerationRequest) -> NoAnswer | None:
        if request.prompt_index == 0:
            shop.provider.make(request)
            return NoAnswer("timeout")
        return None

    shop.provider.on_create = lost
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await receive_queue_message(shop.darkroom, message_id="again", job_id=job.id)
    await settle_unknown_tasks(shop.darkroom)
    assert (await shop.statuses())[0] == "unknown"
    orphan, request = next(iter(shop.provider.created.items()))
    await receive_generation_callback(
        shop.darkroom, provider_name="scripted", token=request.token, provider_task_id=orphan
    )
    await take_due_notices(shop.darkroom)
    # The callback ends the wait at once: nobody waits for the rest of the grace.
    await settle_unknown_tasks(shop.darkroom)
    assert (await shop.statuses())[0] == "pending"
    shop.provider.on_create = None
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_lost_answer_without_a_callback_costs_one_more_task_and_the_ledger_shows_it(
    shop: Shop,
) -> None:
    lost_once: set[int] = set()

    async def lost(request: GenerationRequest) -> NoAnswer | None:
        if request.prompt_index == 0 and request.task_id not in lost_once:
            lost_once.add(request.task_id)
            shop.provider.make(request)
            return NoAnswer("timeout")
        return None

    shop.provider.on_create = lost
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 8
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE end_state = 'lost'") == 1


async def test_a_callback_that_forges_another_task_binds_nothing(shop: Shop) -> None:
    """The body is unsigned: what it says is read at the source."""
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    token = shop.provider.token_of("task-1")
    await receive_generation_callback(
        shop.darkroom, provider_name="scripted", token=token, provider_task_id="forged"
    )
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert await shop.value("SELECT outcome FROM inbox WHERE kind = 'generation'") == "not_ours"


async def test_every_doorbell_fifty_times_changes_nothing(shop: Shop) -> None:
    """Queue, notice, callbacks of every task, NOTIFY, our own bell, and both crons' rounds, side by side."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)
    await take_due_notices(shop.darkroom)
    job_id = await shop.value("SELECT id FROM generation_jobs")

    async def call_back(task_id: str) -> None:
        await receive_generation_callback(
            shop.darkroom,
            provider_name="scripted",
            token=shop.provider.token_of(task_id),
            provider_task_id=task_id,
        )

    for number in range(50):
        await asyncio.gather(
            receive_queue_message(shop.darkroom, message_id=f"m{number}", job_id=job_id),
            shop.notify(payment_id, event=f"e{number}"),
            shop.darkroom.doorbell.ring(job_id),
            tell_watchers(shop.darkroom, [job_id]),
            *(call_back(task_id) for task_id in shop.provider.created),
            *(step.run(shop.darkroom) for step in (*WORK_STEPS, *HOUSE_STEPS)),
        )
    await shop.drain()
    assert len(shop.provider.created) == 7
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    assert await shop.value("SELECT count(*) FROM task_attempts") == 7


async def test_the_same_message_to_the_inbox_at_once_is_one_row(shop: Shop) -> None:
    async def store() -> bool:
        async with shop.database.connection() as tx:
            return await inbox.store_message(
                tx, source="bank", external_id="x", kind="payment", payload={"payment_id": 1}
            )

    assert (await asyncio.gather(*(store() for _ in range(10)))).count(True) == 1
    shop.audit_at_end = False


def test_a_requests_hash_is_its_meaning() -> None:
    """An idempotency key is bound to what was asked, not to who carries it."""

    def hashed(style: str, payment: int | None) -> str:
        return GenerateRequest(1, 2, style, payment, "k", uuid4()).sha256()

    assert hashed("a", None) == hashed("a", None)
    assert len({hashed("a", None), hashed("b", None), hashed("a", 1)}) == 3


async def test_money_that_is_only_promised_starts_nothing(shop: Shop) -> None:
    """bugbook E4: a bank had set the money aside, nobody took it, and the photos were made."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id, "waiting", "a")
    await take_due_notices(shop.darkroom)
    assert await shop.value("SELECT outcome FROM inbox") == "waiting"
    assert await shop.value("SELECT status FROM payments") == "pending"
    with pytest.raises(RequestRefusedError, match="PAYMENT_REQUIRED"):
        await shop.start(customer, payment_id=payment_id)
    await shop.notify(payment_id, "paid", "b")
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_what_went_back_is_not_revived(shop: Shop) -> None:
    """bugbook E7: whoever looked at a refunded payment made it a good one again."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await ask_back(shop.darkroom, user_id=customer.user_id, payment_id=payment_id)
    await shop.step("refund")
    for state in ("paid", "canceled", "waiting", "paid"):
        await shop.notify(payment_id, state, f"after-{state}")
        await take_due_notices(shop.darkroom)
        await shop.advance(700)
        await ask_silent_payments(shop.darkroom)
        view = await read_payment(shop.darkroom, user_id=customer.user_id, payment_id=payment_id)
        assert (view.status, view.refunded_minor) == ("refunded", 49900)
    with pytest.raises(RequestRefusedError):
        await shop.start(customer, payment_id=payment_id)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 0


async def test_the_database_refuses_a_second_task_and_a_second_photo(shop: Shop) -> None:
    """bugbook B7, bugbook B19: whether a photo was there was asked, and nothing held the answer."""
    await shop.sold()
    await shop.drain()
    second_task = (
        "INSERT INTO kie_tasks (job_id, avatar_id, style_id, prompt, prompt_index, seed, provider, "
        "share_minor, turn) SELECT job_id, avatar_id, style_id, 'other', prompt_index, seed + 1, provider, "
        "0, turn FROM kie_tasks LIMIT 1"
    )
    second_photo = (
        "INSERT INTO generated_photos (job_id, task_id, attempt_id, avatar_id, style_id, prompt, "
        "object_key, sha256, size_bytes, content_type, width, height) SELECT job_id, task_id, attempt_id, "
        "avatar_id, style_id, prompt, object_key || '-again', sha256, size_bytes, content_type, width, "
        "height FROM generated_photos LIMIT 1"
    )
    for statement in (second_task, second_photo):
        with pytest.raises(DatabaseRefusedError, match="unique"):
            async with shop.database.transaction() as tx:
                await tx.execute(statement.encode())
