"""How long it takes until work that a death interrupted goes on: for every row, by the database's own word."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg

from darkroom.torture.design import Design, Held

LOOK_SECONDS: Final = 0.2
LOST_SECONDS: Final = 60
"""A row that nobody took again by now counts as this long."""
CONNECT_SECONDS: Final = 2


class Recovery:
    """Watches what was held when somebody died.

    Attributes:
        after_kill: seconds until each row that was held at the death of a process, and by nobody living, moved
            on.
        after_restart: seconds from a database that answers again to the first move made in it.
    """

    def __init__(self, design: Design, dsn: str, *, lease_seconds: float) -> None:
        self._design = design
        self._dsn = dsn
        self._lease_seconds = lease_seconds
        self._watching: set[asyncio.Task[None]] = set()
        self._database_deaths = 0
        self.after_kill: list[float] = []
        self.after_restart: list[float] = []

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """A connection of the judge's own, around the faulty network.

        Raises:
            psycopg.OperationalError: the database is away.
        """
        async with await psycopg.AsyncConnection.connect(
            self._dsn, autocommit=True, connect_timeout=CONNECT_SECONDS
        ) as connection:
            yield connection

    async def killed(self) -> None:
        """A process has just died: watch everything that is held now."""
        began = time.monotonic()
        with contextlib.suppress(psycopg.Error):
            async with self.connected() as connection:
                held = await self._design.held(connection)
            if held:
                self._watch(self._until_moved(held, began, self._database_deaths))

    def database_died(self) -> None:
        """What was watched says nothing about a process any more."""
        self._database_deaths += 1

    def database_is_back(self, *, open_work: bool) -> None:
        """It answers again: watch for the first move, if there is any work to move."""
        if open_work:
            self._watch(self._until_somebody_moves(time.monotonic(), self._database_deaths))

    async def settle(self) -> None:
        """Wait for what is still watched."""
        while self._watching:
            await asyncio.gather(*self._watching, return_exceptions=True)

    def _watch(self, work: Any) -> None:  # noqa: ANN401 - a coroutine of ours
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _until_moved(self, held: list[Held], began: float, deaths: int) -> None:
        waiting = {(one.kind, one.row_id): one.mark for one in held}
        while waiting and time.monotonic() - began < LOST_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            if self._database_deaths != deaths:
                return
            with contextlib.suppress(psycopg.Error):
                async with self.connected() as connection:
                    now = {
                        (one.kind, one.row_id): one for one in await self._design.held(connection)
                    }
                passed = time.monotonic() - began
                for key, mark in list(waiting.items()):
                    one = now.get(key)
                    if one is None or one.mark != mark:
                        del waiting[key]
                        self.after_kill.append(passed)
                    elif passed + one.lease_left_seconds > self._lease_seconds + LOOK_SECONDS:
                        # Renewed since: whoever holds it lives, and is only slow.
                        del waiting[key]
        self.after_kill += [LOST_SECONDS] * len(waiting)

    async def _until_somebody_moves(self, began: float, deaths: int) -> None:
        first: int | None = None
        while time.monotonic() - began < LOST_SECONDS and self._database_deaths == deaths:
            with contextlib.suppress(psycopg.Error):
                async with self.connected() as connection:
                    newest = await self._design.newest_move(connection)
                if first is None:
                    first = newest
                elif newest != first:
                    self.after_restart.append(time.monotonic() - began)
                    return
            await asyncio.sleep(LOOK_SECONDS)
        if self._database_deaths == deaths:
            self.after_restart.append(LOST_SECONDS)


def percentile(values: list[float], share: float) -> float | None:
    """The value below which this share of them lies (nearest rank); None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
