"""One provider account, many processes: its window, its pauses, and whose turn it is."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.core import budget
from darkroom.core.audit import run_audit
from darkroom.core.budget import pause_provider, set_window, take_budget, view_budgets
from darkroom.db import database as database_module
from darkroom.db.database import Database, RowBusyError
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.prepare import prepare
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, GenerationRequest, NoAnswer, Refused
from darkroom.wiring import bundled_catalog
from tests.scripted import picture_of
from tests.shop import Shop, open_shop


async def _limit(shop: Shop, requests: int | None, seconds: float = 10) -> None:
    async with shop.database.connection() as tx:
        await set_window(tx, "scripted", requests=requests, seconds=seconds)


async def _created_by_window(shop: Shop) -> int:
    """The most creations any window of 10 s saw."""
    return await shop.value(
        "SELECT max(n) FROM (SELECT (SELECT count(*) FROM task_attempts b "
        "WHERE b.created_at > a.created_at - INTERVAL '10 seconds' AND b.created_at <= a.created_at) AS n "
        "FROM task_attempts a) x"
    )


async def test_many_processes_never_create_more_than_the_window_takes(shop: Shop) -> None:
    """bugbook C4's neighbour: 20 creations in 10 s, and what is over is refused, not queued."""
    await _limit(shop, 20)
    for _ in range(3):
        await shop.sold(tier="premium")
    for _ in range(8):
        await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(6)))
        await shop.advance(2.6)
    await shop.drain()
    assert len(shop.provider.created) == 69
    assert await _created_by_window(shop) == 20


async def _granted_to_two(shop: Shop) -> list[int]:
    """Two processes take from one window; each keeps its transaction open until both have, or cannot."""
    both = asyncio.Barrier(2)

    async def rival() -> int:
        try:
            async with shop.database.transaction() as tx:
                await tx.execute("SELECT set_config('lock_timeout', '300ms', TRUE)")
                budget = await take_budget(tx, "scripted", wanted=20)
                await both.wait()
                return budget.granted
        except RowBusyError:
            await both.wait()
            return 0

    return sorted(await asyncio.gather(rival(), rival()))


class _NotingDoorbell(LocalDoorbell):
    """Notes when it is to wake somebody later."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[float] = []

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        del steps
        if after_seconds > 0:
            self.later.append(after_seconds)


async def test_a_full_window_is_looked_at_again_when_its_oldest_creation_leaves_it(
    shop: Shop,
) -> None:
    """Looking every second, half a second of each window was lost: a twentieth of what was paid for."""
    bell = _NotingDoorbell()
    shop.darkroom = replace(shop.darkroom, doorbell=bell)
    await _limit(shop, 3)
    for _ in range(2):
        await shop.sold()
    assert await submit_due_tasks(shop.darkroom) == 3
    assert bell.later == [], "the window was not full when this one looked"
    await shop.advance(4)
    assert await submit_due_tasks(shop.darkroom) == 0
    assert 5 < bell.later[-1] <= 6.02
    await shop.advance(bell.later[-1])
    assert await submit_due_tasks(shop.darkroom) == 3
    # Paused, there is no place to wait for: the pause has its own end.
    async with shop.database.transaction() as tx:
        await pause_provider(tx, "scripted", seconds=60, reason="402")
    heard = len(bell.later)
    assert await submit_due_tasks(shop.darkroom) == 0
    assert len(bell.later) == heard
    await shop.advance(60)
    await shop.drain(stride_seconds=10)


async def test_while_one_counts_the_window_nobody_else_does(shop: Shop) -> None:
    await _limit(shop, 5)
    assert await _granted_to_two(shop) == [0, 5]


async def test_twin_without_the_lock_both_fill_the_window(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed from the code itself: both count the same window."""
    await _limit(shop, 5)
    unlocked = budget.LOCK_BUDGET.replace(" FOR NO KEY UPDATE", "")
    assert unlocked != budget.LOCK_BUDGET
    monkeypatch.setattr(budget, "LOCK_BUDGET", unlocked)
    assert await _granted_to_two(shop) == [5, 5], "the twin must fail"


async def test_the_lock_makes_the_second_count_what_the_first_took(shop: Shop) -> None:
    await _limit(shop, 5)
    await shop.sold(tier="premium")
    await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(4)))
    assert len(shop.provider.created) == 5


async def test_an_empty_account_pauses_everybody_and_burns_nothing(shop: Shop) -> None:
    """402: one process finds out, all wait, no photo fails."""
    await _limit(shop, None)
    calls = 0

    async def broke(_request: GenerationRequest) -> Refused:
        nonlocal calls
        calls += 1
        return Refused("402", "no credit", Again.PAUSED)

    shop.provider.on_create = broke
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    first = calls
    for _ in range(10):
        await submit_due_tasks(shop.darkroom)
        await shop.advance(5)
    assert calls == first == 7
    async with shop.database.connection() as tx:
        view = (await view_budgets(tx))[0]
    assert view.pause_reason == "402"
    assert view.queued == 7
    shop.provider.on_create = None
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE refusal_code IS NULL") == 7


async def test_a_429_slows_everybody_for_as_long_as_it_says(shop: Shop) -> None:
    await _limit(shop, None)
    answers = [Refused("429", "slow down", Again.LATER, 30.0)]

    async def slow(_request: GenerationRequest) -> Refused | None:
        return answers.pop() if answers else None

    shop.provider.on_create = slow
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    made = len(shop.provider.created)
    await shop.sold()
    for _ in range(5):
        await submit_due_tasks(shop.darkroom)
        await shop.advance(5)
    assert len(shop.provider.created) == made
    await shop.drain()
    assert len(shop.provider.created) == 14


async def test_silence_does_not_cut_a_longer_pause_short(shop: Shop) -> None:
    """Told to come back in ten minutes; the calls that were under way then were not answered any more."""
    async with shop.database.connection() as tx:
        await pause_provider(tx, "scripted", seconds=600, reason="429")
        for _ in range(budget.BREAKER_AFTER):
            await budget.note_silence(tx, "scripted")
        (view,) = [one for one in await view_budgets(tx) if one.provider == "scripted"]
    assert view.paused_seconds > 590


async def test_a_silent_provider_opens_the_breaker_and_one_probe_closes_it(shop: Shop) -> None:
    await _limit(shop, None)
    silent = True

    async def nothing(_request: GenerationRequest) -> NoAnswer | None:
        return NoAnswer("timeout") if silent else None

    shop.provider.on_create = nothing
    await shop.sold(tier="premium")
    await submit_due_tasks(shop.darkroom)
    asked = await shop.value("SELECT count(*) FROM task_attempts")
    assert asked == 20
    await submit_due_tasks(shop.darkroom)
    assert await shop.value("SELECT count(*) FROM task_attempts") == asked, "the breaker is open"
    await shop.advance(61)
    await submit_due_tasks(shop.darkroom)
    assert await shop.value("SELECT count(*) FROM task_attempts") == asked + 1, "one probe"
    silent = False
    await shop.drain()
    assert await shop.value("SELECT silent_in_a_row FROM provider_budgets") == 0
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def _half_minutes(shop: Shop, count: int) -> None:
    for _ in range(count):
        await shop.advance(30)
        while await shop.round():
            pass


async def test_a_set_that_is_never_answered_is_not_the_only_one_to_be_asked_with(
    shop: Shop,
) -> None:
    """It stood first, took each probe of the breaker, and all waited for it: three quarters of an hour."""
    await _limit(shop, None)
    _, odd_job = await shop.sold(tier="premium")
    odd = {row["id"] for row in await shop.rows("SELECT id FROM kie_tasks")}

    async def never(request: GenerationRequest) -> NoAnswer | None:
        return NoAnswer("timeout") if request.task_id in odd else None

    shop.provider.on_create = never
    await _half_minutes(shop, 6)
    _, job = await shop.sold()
    await _half_minutes(shop, 6)
    assert (await shop.job(job.id))["status"] == "completed"
    assert (await shop.job(odd_job.id))["status"] == "processing"
    shop.provider.on_create = None
    await shop.drain()


async def test_a_small_order_is_not_behind_all_of_a_big_one(shop: Shop) -> None:
    """bugbook C4: the oldest ten blocked everybody else."""
    await _limit(shop, 4)
    big = [await shop.sold(tier="premium") for _ in range(4)]
    await shop.advance(10)
    _, small = await shop.sold()
    for _ in range(40):
        await submit_due_tasks(shop.darkroom)
        await shop.advance(10)
    order = [request.task_id for request in shop.provider.created.values()]
    jobs = {row["id"]: row["job_id"] for row in await shop.rows("SELECT id, job_id FROM kie_tasks")}
    last_small = max(place for place, task in enumerate(order) if jobs[task] == small.id)
    assert len(order) == 4 * 23 + 7
    assert last_small < 60, "the small order waited for the big ones"
    # And the big ones go side by side, not one after another.
    first_half = Counter(jobs[task] for task in order[:40])
    assert all(first_half[job.id] >= 6 for _, job in big)
    await shop.drain()


async def test_the_claim_reads_its_order_from_the_index(shop: Shop) -> None:
    """No sort of the backlog, however long it is."""
    async with shop.database.connection() as tx:
        await tx.execute(b"INSERT INTO users (telegram_user_id) VALUES (1);")
        plan = await (
            await tx.execute(
                "EXPLAIN SELECT id FROM kie_tasks WHERE status = 'queued' AND provider = 'x' "
                "AND due_at <= (SELECT darkroom_now()) ORDER BY turn, id LIMIT 20"
            )
        ).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "idx_kie_tasks_turn" in text
    assert "Sort" not in text


async def test_the_configured_window_is_written_once_and_keeps_a_pause(shop: Shop) -> None:
    shop.provider.window_requests = 20
    await asyncio.gather(*(prepare(shop.darkroom, bundled_catalog()) for _ in range(4)))
    async with shop.database.transaction() as tx:
        await budget.pause_provider(tx, "scripted", seconds=60, reason="402")
    shop.provider.window_requests = 10
    await prepare(shop.darkroom, bundled_catalog())
    async with shop.database.transaction() as tx:
        assert (await take_budget(tx, "scripted", wanted=5)).granted == 0
        view = (await view_budgets(tx))[0]
    assert (view.window_requests, view.pause_reason) == (10, "402")


async def test_open_sets_of_one_customer_are_bounded_even_at_once(shop: Shop) -> None:
    """bugbook A26: count-then-insert let parallel requests pass."""
    customer = await shop.customer()
    for _ in range(9):
        await shop.paid(customer)
    await shop.advance(1000)
    for _ in range(5):
        await shop.paid(customer)

    async def one() -> str:
        try:
            await shop.start(customer)
        except RequestRefusedError as refusal:
            return refusal.code
        return "started"

    # The courtesy look sees nothing yet: only the claim's own statement can hold the limit.
    arrived = asyncio.Barrier(14)

    async def together(name: str) -> None:
        if name == "start.before_claim":
            await arrived.wait()

    with checkpoints_handled_by(together):
        answers = Counter(await asyncio.gather(*(one() for _ in range(14))))
    assert answers == {"started": 10, "TOO_MANY_OPEN_JOBS": 4}
    await shop.drain()
    assert await one() == "started"
    await shop.drain()


async def test_opened_payments_of_one_customer_are_bounded_even_at_once(shop: Shop) -> None:
    """bugbook E12: the limiter counted admin logins and never recorded payments."""
    customer = await shop.customer()

    async def one() -> str:
        try:
            await shop.ordered(customer)
        except RequestRefusedError as refusal:
            return refusal.code
        return "opened"

    answers = Counter(await asyncio.gather(*(one() for _ in range(15))))
    assert answers == {"opened": 10, "TOO_MANY_PAYMENTS": 5}
    await shop.advance(901)
    assert await one() == "opened"


async def test_uploads_of_one_customer_are_bounded_even_at_once(shop: Shop) -> None:
    """Refused files count as well: decoding is what costs."""
    customer = await shop.customer()
    limits = shop.darkroom.limits.model_copy(update={"uploads_max": 5})
    shop.darkroom = replace(shop.darkroom, limits=limits)

    async def one() -> str:
        try:
            await add_selfie(shop.darkroom, avatar_id=customer.avatar_id, data=picture_of(7))
        except RequestRefusedError as refusal:
            return refusal.code
        return "kept"

    answers = Counter(await asyncio.gather(*(one() for _ in range(10))))
    # One upload was the customer's first selfie.
    assert answers == {"kept": 4, "TOO_MANY_UPLOADS": 6}
    await shop.advance(3601)
    assert await one() == "kept"
    await shop.round()
    assert await shop.value("SELECT count(*) FROM upload_requests") == 1


async def test_an_answer_is_kept_although_the_budget_is_locked(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead session held the provider's row: the answer was rolled back with it, and bought once more."""
    monkeypatch.setattr(
        database_module, "SESSION_LIMITS", "SELECT set_config('lock_timeout', '100ms', FALSE)"
    )
    database = Database(dsn)
    await database.open()
    async with open_shop(database, tmp_path) as shop, AsyncExitStack() as dead:
        await shop.sold()
        await shop.rows(
            "INSERT INTO provider_budgets (provider, silent_in_a_row) VALUES ('scripted', 1) "
            "ON CONFLICT (provider) DO UPDATE SET silent_in_a_row = 1 RETURNING provider"
        )
        held = False

        async def hold(_request: GenerationRequest) -> None:
            nonlocal held
            if held:
                return
            held = True
            other = await dead.enter_async_context(await psycopg.AsyncConnection.connect(dsn))
            await other.execute("SELECT 1 FROM provider_budgets FOR UPDATE")

        shop.provider.on_create = hold
        await submit_due_tasks(shop.darkroom)
        await dead.aclose()
        known = await shop.value("SELECT count(provider_task_id) FROM task_attempts")
        assert known == len(shop.provider.created) == 7
        await shop.drain()
        assert len(shop.provider.created) == 7
        assert (await run_audit(database)).clean
    await database.close()
