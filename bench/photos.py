"""Photos: the whole way from started sets to stored photos, with an instant provider and local storage."""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.places import Door, look_at_tables, open_database, picture_folder, straight
from darkroom.core.audit import run_audit
from darkroom.core.jobs import CLAIM_PAYMENT, REFERENCES_MAX
from darkroom.db.database import Database

PHOTOS_A_SET: Final = 7
READY_SECONDS: Final = 30
END_SECONDS: Final = 300
"""A run that takes longer hangs."""
LOOK_SECONDS: Final = 0.25
MIDDLE: Final = (0.1, 0.9)
"""The rate is that of the photos between these: starting and running dry are not what is asked about."""


@dataclass(frozen=True, slots=True)
class Photos:
    """What one run measured.

    Attributes:
        commits_each: transactions committed a photo, those of looking for work included.
        bought: provider tasks created for all photos; more than the photos means bought twice.
    """

    stored: int
    per_second: float
    commits_each: float
    bought: int


@asynccontextmanager
async def running(*arguments: str, ready: bool = True) -> AsyncGenerator[str]:
    """A process of ours, from its first line to the end of the block. Yields that line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-m", *arguments, stdout=subprocess.PIPE
    )
    if process.stdout is None:
        raise AssertionError("no output to read from")
    try:
        line = b""
        if ready:
            async with asyncio.timeout(READY_SECONDS):
                line = await process.stdout.readline()
            if not line:
                raise AssertionError(f"{arguments[0]} ended before it was ready")
        yield line.decode().strip()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def start_sets(dsn: str, count: int | None = None) -> int:
    """Start every customer's set with the product's own statement; returns how many."""
    values = {
        "style_id": "signature",
        "payment_id": None,
        "provider": "kie",
        "open_jobs_max": None,
        "references_max": REFERENCES_MAX,
    }
    with psycopg.connect(dsn) as one:
        waiting = one.execute(
            "SELECT a.user_id, a.id, gen_random_uuid() FROM avatars a JOIN payments p ON p.user_id = a.user_id "
            "WHERE NOT p.generation_consumed ORDER BY a.id LIMIT %s",
            [count],
        ).fetchall()
        for user_id, avatar_id, request_id in waiting:
            one.execute(
                CLAIM_PAYMENT,
                {
                    **values,
                    "user_id": user_id,
                    "avatar_id": avatar_id,
                    "request_id": request_id,
                },
            )
    return len(waiting)


def told_by(port: str) -> dict[str, Any]:
    """What the instant provider was asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/told", timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def measure_ours(server: str, sets: int, *, workers: int = 1, door: Door = straight) -> Photos:
    """`sets` started sets, made by `workers` processes of ours. The audit is clean at the end.

    The sets are started when every worker is up: a process that starts takes cores from those that work.
    """
    folder = picture_folder()
    with open_database(server, customers=sets) as dsn:
        return asyncio.run(_make(dsn, folder, workers, door))


async def _make(dsn: str, folder: Path, workers: int, door: Door) -> Photos:
    with psycopg.connect(dsn, autocommit=True) as one:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(running("bench.provider"))
            address = await stack.enter_async_context(door(dsn))
            for _ in range(workers):
                await stack.enter_async_context(
                    running("bench.worker", address, str(folder), f"http://127.0.0.1:{port}")
                )
            before = commits_of(one)
            wanted = start_sets(dsn) * PHOTOS_A_SET
            look_at_tables(one)
            await until_stored(one, wanted)
            commits = commits_of(one) - before
            bought = sum(told_by(port)["by_token"].values())
        await _audit(dsn)
        stored = one.execute(
            "SELECT extract(epoch FROM created_at)::FLOAT8 FROM generated_photos ORDER BY 1"
        ).fetchall()
    return Photos(len(stored), rate([at for (at,) in stored]), commits / len(stored), bought)


async def _audit(dsn: str) -> None:
    database = Database(dsn, pool_size=2)
    await database.open()
    report = await run_audit(database)
    await database.close()
    if not report.clean:
        raise AssertionError(f"the audit found something: {report.findings}")


async def until_stored(one: psycopg.Connection[Any], wanted: int) -> None:
    """Wait for so many photos, or more. Raises AssertionError: not in time."""
    ends_at = time.monotonic() + END_SECONDS
    while stored_photos(one) < wanted:
        if time.monotonic() > ends_at:
            raise AssertionError("the photos are not there in time")
        await asyncio.sleep(LOOK_SECONDS)


def stored_photos(one: psycopg.Connection[Any]) -> int:
    """Photos whose rows are there."""
    found = one.execute("SELECT count(*) FROM generated_photos").fetchone()
    return 0 if found is None else int(found[0])


def rate(stored_at: Sequence[float]) -> float:
    """Photos per second in the middle of a run, from the sorted times at which they were stored."""
    first, last = (int(len(stored_at) * share) for share in MIDDLE)
    return (last - first) / (stored_at[last] - stored_at[first])


def commits_of(one: psycopg.Connection[Any]) -> int:
    """Transactions committed in this database so far."""
    one.execute("SELECT pg_stat_force_next_flush()")
    found = one.execute(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    ).fetchone()
    return 0 if found is None else int(found[0])
