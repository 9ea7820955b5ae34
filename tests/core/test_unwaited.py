"""What does not wait for the disk (ADR 33) may be forgotten by a server that dies; nothing stands on it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from darkroom.core import attempts
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from tests.shop import Shop

Step = Callable[[Darkroom], Coroutine[Any, Any, int]]

HOW_COMMITTED: Final = """
CREATE TABLE committed (what TEXT, waited BOOLEAN);
CREATE FUNCTION note_commit() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO committed VALUES (TG_ARGV[0], current_setting('synchronous_commit') <> 'off');
    RETURN NULL;
END $$;
"""
COUNTS: Final = (
    ("payment", "payments", "INSERT OR UPDATE", "TRUE"),
    ("job", "generation_jobs", "INSERT OR UPDATE", "NEW.attempts = 0 OR NEW.lease_until IS NULL"),
    ("photo", "generated_photos", "INSERT OR UPDATE", "TRUE"),
    ("refund", "refunds", "INSERT OR UPDATE", "TRUE"),
    ("notice", "inbox", "INSERT", "TRUE"),
    ("notice done", "inbox", "UPDATE", "NEW.processed_at IS NOT NULL"),
    (
        "call",
        "task_attempts",
        "UPDATE",
        "NEW.called_at IS NOT NULL AND NEW.provider_task_id IS NULL",
    ),
    (
        "created",
        "task_attempts",
        "UPDATE",
        "NEW.provider_task_id IS NOT NULL AND NEW.end_state IS NULL",
    ),
)
"""(name, table, when, which rows): what must not be lost once it was said."""
LEASES: Final = (
    (
        "message claimed",
        "inbox",
        "UPDATE",
        "NEW.processed_at IS NULL AND NEW.lease_until IS NOT NULL",
    ),
    (
        "to submit",
        "kie_tasks",
        "UPDATE",
        "NEW.status = 'submitting' AND NEW.lease_until IS NOT NULL",
    ),
    ("to ask", "kie_tasks", "UPDATE", "NEW.status = 'pending' AND NEW.lease_until IS NOT NULL"),
    ("ready", "task_attempts", "UPDATE", "NEW.end_state = 'succeeded'"),
    ("to store", "kie_tasks", "UPDATE", "NEW.status = 'storing' AND NEW.lease_until IS NOT NULL"),
)


async def test_leases_do_not_wait_for_the_disk_and_all_that_counts_does(shop: Shop) -> None:
    """Read at each commit, in a deferred trigger, on the whole way of an order that lacks a photo."""
    async with shop.database.transaction() as tx:
        await tx.execute(HOW_COMMITTED)
        for name, table, when, which in (*COUNTS, *LEASES):
            trigger = (
                f'CREATE CONSTRAINT TRIGGER "{name}" AFTER {when} ON {table} DEFERRABLE INITIALLY DEFERRED '
                f"FOR EACH ROW WHEN ({which}) EXECUTE FUNCTION note_commit('{name}')"
            )
            await tx.execute(trigger.encode())

    async def refuse(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("501", "no", Again.NEVER) if request.prompt_index == 3 else None

    shop.provider.on_ask = refuse
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)
    await shop.drain()
    seen = await shop.rows(
        "SELECT what, bool_and(waited) AS every, bool_or(waited) AS some FROM committed GROUP BY what"
    )
    assert {row["what"] for row in seen if row["every"]} == {name for name, *_ in COUNTS}
    assert {row["what"] for row in seen if not row["some"]} == {name for name, *_ in LEASES}


FORGET: Final = """
SET LOCAL session_replication_role = replica;
DELETE FROM task_attempts; INSERT INTO task_attempts OVERRIDING SYSTEM VALUE SELECT * FROM kept_attempts;
DELETE FROM kie_tasks; INSERT INTO kie_tasks OVERRIDING SYSTEM VALUE SELECT * FROM kept_tasks;
DELETE FROM inbox; INSERT INTO inbox OVERRIDING SYSTEM VALUE SELECT * FROM kept_inbox;
SELECT setval(pg_get_serial_sequence('task_attempts', 'id'), greatest(1, (SELECT max(id) FROM task_attempts)),
              EXISTS (SELECT FROM task_attempts));
"""


@asynccontextmanager
async def forgotten(shop: Shop, claimed: str, step: Step) -> AsyncGenerator[asyncio.Task[int]]:
    """A round of `step` that claimed, and whose claim a server that died has forgotten, numbers and all."""
    async with shop.database.transaction() as tx:
        for name, table in (
            ("attempts", "task_attempts"),
            ("tasks", "kie_tasks"),
            ("inbox", "inbox"),
        ):
            await tx.execute(f"CREATE TABLE kept_{name} AS SELECT * FROM {table}".encode())
    is_claimed, goes_on = asyncio.Event(), asyncio.Event()

    async def hold(name: str) -> None:
        if name == claimed and not is_claimed.is_set():
            is_claimed.set()
            await goes_on.wait()

    with checkpoints_handled_by(hold):
        late = asyncio.create_task(step(shop.darkroom))
        await is_claimed.wait()
        async with shop.database.transaction() as tx:
            await tx.execute(FORGET.encode())
        yield late
        goes_on.set()
        await late


async def _before(shop: Shop, step: Step) -> int:
    """An order that has come to where `step` is the next one."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id)
    steps: tuple[Step, ...] = (
        take_due_notices,
        submit_due_tasks,
        poll_due_tasks,
        collect_due_photos,
    )
    for one in steps[: steps.index(step)]:
        await one(shop.darkroom)
    return payment_id


@pytest.mark.parametrize(
    ("claimed", "step"),
    [
        ("notice.claimed", take_due_notices),
        ("submit.claimed", submit_due_tasks),
        ("poll.claimed", poll_due_tasks),
        ("collect.claimed", collect_due_photos),
    ],
)
@pytest.mark.parametrize("again", [True, False], ids=["claimed-again", "not-yet"])
async def test_whoever_holds_a_forgotten_claim_does_no_harm(
    shop: Shop, claimed: str, step: Step, *, again: bool
) -> None:
    await _before(shop, step)
    async with forgotten(shop, claimed, step):
        if again:
            assert await step(shop.darkroom) >= 1
    await shop.drain()
    assert len(shop.provider.created) == 7
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    assert await shop.statuses() == ["completed"] * 7


async def _claimed_twice(shop: Shop) -> list[int]:
    """Two workers with the same claims and the same attempts' ids; the late one begins first."""
    await _before(shop, submit_due_tasks)
    second_claimed = asyncio.Event()
    late_is_done = asyncio.Event()

    async with forgotten(shop, "submit.claimed", submit_due_tasks) as late:

        async def hold(name: str) -> None:
            if name == "submit.claimed":
                second_claimed.set()
                await late_is_done.wait()

        with checkpoints_handled_by(hold):
            second = asyncio.create_task(submit_due_tasks(shop.darkroom))
            await second_claimed.wait()
    await late
    made_by_late = len(shop.provider.created)
    late_is_done.set()
    await second
    return [made_by_late, len(shop.provider.created)]


async def test_a_forgotten_claims_number_given_to_another_begins_nothing(shop: Shop) -> None:
    assert await _claimed_twice(shop) == [0, 7]
    await shop.drain()


async def test_twin_without_the_token_the_late_one_calls_under_the_others_attempt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: its calls carry tokens that no row knows, so that a lost answer is never found."""
    broken = attempts.BEGIN_CALLS.replace("a.token = held.token AND ", "")
    assert broken != attempts.BEGIN_CALLS
    monkeypatch.setattr(attempts, "BEGIN_CALLS", broken)
    assert await _claimed_twice(shop) == [7, 7]
    known = await shop.rows("SELECT token FROM task_attempts")
    asked = {request.token for request in shop.provider.created.values()}
    assert asked.isdisjoint({row["token"] for row in known})
    shop.audit_at_end = False
