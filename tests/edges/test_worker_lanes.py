"""What a worker does at once: work in its lanes, chores one after the other, at their own pace."""

import asyncio

import pytest

from darkroom.config import Settings
from darkroom.edges import worker as worker_module
from darkroom.edges.worker import Worker
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.steps import CHORES, HOUSE_STEPS, WORK_STEPS, Step
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
