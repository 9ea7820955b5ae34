"""A process of ours that can vanish in the middle: no `finally`, no rollback, no word to the server.

Each process has an event loop of its own. To vanish is to stop that loop for good: every task in it stands
still where it was, with its locks, leases and connections. Then the server drops the connections, as it does
with those of a machine that died, and the next process begins with nothing of this one's memory.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
import uvloop
from psycopg.conninfo import conninfo_to_dict

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.db.database import Database, DatabaseUnavailableError
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.kit.outside import outside_call
from tests.crash.places import BEFORE_COMMIT, DONE, Form, Place, site_of_caller
from tests.scripted import ScriptedBank, ScriptedProvider
from tests.shop import Shop, open_shop

T = TypeVar("T")
TERMINATE_SECONDS: Final = 20
"""A backend ends at its next look for interrupts: milliseconds, or seconds on a machine that is busy."""
END_THOSE_CONNECTED: Final = """
SELECT pg_terminate_backend(pid)
  FROM pg_stat_activity
 WHERE datname = %s AND backend_type = 'client backend'
"""
TRIES: Final = 3
"""The first may die, the second find what the dead one held, the third is answered. Each further crash
meanwhile may cost one more."""
STEP_SECONDS: Final = 60
"""A step of a story that takes longer hangs."""


class VanishedError(Exception):
    """The process is gone; what it was doing will never be known to it."""


class _PublishingDoorbell(LocalDoorbell):
    """Publishes as the queue's does, between the same two checkpoints, and nobody gets the message."""

    async def ring(
        self, job_id: int | None = None, *, step: str = "", after_seconds: float = 0
    ) -> None:
        async with outside_call("qstash.publish", timeout_seconds=STEP_SECONDS):
            await super().ring(job_id, step=step, after_seconds=after_seconds)


class Crash:
    """What strikes once at each of its places, at the `visit`-th time that the place is passed.

    Without a place it never strikes. With several it strikes several times in one telling.

    Attributes:
        struck: the places where it has happened, in order.
    """

    def __init__(self, *places: Place, visit: int = 1) -> None:
        self.struck: list[Place] = []
        self._visits_left = dict.fromkeys(places, visit)

    @property
    def happened(self) -> bool:
        """Whether it struck anywhere yet."""
        return bool(self.struck)

    @property
    def missed(self) -> list[Place]:
        """The places where it has not happened."""
        return list(self._visits_left)

    def strikes(self, name: str) -> Place | None:
        """The place that is struck now. Counts the visit."""
        here = [place for place in self._visits_left if place.checkpoint == name]
        if here and name in (BEFORE_COMMIT, DONE):
            site = site_of_caller()
            here = [place for place in here if place.site == site]
        for place in here:
            self._visits_left[place] -= 1
            if self._visits_left[place] == 0:
                del self._visits_left[place]
                self.struck.append(place)
                return place
        return None


class Process:
    """One process: a loop, a pool, a Darkroom. The outsides are not its own."""

    def __init__(self, world: "World") -> None:
        self._loop = uvloop.new_event_loop()
        self._stack = AsyncExitStack()
        self._gone = False
        self._world = world
        self.shop = self._loop.run_until_complete(self._open())

    async def _open(self) -> Shop:
        shop = await self._stack.enter_async_context(self._world.open_shop())
        shop.offset_seconds = self._world.offset_seconds
        return shop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, or to the end of the process.

        Raises:
            VanishedError: the process vanished on the way.
        """
        try:
            with checkpoints_handled_by(self._at):
                return self._loop.run_until_complete(asyncio.wait_for(work, STEP_SECONDS))
        except RuntimeError:
            if self._gone:
                raise VanishedError from None
            raise

    async def _at(self, name: str) -> None:
        self._world.passed[name] += 1
        place = self._world.crash.strikes(name)
        if place is None:
            return
        if place.form is Form.VANISH:
            self._gone = True
            self._loop.stop()
            await self._loop.create_future()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def bury(self) -> None:
        """Give back what the machine lent. Only after the verdict: what was frozen comes loose here."""
        if not self._gone:
            self._loop.run_until_complete(self._stack.aclose())
        self._loop.run_until_complete(_end_every_task())
        if self._gone:
            self._loop.run_until_complete(self._world.let_go(self.shop))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _end_every_task() -> None:
    """Cancelling once is not enough for all: the pool's worker takes a cancelled connect for a failed one."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=0.1)


class World:
    """What outlives a process: the database, the files, the outsides, the time, and the graves.

    Attributes:
        passed: how often each checkpoint was passed, by all processes.
    """

    def __init__(self, dsn: str, server: str, folder: Path, crash: Crash) -> None:
        self.dsn = dsn
        self.folder = folder
        self.crash = crash
        self.provider = ScriptedProvider()
        self.bank = ScriptedBank()
        self.offset_seconds = 0.0
        self.passed: Counter[str] = Counter()
        self._server = server
        self._graves: list[Process] = []
        self.process = Process(self)

    @asynccontextmanager
    async def open_shop(self) -> AsyncGenerator[Shop]:
        """What a process consists of."""
        database = Database(self.dsn, pool_size=8)
        await database.open()
        try:
            async with open_shop(
                database, self.folder, provider=self.provider, bank=self.bank
            ) as shop:
                shop.darkroom = replace(shop.darkroom, doorbell=_PublishingDoorbell())
                yield shop
        finally:
            await database.close()

    async def let_go(self, shop: Shop) -> None:
        """Close what a process that vanished had open beside the database. A scripted outside is nothing."""

    @property
    def shop(self) -> Shop:
        """The living process's hands."""
        return self.process.shop

    def attempt(self, work: Callable[[Shop], Awaitable[object]]) -> None:
        """Do something once, and go on if the process vanished or answered "not now, ask again".

        After a process that vanished there is a new one.
        """

        async def go() -> None:
            await work(self.shop)

        try:
            self.process.run(go())
        except VanishedError:
            self._replace_process()
        except (DatabaseUnavailableError, psycopg.OperationalError):
            pass

    def insist(self, work: Callable[[Shop], Awaitable[T]]) -> T:
        """Do it as the outside does: again, when there was no answer."""
        heard: list[T] = []

        async def listen(shop: Shop) -> None:
            heard.append(await work(shop))

        before = len(self.crash.struck)
        tries = 0
        while tries < TRIES + max(0, len(self.crash.struck) - before - 1):
            self.attempt(listen)
            if heard:
                return heard[0]
            tries += 1
        raise AssertionError(f"no answer, {tries} times, after {self.crash.struck[before:]}")

    def restart(self) -> None:
        """A new process takes the place of the living one, which leaves in order."""
        self.offset_seconds = self.shop.offset_seconds
        self.process.bury()
        self.process = Process(self)

    def _replace_process(self) -> None:
        self.offset_seconds = self.shop.offset_seconds
        self._graves.append(self.process)
        name = conninfo_to_dict(self.dsn)["dbname"]
        with psycopg.connect(self._server, autocommit=True) as admin:
            end_every_connection(admin, name)
        self.process = Process(self)

    def close(self) -> None:
        """After the verdict."""
        # A process whose successor could not begin is in its grave already.
        for process in {self.process, *self._graves}:
            process.bury()
        self._graves.clear()


def end_every_connection(admin: psycopg.Connection[Any], name: object) -> None:
    """Drop a database's connections, as the server does with those of a machine that died.

    All are told, and then waited for: asked to wait, the server looks at each only every 100 ms. They are told
    again at each look: one that the process had just asked for appears only now.
    """
    ends_at = time.monotonic() + TERMINATE_SECONDS
    while admin.execute(END_THOSE_CONNECTED, [name]).fetchall():
        assert time.monotonic() < ends_at, "a backend does not end"
        time.sleep(0.002)


@contextlib.contextmanager
def world(dsn: str, server: str, folder: Path, crash: Crash) -> Generator[World]:
    """A world that ends with the block."""
    made = World(dsn, server, folder, crash)
    try:
        yield made
    finally:
        made.close()
