"""What is lost, bought twice and doubled when a worker is killed, and how long what it held lies there.

The same for all: kie.ai takes about a minute for a photo and a second to say that it has a task; here both are
sixty times shorter. At moments that a seed draws the worker is killed with SIGKILL and another one started at
once, as a supervisor does.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.photos import running, told_by
from bench.places import picture_folder
from bench.rivals.runs import Worker
from bench.rivals.subjects import BY_NAME, WANTED_A_SET, Place, Subject

PROVIDER_SECONDS: Final = 1
ANSWER_SECONDS: Final = PROVIDER_SECONDS / 60
PAUSE_SECONDS: Final = 1.5
"""Between two orders: at every kill there are photos in each step, and each rival can make five a second."""
CRON_SECONDS: Final = 1
"""The older design's: what the torture has for its minute."""
SHARES: Final = (0.2, 0.4, 0.6)
SHAKEN: Final = 0.06
"""How far from its share of the photos a kill may happen."""
BOUND_SECONDS: Final = 120
"""After the last kill: longer than any wait that comes from a default or from what is set here."""
STRIKES: Final = (0.0, 0.5, 1.0)
"""Parts of a photo's making after which the three kills come, in an order that is drawn: while an order is
given to the provider, while it makes the photos, when they are fetched."""
STRIKE_SHAKEN_SECONDS: Final = 0.03
PAID_SECONDS: Final = 5
"""After the time that all orders' pauses take: the last one is paid by then."""
APART_SECONDS: Final = 12
"""A kill waits for what the one before it held, but not longer than this: those who wait for minutes would have
nothing left to be killed at."""
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Killed:
    """What one run with its kills came to.

    Attributes:
        held: photos in hand at the kills: asked for at the provider and not stored. By kill.
        first_seconds: from each kill until the first photo that was held is stored.
        last_seconds: until all of them are; None: not within BOUND_SECONDS, or none was held.
        lost: photos that were paid for and never stored within BOUND_SECONDS after the last kill.
        bought_twice: tasks at the provider beyond one a photo.
        doubled: rows of photos beyond one a photo.
        orders_wrong: orders without exactly their photos, or that do not say that they are complete.
    """

    name: str
    photos: int
    held: tuple[int, ...]
    first_seconds: tuple[float | None, ...]
    last_seconds: tuple[float | None, ...]
    lost: int
    bought_twice: int
    doubled: int
    orders_wrong: int

    @property
    def kept(self) -> bool:
        """Whether every paid photo is there once and nothing was bought twice."""
        return not (self.lost or self.bought_twice or self.doubled or self.orders_wrong)


@dataclass(frozen=True, slots=True)
class _Kill:
    at: float
    held: frozenset[Place]


def measure_kills(server: str, name: str, sets: int, seed: int) -> Killed:
    """`sets` orders by one worker at a time of whoever is called `name`, killed three times."""
    return asyncio.run(kill_one(server, name, sets, seed))


async def kill_one(server: str, name: str, sets: int, seed: int) -> Killed:
    """As `measure_kills`, in a loop that may have others beside it."""
    subject = BY_NAME[name]
    lot = random.Random(f"{name}-{seed}")  # noqa: S311 - to be repeated, not to be secret
    shares = [share + lot.uniform(-SHAKEN, SHAKEN) for share in SHARES]
    strikes = [
        max(0.0, part * PROVIDER_SECONDS + lot.uniform(-1, 1) * STRIKE_SHAKEN_SECONDS)
        for part in lot.sample(STRIKES, len(STRIKES))
    ]
    folder = picture_folder()
    with (
        subject.database(server, sets) as dsn,
        psycopg.connect(dsn, autocommit=True) as one,
    ):
        shop = subject.shop(dsn, folder, sets, PAUSE_SECONDS)
        async with running(*shop):
            run = _Run(subject, one, sets * WANTED_A_SET)
            return await run.go(dsn, folder, list(zip(shares, strikes, strict=True)))


class _Run:
    def __init__(self, subject: Subject, one: psycopg.Connection[Any], wanted: int) -> None:
        self._subject = subject
        self._one = one
        self._wanted = wanted
        self._paid_by = time.monotonic() + wanted / WANTED_A_SET * PAUSE_SECONDS + PAID_SECONDS

    async def go(self, dsn: str, folder: Path, plan: list[tuple[float, float]]) -> Killed:
        kills: list[_Kill] = []
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(
                running("bench.provider", f"{PROVIDER_SECONDS}", f"{ANSWER_SECONDS}")
            )
            arguments = [dsn, str(folder), f"http://127.0.0.1:{port}"]
            if self._subject.name == "ours":
                door = await stack.enter_async_context(running("bench.rivals.door", *arguments))
                arguments.append(f"http://127.0.0.1:{door}")
            async with self._one_after_another(arguments) as next_worker:
                worker = await next_worker()
                for share, seconds in plan:
                    await self._until_stored(share * self._wanted, kills[-1:])
                    await self._until_asked(port)
                    await asyncio.sleep(seconds)
                    await worker.kill()
                    kills.append(self._killed(port))
                    worker = await next_worker()
                await self._until_ended()
                told: dict[str, int] = told_by(port)["by_token"]
        return self._count(kills, told)

    @asynccontextmanager
    async def _one_after_another(self, arguments: list[str]) -> AsyncGenerator[Any]:
        workers: list[Worker] = []

        async def start() -> Worker:
            workers.append(await Worker.start(self._subject, *arguments, cron_seconds=CRON_SECONDS))
            return workers[-1]

        try:
            yield start
        finally:
            for worker in workers:
                if worker.process.returncode is None:
                    await worker.kill()

    def _killed(self, port: str) -> _Kill:
        at = time.time()
        asked = self._subject.asked_for(self._one, told_by(port)["by_token"])
        return _Kill(at, frozenset(asked - {place for place, _ in self._subject.rows(self._one)}))

    async def _until_stored(self, photos: float, before: list[_Kill]) -> None:
        """So many photos are there, and what the kill before held is, or is late."""
        ends_at = time.monotonic() + BOUND_SECONDS
        while True:
            rows = self._subject.rows(self._one)
            there = {place for place, _ in rows}
            settled = all(
                kill.held <= there or time.time() > kill.at + APART_SECONDS for kill in before
            )
            if len(rows) >= photos and settled:
                return
            if time.monotonic() > ends_at:
                raise AssertionError(f"{self._subject.name} stands still")
            await asyncio.sleep(LOOK_SECONDS)

    async def _until_asked(self, port: str) -> None:
        """An order that was not there before is being given to the provider: it is in somebody's hands."""
        before = len(told_by(port)["by_token"])
        ends_at = time.monotonic() + BOUND_SECONDS
        while len(told_by(port)["by_token"]) == before:
            if time.monotonic() > ends_at:
                raise AssertionError(f"{self._subject.name} asks for nothing")
            await asyncio.sleep(LOOK_SECONDS / 10)

    async def _until_ended(self) -> None:
        ends_at = time.monotonic() + BOUND_SECONDS
        # Between two orders nothing is open: the last of them must have been paid.
        while time.monotonic() < self._paid_by or self._subject.count(
            self._one, self._subject.orders_open
        ):
            if time.monotonic() > ends_at:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _count(self, kills: list[_Kill], told: dict[str, int]) -> Killed:
        rows = self._subject.rows(self._one)
        stored: dict[Place, float] = {}
        for place, at in rows:
            stored.setdefault(place, at)
        asked = self._subject.asked_for(self._one, told)
        later = [sorted(stored.get(place, float("inf")) for place in kill.held) for kill in kills]
        return Killed(
            name=self._subject.name,
            photos=self._wanted,
            held=tuple(len(kill.held) for kill in kills),
            first_seconds=tuple(
                _after(kill, times[0]) if times else None
                for kill, times in zip(kills, later, strict=True)
            ),
            last_seconds=tuple(
                _after(kill, times[-1]) if times else None
                for kill, times in zip(kills, later, strict=True)
            ),
            lost=self._wanted - len(stored),
            bought_twice=sum(told.values()) - len(asked),
            doubled=len(rows) - len(stored),
            orders_wrong=self._subject.count(self._one, self._subject.orders_wrong),
        )


def _after(kill: _Kill, at: float) -> float | None:
    return None if at == float("inf") else at - kill.at
