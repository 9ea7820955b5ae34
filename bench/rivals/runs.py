"""Photos per second of whoever is asked, taken alike for all: from the first creation to the last photo."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.photos import (
    END_SECONDS,
    LOOK_SECONDS,
    READY_SECONDS,
    Photos,
    commits_of,
    rate,
    running,
    told_by,
)
from bench.places import look_at_tables, picture_folder
from bench.rivals.subjects import BY_NAME, WANTED_A_SET, Subject

PREPARE_SECONDS: Final = 120
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Pace:
    """One run.

    Attributes:
        photos: as `bench.photos` measures it: its rate is that of the middle of the run.
        whole_per_second: all photos, from the first task's creation at the provider to the last one stored.
        cpu_ms_each: processor time of the worker's process a photo, its start included. Busy neighbours
            change it least.
    """

    photos: Photos
    whole_per_second: float
    cpu_ms_each: float


class Worker:
    """A worker process that can be killed. Only one that was started here is ever ended."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, subject: Subject, *arguments: str, cron_seconds: float = 0) -> "Worker":
        """Start one and wait until it says that it works."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-m", *subject.worker, *arguments),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "BENCH_CRON_SECONDS": str(cron_seconds)},
        )
        if process.stdout is None:
            raise AssertionError("no output to read from")
        async with asyncio.timeout(READY_SECONDS):
            if not await process.stdout.readline():
                raise AssertionError(f"{subject.name} ended before it worked")
        return cls(process)

    def cpu_seconds(self) -> float:
        """What it has used of the processors so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    async def kill(self) -> None:
        """As when the machine dies: nothing of it runs any more when this returns."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def working(subject: Subject, *arguments: str) -> AsyncGenerator[Worker]:
    """A worker for as long as the block runs."""
    worker = await Worker.start(subject, *arguments)
    try:
        yield worker
    finally:
        if worker.process.returncode is None:
            await worker.kill()


def measure_pace(server: str, name: str, sets: int) -> Pace:
    """`sets` orders by one worker of whoever is called `name`, with the instant provider."""
    subject = BY_NAME[name]
    folder = picture_folder()
    with subject.database(server, sets) as dsn:
        subprocess.run(  # noqa: S603 - our own module
            [
                *(sys.executable, "-W", "ignore", "-m"),
                *subject.shop(dsn, folder, sets, pause_seconds=0),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=PREPARE_SECONDS,
        )
        return asyncio.run(_make(subject, dsn, folder, sets * WANTED_A_SET))


async def _make(subject: Subject, dsn: str, folder: Path, wanted: int) -> Pace:
    with psycopg.connect(dsn, autocommit=True) as one:
        look_at_tables(one)
        before = commits_of(one)
        async with running("bench.provider") as port:
            async with working(subject, dsn, str(folder), f"http://127.0.0.1:{port}") as worker:
                await _until(subject, one, wanted)
                cpu = worker.cpu_seconds()
            told = told_by(port)
            commits = commits_of(one) - before
        stored = [at for _, at in subject.rows(one)]
    first = min(told["created_at"].values())
    return Pace(
        Photos(len(stored), rate(stored), commits / len(stored), sum(told["by_token"].values())),
        whole_per_second=len(stored) / (stored[-1] - first),
        cpu_ms_each=cpu * 1000 / len(stored),
    )


async def _until(subject: Subject, one: psycopg.Connection[Any], wanted: int) -> None:
    ends_at = time.monotonic() + END_SECONDS
    while len(subject.rows(one)) < wanted:
        if time.monotonic() > ends_at:
            raise AssertionError(f"{subject.name}: the photos are not there in time")
        await asyncio.sleep(LOOK_SECONDS)
