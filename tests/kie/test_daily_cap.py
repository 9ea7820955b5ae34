"""A day's credits are a hard limit, however many processes spend them; the photos wait for tomorrow."""

import asyncio
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from darkroom.adapters.generation.kie import KieTerms
from darkroom.core import budget
from darkroom.core.budget import set_window, take_budget
from darkroom.core.tasks import claim_queued
from darkroom.db.database import RowBusyError
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.watch_providers import watch_providers
from tests.kie.conftest import KieShop, events
from tests.shop import Shop

MIDNIGHT = (
    "SELECT extract(epoch FROM date_trunc('day', darkroom_now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' "
    "+ INTERVAL '1 day' - darkroom_now())::FLOAT8"
)


async def _new_day(shop: Shop) -> None:
    await shop.advance(await shop.value(MIDNIGHT) + 1)


def _sample(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"provider": "kie"})


async def test_creations_stop_at_the_days_limit_and_go_on_the_next_day(
    kie_shop: KieShop, log_lines: list[MutableMapping[str, Any]]
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await _new_day(shop)
    twin.habits.asks_to_finish = 1
    await kie_shop.use(kie_shop.kie(terms=KieTerms(day_credits_max=100)))
    # Sold shortly before midnight, so that the set's hour reaches into the next day.
    await shop.advance(86_400 - 1200)
    _, job = await shop.sold()
    for _ in range(3):
        await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(4)))
        await shop.round()
    assert twin.tasks_created == 5, "five at 18 are 90: a sixth would be over"
    await watch_providers(shop.darkroom)
    assert "the day's credits are spent" in events(log_lines)
    assert _sample("darkroom_provider_day_credits") == 90
    assert _sample("darkroom_provider_day_capped_photos") == 2
    waiting = await shop.rows("SELECT attempts, last_error FROM kie_tasks WHERE status = 'queued'")
    assert waiting == [{"attempts": 0, "last_error": None}] * 2
    await _new_day(shop)
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    await watch_providers(shop.darkroom)
    assert _sample("darkroom_provider_day_capped_photos") == 0


async def test_a_raised_limit_lets_the_photos_go_on(kie_shop: KieShop) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await kie_shop.use(kie_shop.kie(terms=KieTerms(day_credits_max=40)))
    _, job = await shop.sold()
    for _ in range(3):
        await shop.round()
    assert twin.tasks_created == 2
    await kie_shop.use(kie_shop.kie(terms=KieTerms(day_credits_max=400)))
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"


async def test_a_photo_that_waits_past_its_hour_is_paid_back_as_always(kie_shop: KieShop) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await kie_shop.use(kie_shop.kie(terms=KieTerms(day_credits_max=10)))
    _, job = await shop.sold()
    await shop.round()
    await shop.advance(3601)
    await shop.step("finish")
    assert (await shop.job(job.id))["status"] == "failed"
    assert twin.tasks_created == 0


async def test_what_failed_there_or_was_refused_makes_room_again(kie_shop: KieShop) -> None:
    """Each attempt counts as expected until its cost is known, then as that."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await kie_shop.use(kie_shop.kie(terms=KieTerms(day_credits_max=18 * 7)))
    twin.habits.asks_to_finish = None
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await twin.fail(next(iter(twin.tasks)), "500")
    twin.habits.asks_to_finish = 1
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert twin.credits_spent == 18 * 7


async def test_a_dearer_day_than_expected_stops_as_soon_as_its_costs_are_known(
    kie_shop: KieShop,
) -> None:
    """What is under way counts as expected: a price set too low overshoots by that much, and no more."""
    shop, twin = kie_shop.shop, kie_shop.twin
    terms = KieTerms(day_credits_max=100, price_credits=10)
    await kie_shop.use(kie_shop.kie(terms=terms))
    twin.habits.price_credits = 24
    twin.habits.asks_to_finish = 1
    shop.darkroom = replace(
        shop.darkroom, limits=shop.darkroom.limits.model_copy(update={"batch": 1})
    )
    await shop.sold()
    for _ in range(20):
        await shop.round()
        await shop.advance(3)
    # Three known ones and an open one: 3 x 24 + 10 leaves room for one more; then all are known.
    assert twin.credits_spent == 120
    await kie_shop.use(kie_shop.kie())
    await shop.drain()


async def test_a_day_belongs_to_the_account_not_to_its_models(kie_shop: KieShop) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    terms = KieTerms(day_credits_max=100)
    second = kie_shop.kie(name="kie:nano-banana-2", model="nano-banana-2", terms=terms)
    await kie_shop.use(kie_shop.kie(terms=terms), second)
    await shop.sold()
    await shop.rows(
        "UPDATE kie_tasks SET provider = 'kie:nano-banana-2' WHERE id %% 2 = %s RETURNING id", 0
    )
    for _ in range(3):
        await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(4)))
    assert twin.tasks_created == 5
    await kie_shop.use(kie_shop.kie(), second)
    await shop.rows("UPDATE provider_budgets SET day_credits_max = NULL RETURNING provider")
    await shop.drain()


async def _spent_by_two(shop: Shop) -> int:
    """Two processes claim under one limit; each keeps its transaction open until both have, or cannot."""
    both = asyncio.Barrier(2)
    claimed = 0

    async def rival() -> None:
        nonlocal claimed
        try:
            async with shop.database.transaction() as tx:
                await tx.execute("SELECT set_config('lock_timeout', '300ms', TRUE)")
                budget = await take_budget(
                    tx, "scripted", wanted=20, model="script", price_credits=1
                )
                await both.wait()
                tasks = await claim_queued(
                    tx,
                    provider="scripted",
                    limit=budget.granted,
                    lease_seconds=10,
                    model="script",
                    price_credits=1,
                )
                claimed += len(tasks)
        except RowBusyError:
            await both.wait()

    await asyncio.gather(rival(), rival())
    return claimed


async def _limited(shop: Shop, credits_max: float) -> None:
    async with shop.database.connection() as tx:
        await set_window(tx, "scripted", requests=None, seconds=10, day_credits_max=credits_max)
    await shop.sold(tier="premium")


async def test_two_processes_at_once_do_not_spend_more_than_the_day_has(shop: Shop) -> None:
    await _limited(shop, 5)
    assert await _spent_by_two(shop) == 5
    await shop.rows("UPDATE provider_budgets SET day_credits_max = NULL RETURNING provider")
    await shop.drain()


async def test_twin_without_the_lock_two_processes_overshoot(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed from the code itself: both count the same day."""
    await _limited(shop, 5)
    unlocked = budget.LOCK_BUDGET.replace(" FOR NO KEY UPDATE", "")
    assert unlocked != budget.LOCK_BUDGET
    monkeypatch.setattr(budget, "LOCK_BUDGET", unlocked)
    assert await _spent_by_two(shop) == 10, "the twin must fail"
    shop.audit_at_end = False
