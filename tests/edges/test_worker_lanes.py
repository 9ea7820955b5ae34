"""What a worker does at once: work in its lanes, chores one after the other, at their own pace."""

import asyncio

import pytest

from darkroom.config import Settings
from darkroom.edges import worker as worker_module
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.receive import receive_generation_callback
from darkroom.flow.steps import CHORES, HOUSE_STEPS, WORK_STEPS, Step
from darkroom.ports.generation import Adoption
from tests.shop import Shop


def test_work_and_chores_leave_room_in_a_small_pool() -> None:
    """More lanes than connections, and whoever writes an answer down waits behind a sweep."""
    lanes = sum(step.lanes for step in (*WORK_STEPS, *HOUSE_STEPS) if step not in CHORES)
    chores, audit, renewal, listener = 1, 1, 1, 1
    pool = Settings.model_fields["database_pool_size"].default
    assert lanes + chores + audit + renewal + listener <= 0.8 * pool, "a fifth is for requests"


async def test_no_ring_wakes_a_chore_and_no_two_run_at_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most, runs = 0, 0, 0

    async def chore(_darkroom: Darkroom) -> int:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return 0

    chores = tuple(Step(f"chore-{number}", chore, 1, 60) for number in range(3))
    monkeypatch.setattr(worker_module, "CHORES", chores)
    monkeypatch.setattr(worker_module, "WORK_STEPS", ())
    monkeypatch.setattr(worker_module, "HOUSE_STEPS", chores)
    async with Worker(shop.darkroom).running():
        for _ in range(20):
            await shop.darkroom.doorbell.ring()
            await asyncio.sleep(0.02)
    assert (runs, most) == (3, 1)


async def test_a_provider_that_is_slow_to_say_whose_a_task_is_keeps_no_payment_waiting(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an order's bank says would wait as long as a call may take, and what a dead worker held with it."""
    await shop.sold()
    await shop.step("submit")
    buyer = await shop.customer()
    payment_id = await shop.ordered(buyer, order_style="signature")
    shop.bank.pays(payment_id)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(_provider_task_id: str) -> Adoption | None:
        asked.set()
        await answered.wait()
        return None

    monkeypatch.setattr(shop.provider, "whose", slow)
    (request, *_) = shop.provider.created.values()
    await receive_generation_callback(
        shop.darkroom,
        provider_name=shop.provider.name,
        token=request.token,
        provider_task_id="nobody-knows-it-yet",
    )
    async with Worker(shop.darkroom).running():
        await asyncio.wait_for(asked.wait(), 10)
        await shop.notify(payment_id)
        try:
            async with asyncio.timeout(10):
                while not await shop.value(
                    "SELECT count(*) FROM generation_jobs WHERE payment_id = %s", payment_id
                ):
                    await asyncio.sleep(0.05)
        finally:
            answered.set()
    await shop.drain()
