"""Rows of a round that write in one transaction: none waits without need, none pays for another's fault."""

import asyncio
from collections.abc import Sequence

import pytest

from darkroom.db.database import (
    DatabaseRefusedError,
    DatabaseUnavailableError,
    RowBusyError,
)
from darkroom.flow.write_together import WriteTogether


class _Writer:
    """Notes what it was given together; its first write ends when it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.writing = asyncio.Event()
        self.let_go = asyncio.Event()
        self.bad: dict[int, Exception] = {}
        self.bad_for_all: Exception | None = None

    async def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.writing.set()
        await self.let_go.wait()
        if self.bad_for_all is not None:
            raise self.bad_for_all
        for item in items:
            if item in self.bad:
                raise self.bad[item]
        return [item * 10 for item in items]


async def test_what_comes_during_a_write_goes_together_into_the_next() -> None:
    writer = _Writer()
    async with WriteTogether(writer) as together:
        first = asyncio.create_task(together(1))
        await writer.writing.wait()
        others = [asyncio.create_task(together(item)) for item in (2, 3, 4)]
        await asyncio.sleep(0)
        writer.let_go.set()
        assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert writer.groups == [[1], [2, 3, 4]]


@pytest.mark.parametrize("error", [DatabaseRefusedError("check"), RowBusyError()])
async def test_one_row_that_is_refused_costs_the_others_nothing(error: Exception) -> None:
    writer = _Writer()
    writer.bad[3] = error
    async with WriteTogether(writer) as together:
        first = asyncio.create_task(together(1))
        await writer.writing.wait()
        others = [asyncio.create_task(together(item)) for item in (2, 3, 4)]
        await asyncio.sleep(0)
        writer.let_go.set()
        ended = await asyncio.gather(first, *others, return_exceptions=True)
    assert ended == [10, 20, error, 40]
    assert writer.groups == [[1], [2, 3, 4], [2], [3], [4]]


async def test_a_database_that_is_away_is_told_to_all_at_once() -> None:
    """Each alone would wait for it again: twenty rows, twenty times as long."""
    writer = _Writer()
    async with WriteTogether(writer) as together:
        first = asyncio.create_task(together(1))
        await writer.writing.wait()
        others = [asyncio.create_task(together(item)) for item in (2, 3)]
        await asyncio.sleep(0)
        writer.bad_for_all = away = DatabaseUnavailableError("away")
        writer.let_go.set()
        ended = await asyncio.gather(first, *others, return_exceptions=True)
    assert ended == [away, away, away]
    assert writer.groups == [[1], [2, 3]]


async def test_what_a_row_that_lost_its_lease_heard_is_written_all_the_same() -> None:
    """The round itself waits for it: a fact that only this process knows must not end with a lease."""
    writer = _Writer()
    async with WriteTogether(writer) as together:
        first = asyncio.create_task(together(1))
        await writer.writing.wait()
        second = asyncio.create_task(together(2))
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        writer.let_go.set()
    assert first.cancelled()
    assert second.cancelled()
    assert writer.groups == [[1], [2]]


@pytest.mark.parametrize("row_waits", [True, False])
async def test_a_round_that_is_cancelled_leaves_nothing_running(*, row_waits: bool) -> None:
    writer = _Writer()

    async def work() -> None:
        async with WriteTogether(writer) as together:
            row = asyncio.create_task(together(1))
            await writer.writing.wait()
            if row_waits:
                await row
            row.cancel()

    under_way = asyncio.create_task(work())
    await writer.writing.wait()
    await asyncio.sleep(0)
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)
    assert under_way.cancelled()
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"write-together"})
