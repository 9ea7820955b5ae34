"""What a worker does at once: work in its lanes, chores one after the other, at their own pace."""

import asyncio
from pathlib import Path

import pytest

from darkroom.config import Settings
from darkroom.core.audit import AUDIT_SECONDS
from darkroom.db.database import Database
from darkroom.edges import worker as worker_module
from darkroom.edges.worker import Worker, audit_pause_seconds
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.receive import receive_generation_callback
from darkroom.flow.steps import CHORES, HOUSE_STEPS, WORK_STEPS, Step
from darkroom.limits import Limits
from darkroom.ports.generation import Adoption, GenerationRequest
from tests.shop import Shop, open_shop

PHOTOS = 7


def test_work_and_chores_leave_room_in_a_small_pool() -> None:
    """More lanes than connections, and whoever writes an answer down waits behind a sweep."""
    lanes = sum(step.lanes for step in (*WORK_STEPS, *HOUSE_STEPS) if step not in CHORES)
    chores, audit, renewal, listener = 1, 1, 1, 1
    pool = Settings.model_fields["database_pool_size"].default
    assert lanes + chores + audit + renewal + listener <= 0.8 * pool, "a fifth is for requests"


def test_the_audit_of_a_large_shop_comes_seldom_enough_to_leave_room_for_its_work() -> None:
    """It reads all rows: ten million photos took 262 of the 300 s that it had, every ten minutes."""
    usual = Limits().audit_seconds
    for took_seconds in (0, 1, usual / 20):
        assert audit_pause_seconds(Limits(), took_seconds) == usual
    assert audit_pause_seconds(Limits(), 300) == pytest.approx(5700)
    assert audit_pause_seconds(Limits(), AUDIT_SECONDS) == 4 * 3600, "known the same day"
    assert AUDIT_SECONDS > 10 * 300, "the limit of one is not what stops it"


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


async def _turns() -> None:
    """From a round that found nothing into waiting, with room to spare."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_ring_from_outside_is_the_entrances_and_a_call_by_name_is_its_steps(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that find nothing would keep the one that has work from the processor, and its customer waiting."""
    looked: asyncio.Queue[str] = asyncio.Queue()

    def step_named(name: str) -> Step:
        async def look(_darkroom: Darkroom) -> int:
            looked.put_nowait(name)
            return 0

        return Step(name, look, 1, 3600)

    monkeypatch.setattr(worker_module, "BEHIND_SECONDS", 3600)
    monkeypatch.setattr(worker_module, "CHORES", ())
    monkeypatch.setattr(worker_module, "HOUSE_STEPS", ())
    steps = tuple(step_named(name) for name in ("finish", "notice"))
    monkeypatch.setattr(worker_module, "WORK_STEPS", steps)
    doorbell = shop.darkroom.doorbell
    async with asyncio.timeout(10), Worker(shop.darkroom).running():
        assert {await looked.get(), await looked.get()} == {"finish", "notice"}
        await _turns()
        await doorbell.ring()
        assert await looked.get() == "notice"
        await _turns()
        assert looked.empty()
        await doorbell.wake("finish")
        assert await looked.get() == "finish"
        monkeypatch.setattr(worker_module, "BEHIND_SECONDS", 0)


async def test_a_full_batch_calls_the_steps_other_lane(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lane is woken for a set; what it leaves does not wait until it has been answered."""
    begun, everybody = 0, asyncio.Event()

    async def hang(_request: GenerationRequest) -> None:
        nonlocal begun
        begun += 1
        if begun == PHOTOS:
            everybody.set()
        await everybody.wait()

    submit = next(step for step in WORK_STEPS if step.name == "submit")
    monkeypatch.setattr(worker_module, "WORK_STEPS", (submit._replace(idle_seconds=3600),))
    monkeypatch.setattr(worker_module, "HOUSE_STEPS", ())
    monkeypatch.setattr(worker_module, "CHORES", ())
    async with open_shop(database, tmp_path, limits=Limits(batch=PHOTOS - 1)) as shop:
        shop.provider.on_create = hang
        async with asyncio.timeout(20), Worker(shop.darkroom).running():
            await _turns()
            await shop.sold()
            await everybody.wait()
        await shop.drain()


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
