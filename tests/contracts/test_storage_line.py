"""What is put into a bucket shares the line to it: as much at once as passes within one request's time."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from darkroom.adapters.storage import open_s3
from darkroom.adapters.storage_line import SMALL_BYTES, Line, LineFullError
from darkroom.adapters.storage_s3 import S3Place
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.storage import StorageUnavailableError
from darkroom.twin.store_faults import StoreProxy

MB = 1_000_000
PUT = "storage.put"
REQUEST_SECONDS = 12


class VirtualLine:
    """A line of so many bytes a second, in virtual time: all that are under way have equal shares.

    Attributes:
        now: seconds.
        most: the most that was under way at once.
    """

    def __init__(self, bytes_per_second: float, *, wait_seconds: float = 30) -> None:
        self.bytes_per_second = bytes_per_second
        self.now = 0.0
        self.most = 0
        self.kept: list[int] = []
        self.lost = 0
        self._left: dict[int, float] = {}
        self.line = Line(
            request_seconds=REQUEST_SECONDS, wait_seconds=wait_seconds, clock=lambda: self.now
        )

    async def put(self, number: int, size: int) -> None:
        """Once: kept, or cut off after a request's time."""
        async with self.line.room(size, PUT):
            self._left[number] = size
            self.most = max(self.most, sum(1 for left in self._left.values() if left > 0))
            ends = self.now + REQUEST_SECONDS
            try:
                while self._left[number] > 0 and self.now < ends:
                    await asyncio.sleep(0)
                if self._left[number] > 0:
                    self.lost += 1
                    raise TimeoutError
                self.kept.append(number)
            finally:
                del self._left[number]

    @asynccontextmanager
    async def flowing(self) -> AsyncGenerator[None]:
        """Time passes, a tenth of a second at each turn of the loop."""

        async def flow() -> None:
            while True:
                self.now += 0.1
                share = self.bytes_per_second * 0.1 / max(len(self._left), 1)
                for number in self._left:
                    self._left[number] -= share
                for _ in range(4):  # whoever is through leaves, and the next one comes
                    await asyncio.sleep(0)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            task.cancel()

    async def put_until_kept(self, number: int, size: int) -> None:
        """As a step of the pipeline does: again after a timeout."""
        while True:
            try:
                return await self.put(number, size)
            except TimeoutError:
                continue


async def test_twenty_photos_of_a_batch_are_kept_two_or_three_at_a_time() -> None:
    """All at once, each of them took 40 s of the 12 that it had, and none was ever kept."""
    virtual = VirtualLine(2.5 * MB)
    async with virtual.flowing():
        await asyncio.gather(*(virtual.put(number, 5 * MB) for number in range(20)))
    assert virtual.kept == list(range(20))
    assert virtual.most == 3
    assert 40 < virtual.now < 44


async def test_a_line_slower_than_thought_is_learned_and_everything_kept() -> None:
    virtual = VirtualLine(0.5 * MB)
    async with virtual.flowing():
        await asyncio.gather(*(virtual.put_until_kept(number, 5 * MB) for number in range(10)))
    assert sorted(virtual.kept) == list(range(10))
    assert virtual.lost <= 5  # three that began together, and two
    assert virtual.line.room_bytes < 10 * MB


async def test_those_who_fail_together_narrow_it_once_and_never_to_nothing() -> None:
    virtual = VirtualLine(1)
    first = virtual.line.room_bytes
    async with virtual.flowing():
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(_fails(virtual, number, first // 3))
        assert virtual.line.room_bytes == first // 2
        for number in range(9):
            await _fails(virtual, number, 20 * MB)
    assert virtual.line.room_bytes == first // 16


async def test_a_fast_line_is_used_and_grows_while_others_wait() -> None:
    virtual = VirtualLine(100 * MB)
    first = virtual.line.room_bytes
    async with virtual.flowing():
        await asyncio.gather(*(virtual.put(number, 2 * MB) for number in range(200)))
    assert virtual.kept == sorted(virtual.kept)
    assert first < virtual.line.room_bytes <= 2 * first
    assert virtual.now < 6


async def test_what_is_small_waits_for_nobody() -> None:
    virtual = VirtualLine(1)
    async with virtual.line.room(20 * MB, PUT), virtual.line.room(SMALL_BYTES, PUT):
        pass
    with transaction_marked(), pytest.raises(TransactionOpenError):
        async with virtual.line.room(SMALL_BYTES, PUT):
            pass


async def test_who_waits_too_long_or_leaves_takes_no_room_with_them() -> None:
    virtual = VirtualLine(1, wait_seconds=0.02)
    line = virtual.line
    async with line.room(20 * MB, PUT):
        left = asyncio.create_task(virtual.put(1, 5 * MB))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(LineFullError):
            await virtual.put(2, 5 * MB)
    let_in = asyncio.create_task(virtual.put(3, 10 * MB))
    async with line.room(20 * MB, PUT):
        waits = asyncio.create_task(virtual.put(4, 10 * MB))
        await asyncio.sleep(0)
    # Let in and gone in the same turn.
    waits.cancel()
    let_in.cancel()
    await asyncio.gather(left, waits, let_in, return_exceptions=True)
    async with asyncio.timeout(1), line.room(8 * MB, PUT), line.room(8 * MB, PUT):
        pass


async def test_a_batch_over_a_narrow_uplink_is_kept_at_the_first_try(
    s3_place: S3Place, proxy: StoreProxy
) -> None:
    proxy.uplink_bytes_per_second = 4 * MB
    storage = open_s3(replace(s3_place, endpoint=proxy.endpoint), request_seconds=1)
    photos = {
        f"p/{number:02}": random.Random(number).randbytes(300_000)  # noqa: S311 - to repeat a run
        for number in range(20)
    }
    await asyncio.gather(
        *(storage.put_once(key, data, "image/jpeg") for key, data in photos.items())
    )
    assert proxy.seen["PUT"] == len(photos)
    assert await storage.list_keys("p") == sorted(photos)


async def test_no_turn_on_the_line_is_a_store_that_is_not_there_now(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_s3(s3_place)
    line = Line(request_seconds=12, wait_seconds=0.01)
    monkeypatch.setattr(storage, "_line", line)
    async with line.room(20 * MB, PUT):
        with pytest.raises(StorageUnavailableError, match="LineFullError"):
            await storage.put_once("k", bytes(SMALL_BYTES + 1), "image/jpeg")
        await storage.put_once("k", b"small", "image/jpeg")


async def _fails(virtual: VirtualLine, number: int, size: int) -> None:
    with pytest.raises(TimeoutError):
        await virtual.put(number, size)
