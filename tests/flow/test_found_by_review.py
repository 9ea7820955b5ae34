"""Defects a review found, each as the scenario it described; every one of these failed before its mend."""

import asyncio
import contextlib
import gc
import os
import socket
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from darkroom.config import IsolatedSettings
from darkroom.core import tasks as core_tasks
from darkroom.core.inbox import InboxMessage, MessageGoneError, claim_messages, close_message
from darkroom.core.lapsed import list_due_unknown
from darkroom.core.leases import Renewal
from darkroom.db.database import Connection, DatabaseRefusedError, DatabaseUnavailableError
from darkroom.edges.worker import Worker
from darkroom.flow import leases, submit_tasks
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.leases import LeaseKeeper, LeaseLostError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.receive import receive_generation_callback
from darkroom.flow.settle_unknown import settle_unknown_tasks
from darkroom.flow.start_generation import start_generation
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import (
    GenerationRequest,
    NoAnswer,
    ProviderUnavailableError,
    Working,
)
from darkroom.ports.payments import PaymentRefusedError
from tests.scripted import ScriptedBank
from tests.shop import Shop


async def test_an_attempt_that_was_never_called_costs_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database error between claim and call burned a paid attempt; three of them lost the photos unasked."""
    real = submit_tasks.begin_calls
    failing = 5

    async def sometimes(*args: object) -> object:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise DatabaseUnavailableError("gone")
        return await real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(submit_tasks, "begin_calls", sometimes)
    _, job = await shop.sold()
    for _ in range(5):
        with pytest.raises(DatabaseUnavailableError):
            await submit_due_tasks(shop.darkroom)
        await shop.advance(11)
        await settle_unknown_tasks(shop.darkroom)
    assert set(await shop.statuses()) == {"queued"}
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7
    codes = await shop.rows(
        "SELECT DISTINCT refusal_code FROM task_attempts WHERE called_at IS NULL"
    )
    assert codes == [{"refusal_code": "NOT_SENT"}]


async def test_a_worker_that_slept_through_its_lease_does_not_call(shop: Shop) -> None:
    """Its attempts were written off meanwhile: calling with them would be a second task."""
    await shop.sold()

    async def sleep(name: str) -> None:
        if name == "submit.claimed":
            await shop.advance(11)
            await settle_unknown_tasks(shop.darkroom)

    with checkpoints_handled_by(sleep):
        await submit_due_tasks(shop.darkroom)
    assert shop.provider.created == {}
    await shop.drain()
    assert len(shop.provider.created) == 7


async def test_an_adoption_between_look_and_decision_is_seen(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture existed, the orphan was adopted, and the task was failed on what had been read before."""

    async def lost(request: GenerationRequest) -> NoAnswer | None:
        if request.prompt_index == 0:
            shop.provider.make(request)
            return NoAnswer("timeout")
        return None

    shop.provider.on_create = lost
    shop.darkroom = replace(shop.darkroom, max_generation_attempts=1)
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.advance(100)
    orphan, request = next(iter(shop.provider.created.items()))

    async def look_then_adopt(tx: object, *, limit: int) -> object:
        found = await list_due_unknown(tx, limit=limit)  # pyright: ignore[reportArgumentType]
        await receive_generation_callback(
            shop.darkroom, provider_name="scripted", token=request.token, provider_task_id=orphan
        )
        await take_due_notices(shop.darkroom)
        return found

    monkeypatch.setattr("darkroom.flow.settle_unknown.list_due_unknown", look_then_adopt)
    await settle_unknown_tasks(shop.darkroom)
    monkeypatch.undo()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


@pytest.mark.parametrize("asks", [True, False])
async def test_what_a_worker_that_slept_does_for_a_notice_is_undone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, asks: bool
) -> None:
    """Somebody else has the message by then. Without the question whose it is, what was done would stay."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)

    async def sleep(name: str) -> None:
        if name == "notice.claimed":
            await shop.advance(11)
            async with shop.database.connection() as tx:
                await claim_messages(tx, limit=1, lease_seconds=9)

    if not asks:

        async def close(tx: Connection, message: InboxMessage, *, outcome: str) -> None:
            with contextlib.suppress(MessageGoneError):
                await close_message(tx, message, outcome=outcome)

        monkeypatch.setattr("darkroom.flow.take_notices.close_message", close)
    with checkpoints_handled_by(sleep):
        await take_due_notices(shop.darkroom)
    payment = await shop.rows("SELECT status FROM payments WHERE id = %s", payment_id)
    jobs = await shop.rows("SELECT id FROM generation_jobs")
    assert (payment, len(jobs)) == (
        [{"status": "pending" if asks else "succeeded"}],
        0 if asks else 1,
    )
    monkeypatch.undo()
    await shop.advance(11)
    await shop.drain()
    assert len(shop.provider.created) == 7


async def test_a_commit_that_is_still_under_way_is_waited_for(shop: Shop) -> None:
    """The connection is cut during a slow COMMIT: the retry must not be told "consumed" by its own job."""
    customer = await shop.customer()
    await shop.paid(customer)
    async with shop.database.connection() as tx:
        await tx.execute(
            "CREATE FUNCTION slow() RETURNS TRIGGER LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.7); RETURN NULL; END $$"
        )
        await tx.execute(
            "CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON generation_jobs "
            "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    cuts = 0

    def cut_sockets() -> None:
        nonlocal cuts
        for thing in gc.get_objects():
            if (
                isinstance(thing, psycopg.AsyncConnection)
                and not thing.closed
                and thing.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
            ):
                copy = socket.socket(fileno=os.dup(thing.fileno()))
                copy.shutdown(socket.SHUT_RDWR)
                copy.close()
                cuts += 1

    async def cut_at_commit(name: str) -> None:
        if name == "start.before_commit" and not cuts:
            asyncio.get_running_loop().call_later(0.2, cut_sockets)

    with checkpoints_handled_by(cut_at_commit):
        job = await start_generation(shop.darkroom, shop.request(customer))
    assert cuts == 1
    assert job.total_photos == 7
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    async with shop.database.connection() as tx:
        await tx.execute("DROP TRIGGER slow_commit ON generation_jobs")


async def test_a_payment_is_registered_where_it_was_made(shop: Shop) -> None:
    """Today's default provider is not the one of yesterday's payment: its notice would find nothing."""
    customer = await shop.customer()
    wish = OrderRequest(customer.user_id, "starter", None, None, None, "click", uuid4())
    shop.bank.silent = True
    with pytest.raises(RequestRefusedError, match="PAYMENT_PROVIDER_UNAVAILABLE"):
        await order_photos(shop.darkroom, wish)
    shop.bank.silent = False
    other = ScriptedBank(name="other")
    later = replace(shop.darkroom, payments={"other": other, "bank": shop.bank})
    payment = await order_photos(later, replace(wish, request_id=uuid4()))
    assert payment.provider == "bank"
    assert other.keys == []
    assert payment.checkout_url is not None


async def test_a_definite_no_to_a_payment_ends_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await shop.customer()

    async def refuse(_bank: object, _request: object) -> None:
        raise PaymentRefusedError("400")

    monkeypatch.setattr(ScriptedBank, "create", refuse)
    with pytest.raises(RequestRefusedError, match="PAYMENT_REFUSED"):
        await shop.ordered(customer)
    assert await shop.value("SELECT status FROM payments") == "canceled"


async def test_an_odd_answer_about_a_payment_backs_off(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await shop.customer()
    await shop.ordered(customer)
    asked = 0

    async def odd(_bank: object, _payment_id: int, _provider_id: str | None) -> None:
        nonlocal asked
        asked += 1
        raise KeyError("status")

    monkeypatch.setattr(ScriptedBank, "ask", odd)
    for _ in range(360):
        await shop.round()
        await shop.advance(10)
    assert asked < 30, "an hour of asking every lease"
    assert await shop.value("SELECT status FROM payments") == "pending"


async def test_the_loser_is_told_the_job_that_took_this_race(shop: Shop) -> None:
    customer = await shop.customer()
    older = await shop.paid(customer)
    newer = await shop.paid(customer)
    await shop.start(customer, payment_id=newer)
    second = await shop.start(customer, payment_id=older)
    with pytest.raises(RequestRefusedError) as refusal:
        await shop.start(customer)
    assert refusal.value.details["jobId"] == second.id


async def test_work_is_cancelled_in_time_whatever_the_renewal_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal that raises oddly ended the renewing; one that hung held up the cancelling."""

    async def broken(*_args: object, **_more: object) -> None:
        raise DatabaseRefusedError("a column is missing")

    monkeypatch.setattr("darkroom.flow.leases.renew_leases", broken)
    keeper = LeaseKeeper(shop.database, lease_seconds=0.4, renew_seconds=0.1)
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(5), keeper.holding(("task", 1, 1)):
            await asyncio.Event().wait()
    await keeper.close()


async def test_a_lease_taken_while_the_last_ones_renewal_still_runs_is_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop was ending and not done: nobody renewed such a lease, and nobody cancelled its work."""
    real, begun, answered = leases.renew_leases, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **more: Any) -> Renewal:  # noqa: ANN401
        begun.set()
        while not answered.is_set():
            # As a driver that takes its time to cancel a statement.
            with contextlib.suppress(asyncio.CancelledError):
                await answered.wait()
        return await real(*args, **more)

    monkeypatch.setattr(leases, "renew_leases", slow)
    keeper = LeaseKeeper(shop.database, lease_seconds=60, renew_seconds=0.05)
    async with keeper.holding(("task", 1, 1)):
        await begun.wait()
    for _ in range(3):  # the loop looks each 0.05 s, and finds nothing held
        await asyncio.sleep(0.05)
    asyncio.get_running_loop().call_later(0.05, answered.set)
    # No such row: the first renewal says so.
    with pytest.raises(LeaseLostError):
        async with asyncio.timeout(5), keeper.holding(("task", 2, 1)):
            await asyncio.Event().wait()
    await keeper.close()


async def test_a_renewal_waits_for_no_row(shop: Shop) -> None:
    """One locked row held up every lease of the process, and could be part of a deadlock."""
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    async with shop.database.connection() as tx:
        claimed = await core_tasks.claim_pending(tx, limit=7, lease_seconds=10)
    keeper = LeaseKeeper(shop.database, lease_seconds=10, renew_seconds=2)
    entered = asyncio.Event()

    async def hold() -> None:
        async with asyncio.TaskGroup() as group:
            for task in claimed:
                group.create_task(one(task.id, task.claim))

    async def one(task_id: int, claim: int) -> None:
        async with keeper.holding(("task", task_id, claim)):
            await entered.wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(0)
    async with shop.database.transaction() as other:
        await other.execute("SELECT FROM kie_tasks WHERE id = %s FOR UPDATE", [claimed[0].id])
        async with asyncio.timeout(1.5):
            await keeper.renew()
    entered.set()
    await holding
    await keeper.close()
    prolonged = await shop.value(
        "SELECT count(*) FROM kie_tasks WHERE lease_until > darkroom_now() + INTERVAL '9 seconds'"
    )
    assert prolonged >= 6


async def test_the_audit_lane_survives_its_own_error(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    async def broken(_database: object) -> None:
        nonlocal tried
        tried += 1
        raise DatabaseRefusedError("a column is missing")

    monkeypatch.setattr("darkroom.edges.worker.run_audit", broken)
    limits = shop.darkroom.limits.model_copy(update={"audit_seconds": 0.05})
    async with Worker(replace(shop.darkroom, limits=limits)).running():
        async with asyncio.timeout(10):
            while tried < 3:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {
                "DARKROOM_SANDBOX_SECRET": "s",
                "DARKROOM_SANDBOX_URL": "https://bank.example",
                "KIE_API_KEY": "k",
                "DARKROOM_PUBLIC_URL": "https://shop.example",
                "DARKROOM_STORAGE_URL": "s3://bucket",
                "S3_ENDPOINT": "https://account.r2.cloudflarestorage.com",
                "S3_ACCESS_KEY_ID": "key",
                "S3_SECRET_ACCESS_KEY": "secret",
            },
            "DARKROOM_SANDBOX_SECRET",
        ),
        ({"DARKROOM_MODE": "demo", "TELEGRAM_BOT_TOKEN": "1:x"}, "TELEGRAM_BOT_TOKEN"),
        ({"DARKROOM_MODE": "demo", "DARKROOM_HOST": "0.0.0.0"}, "DARKROOM_HOST"),  # noqa: S104
        ({"QSTASH_CURRENT_SIGNING_KEY": "k"}, "QSTASH_NEXT_SIGNING_KEY"),
        ({"QSTASH_CURRENT_SIGNING_KEY": " \n", "QSTASH_NEXT_SIGNING_KEY": "k"}, "QSTASH_CURRENT"),
        ({"DARKROOM_GENERATION_PROVIDER": "kie"}, "KIE_API_KEY"),
        ({"KIE_API_KEY": "k"}, "DARKROOM_PUBLIC_URL"),
        ({"DARKROOM_PORT": "x"}, "DARKROOM_PORT"),
    ],
)
def test_a_half_configured_part_is_named(settings: dict[str, str], named: str) -> None:
    """bugbook B23, bugbook A25: white space in keys; test money for real photos."""
    with pytest.raises(ValueError, match=named):
        IsolatedSettings.model_validate(settings)


async def test_a_callback_during_a_question_is_not_lost(shop: Shop) -> None:
    """Asked, not yet; ready, called back; given back with a pause: the photo waited up to 15 s more."""
    await shop.sold()
    await shop.step("submit")
    await shop.advance(60)
    called: set[int] = set()
    one_after_the_other = asyncio.Lock()

    async def not_yet(request: GenerationRequest) -> Working | None:
        if request.task_id in called:
            return None
        called.add(request.task_id)
        (provider_task_id,) = [
            known for known, one in shop.provider.created.items() if one.task_id == request.task_id
        ]
        async with one_after_the_other:
            await receive_generation_callback(
                shop.darkroom,
                provider_name="scripted",
                token=request.token,
                provider_task_id=provider_task_id,
            )
            assert await take_due_notices(shop.darkroom) == 1
        return Working()

    shop.provider.on_ask = not_yet
    assert await poll_due_tasks(shop.darkroom) == 7
    assert len(called) == 7
    assert await poll_due_tasks(shop.darkroom) == 7, "due at once, all of them"
    assert set(await shop.statuses()) == {"storing"}
    await shop.drain()


async def test_a_callback_does_not_cut_a_backoff_short_that_began_after_it(shop: Shop) -> None:
    """The provider did not answer: it is left alone for a while, whoever calls."""
    await shop.sold()
    await shop.step("submit")
    await shop.advance(60)
    asked: list[int] = []

    async def away(request: GenerationRequest) -> Working | None:
        asked.append(request.task_id)
        async with shop.database.connection() as tx:
            await core_tasks.ring_task(tx, request.task_id)
        raise ProviderUnavailableError("no answer")

    shop.provider.on_ask = away
    await poll_due_tasks(shop.darkroom)
    assert await poll_due_tasks(shop.darkroom) == 0
    assert len(asked) == 7
    shop.provider.on_ask = None
    await shop.drain()
