"""What many rows of a round have to write at once goes into one transaction.

The first is written at once, alone; whatever comes while it is being written goes together into the next. An
idle worker waits for nobody, a busy one waits for the disk once for many rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from darkroom.db.database import DatabaseRefusedError, RowBusyError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Waiting = tuple[Item, asyncio.Future[Outcome]]


class WriteTogether(Generic[Item, Outcome]):
    """Use as a context manager around one round; call it with what a row has to write.

    Args:
        write: one transaction for all it is given, at most the rows of the round; its outcomes in the same
            order. After an error nothing of it was kept, or all was and writing again is harmless.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]) -> None:
        self._write = write
        self._waiting: list[Waiting[Item, Outcome]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Nothing runs yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What was handed over is written before the round ends, also for rows that stopped waiting.

        A round that is cancelled, because its process stops, cancels the writing, too.
        """
        if self._writing is None:
            return
        try:
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.wait([self._writing])
        finally:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def __call__(self, item: Item) -> Outcome:
        """Written, with its outcome. Cancelled while it waits, the item is written all the same.

        Raises:
            Exception: what `write` raised for this item, or for all that were written with it.
        """
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, outcome))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="write-together")
        return await outcome

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await self._write_group(group)
            except (DatabaseRefusedError, RowBusyError):
                # One row is refused, or in somebody's hands: the others must not pay for it.
                for one in group:
                    await self._write_alone(one)

    async def _write_group(self, group: Sequence[Waiting[Item, Outcome]]) -> None:
        """Raises only what may be one row's fault; of one row alone, nothing."""
        try:
            outcomes = await self._write([item for item, _ in group])
        except (DatabaseRefusedError, RowBusyError) as error:
            if len(group) > 1:
                raise
            _fail(group, error)
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait
            _fail(group, error)
        except BaseException:
            for _, waiter in group:
                waiter.cancel()
            raise
        else:
            for (_, waiter), outcome in zip(group, outcomes, strict=True):
                if not waiter.done():
                    waiter.set_result(outcome)

    async def _write_alone(self, one: Waiting[Item, Outcome]) -> None:
        await self._write_group([one])


def _fail(group: Sequence[Waiting[Item, Outcome]], error: Exception) -> None:
    for _, waiter in group:
        if not waiter.done():
            waiter.set_exception(error)
