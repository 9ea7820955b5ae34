"""Whoever stood still for longer than a lease moves nothing: each fenced statement, with a claim that is over.

A frozen process comes back in the middle of its work. Crashes do not show it: the dead do not return.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from darkroom.core import refunds as core_refunds
from darkroom.core import tasks as core_tasks
from darkroom.core.payments import find_payment_money
from darkroom.core.refunds import RefundClaim, begin_attempt, claim_requested, claim_unknown
from darkroom.core.settlements import apply_facts
from darkroom.core.tasks import TaskClaim, claim_pending
from darkroom.db.database import Connection
from darkroom.flow.ask_refunds import ask_unknown_refunds
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    RefundAnswer,
    RefundCall,
    RefundFact,
    RefundNoAnswer,
    RefundState,
)
from tests.money.test_sending import owe_a_share
from tests.shop import Shop

PAST_ITS_LEASE_SECONDS: Final = 31

TASKS: Final = "SELECT to_jsonb(t)::TEXT AS row FROM kie_tasks t ORDER BY id"

TaskMove = Callable[[Connection, TaskClaim], Awaitable[bool]]
RefundMove = Callable[[Connection, RefundClaim], Awaitable[object]]

TASK_MOVES: Final[dict[str, TaskMove]] = {
    "queued": lambda tx, task: core_tasks.move_to_queued(
        tx, task, "pending", error="x", pause_seconds=0
    ),
    "failed": lambda tx, task: core_tasks.fail_task(
        tx,
        task_id=task.id,
        job_id=task.job_id,
        claim=task.claim,
        source="pending",
        code="X",
        text="x",
    ),
    "released": lambda tx, task: core_tasks.release(
        tx, task, pause_seconds=900, error="x", hold_doorbells=True
    ),
}
REFUND_MOVES: Final[dict[str, RefundMove]] = {
    "called": begin_attempt,
    "unknown": lambda tx, refund: core_refunds.move_to_unknown(
        tx, refund, error="x", pause_seconds=900
    ),
    "requested": lambda tx, refund: core_refunds.move_to_requested(
        tx, refund, error="x", pause_seconds=900, new_key=True
    ),
    "failed": lambda tx, refund: core_refunds.fail_refund(tx, refund, error="x"),
}


@pytest.mark.parametrize("move", TASK_MOVES.values(), ids=TASK_MOVES)
async def test_a_claim_that_is_over_moves_no_task(shop: Shop, move: TaskMove) -> None:
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    async with shop.database.connection() as tx:
        (stale,) = await claim_pending(tx, limit=1, lease_seconds=10)
    await shop.advance(PAST_ITS_LEASE_SECONDS)
    async with shop.database.connection() as tx:
        held = {task.id: task for task in await claim_pending(tx, limit=20, lease_seconds=10)}
    before = await shop.rows(TASKS)
    async with shop.database.transaction() as tx:
        assert not await move(tx, stale)
    assert await shop.rows(TASKS) == before
    assert await shop.value("SELECT count(*) FROM generation_dead_letter_queue") == 0
    async with shop.database.transaction() as tx:
        assert await move(tx, held[stale.id]), "whoever holds it now does"
    shop.audit_at_end = False


async def test_a_poller_that_comes_back_buys_no_other_generation(shop: Shop) -> None:
    """It hears of a failure that another worker heard of, too, while it stood still."""
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    failing = await shop.value("SELECT id FROM kie_tasks WHERE prompt_index = 0")
    told = 0

    async def fail_once(request: GenerationRequest) -> FailedThere | None:
        nonlocal told
        if request.task_id != failing or told == 2:
            return None
        told += 1
        if told == 1:
            # The first who asks stands still here; all of this happens meanwhile.
            await shop.advance(PAST_ITS_LEASE_SECONDS)
            await poll_due_tasks(shop.darkroom)
            await shop.advance(PAST_ITS_LEASE_SECONDS)
            await submit_due_tasks(shop.darkroom)
            assert (await shop.statuses())[0] == "pending"
        return FailedThere("500", "failed once", Again.LATER)

    shop.provider.on_ask = fail_once
    await poll_due_tasks(shop.darkroom)
    await shop.drain()
    assert told == 2
    assert len(shop.provider.created) == 7 + 1


@pytest.mark.parametrize("move", REFUND_MOVES.values(), ids=REFUND_MOVES)
async def test_a_claim_that_is_over_moves_and_sends_no_refund(shop: Shop, move: RefundMove) -> None:
    """At a bank that knows no keys, what a stale sender and the new holder say is paid twice."""
    await owe_a_share(shop)
    stale = await _claim_refund(shop)
    await shop.advance(PAST_ITS_LEASE_SECONDS)
    await ask_unknown_refunds(shop.darkroom)
    await shop.advance(900)
    held = await _claim_refund(shop)
    assert held.claim > stale.claim
    before = await shop.rows("SELECT * FROM refunds")
    async with shop.database.transaction() as tx:
        assert not await move(tx, stale)
    assert await shop.rows("SELECT * FROM refunds") == before
    assert await shop.value("SELECT count(*) FROM refund_attempts") == 0
    async with shop.database.transaction() as tx:
        assert await move(tx, held), "whoever holds it now does"
    shop.audit_at_end = False


async def test_of_what_was_settled_meanwhile_no_part_is_sent(shop: Shop) -> None:
    await owe_a_share(shop)
    held = await _claim_refund(shop)
    async with shop.database.connection() as tx:
        assert await begin_attempt(tx, replace(held, due_minor=held.due_minor + 1)) is None
    shop.audit_at_end = False


async def _claim_refund(shop: Shop) -> RefundClaim:
    async with shop.database.connection() as tx:
        (claim,) = await claim_requested(tx, providers=["bank"], limit=1, lease_seconds=10)
    return claim


async def test_an_old_keys_no_is_not_the_no_of_the_key_in_flight(shop: Shop) -> None:
    """A person would pay by hand what the new key's call pays, too."""

    async def lose(_call: RefundCall) -> RefundAnswer:
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = lose
    payment_id = await owe_a_share(shop)
    await shop.step("refund")
    await shop.rows("UPDATE refunds SET key_number = 2 RETURNING id")
    refund = (await shop.rows("SELECT id, status FROM refunds"))[0]
    assert refund["status"] == "unknown"

    async def told(key: str) -> Any:  # noqa: ANN401 - one column of a row
        no = RefundFact("ref-1", Money(1, "RUB"), RefundState.REFUSED, key)
        async with shop.database.transaction() as tx:
            await apply_facts(tx, payment_id, [no], idle_refund_id=None)
        return await shop.value("SELECT status FROM refunds")

    assert await told(f"{refund['id']}-1") == "unknown"
    assert await told(f"{refund['id']}-2") == "failed"
    async with shop.database.connection() as tx:
        assert await claim_unknown(tx, providers=["bank"], limit=1, lease_seconds=1) == []
    shop.audit_at_end = False


async def test_the_books_of_an_order_that_was_paid_twice_are_those_of_the_payment_asked_about(
    shop: Shop,
) -> None:
    customer = await shop.customer()
    first = await shop.ordered(customer)
    await shop.notify(first, "paid", "a")
    await shop.drain()
    await shop.rows(
        "INSERT INTO payments (user_id, provider, provider_payment_id, status, tier_id, photo_count, "
        "amount_minor, currency, policy_id, request_id, succeeded_at, duplicate_of) "
        "SELECT user_id, provider, 'pay-second', 'succeeded', tier_id, photo_count, amount_minor, currency, "
        "policy_id, gen_random_uuid(), darkroom_now(), id FROM payments WHERE id = %s RETURNING id",
        first,
    )
    second = await shop.value("SELECT id FROM payments WHERE duplicate_of = %s", first)
    for theirs, ours in ((f"pay-{first}", first), ("pay-second", second)):
        async with shop.database.connection() as tx:
            money = await find_payment_money(
                tx, payment_id=first, provider="bank", provider_payment_id=theirs
            )
        assert money is not None
        assert (money.payment_id, money.provider_payment_id) == (ours, theirs)
    async with shop.database.connection() as tx:
        stranger = await find_payment_money(
            tx, payment_id=first, provider="bank", provider_payment_id="pay-nobody"
        )
    assert stranger is None
    shop.audit_at_end = False
