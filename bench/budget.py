"""The provider's limit: how much of it is used, who waits for whom, and a thousand sets at once."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.claims import percentile
from bench.photos import PHOTOS_A_SET, commits_of, rate, running, start_sets, told_by, until_stored
from bench.places import look_at_tables, open_database, picture_folder

LIMIT: Final = (20, 10.0)
"""What kie.ai takes, and in how many seconds."""
SET_MARGIN: Final = 1.025
"""Of the window that the product keeps to: 10.25 s for kie.ai's 10, as its settings say by default."""
BIG_SETS: Final = 5
BIG_PHOTOS: Final = 23
"""The premium tier; with a small set six windows' worth of photos, a minute."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a limited provider saw.

    Attributes:
        used_share: creations, of all that its limit allowed from the first to the last window.
        most_in_window: the most creations in any span as long as the limit's; more than the limit is a 429.
        small_seconds: how long a set of 7 waited that came when five sets of 23 already waited.
        in_line_seconds: how long it would have waited behind all of them.
    """

    used_share: float
    most_in_window: int
    small_seconds: float
    in_line_seconds: float


@dataclass(frozen=True, slots=True)
class Rush:
    """A thousand sets at once.

    Attributes:
        first_p99_seconds: from the start until a set has its first photo, for the slowest hundredth.
    """

    sets: int
    per_second: float
    commits_each: float
    bought: int
    first_p50_seconds: float
    first_p99_seconds: float


def measure_budget(server: str) -> Budget:
    """Five big sets and a small one behind them, at a provider with a limit."""
    folder = picture_folder()
    with open_database(server, customers=BIG_SETS + 1) as dsn:
        with psycopg.connect(dsn) as one:
            # Before anybody has bought anything; the guard that what was bought cannot change is the product's.
            one.execute("SET session_replication_role = replica")
            one.execute(
                "UPDATE payments SET photo_count = %s, tier_id = 'premium', amount_minor = 149900 "
                "WHERE id <> (SELECT max(id) FROM payments)",
                [BIG_PHOTOS],
            )
        start_sets(dsn, BIG_SETS)
        return asyncio.run(_limited(dsn, folder))


async def _limited(dsn: str, folder: Path) -> Budget:
    requests, seconds = LIMIT
    with psycopg.connect(dsn, autocommit=True) as one:
        async with running("bench.provider") as port:
            arguments = ("", str(requests), str(seconds * SET_MARGIN))
            address = f"http://127.0.0.1:{port}"
            async with running("bench.worker", dsn, str(folder), address, *arguments):
                await until_stored(one, requests // 2)
                start_sets(dsn)
                began = time.time()
                await until_stored(one, BIG_SETS * BIG_PHOTOS + PHOTOS_A_SET)
                told = told_by(port)
        small = one.execute(
            "SELECT extract(epoch FROM max(created_at))::FLOAT8 FROM generated_photos "
            "WHERE job_id = (SELECT max(id) FROM generation_jobs)"
        ).fetchone()
    created = sorted(told["created_at"].values())
    return Budget(
        used_share=share_used(created, requests, seconds),
        most_in_window=most_within(created, seconds),
        small_seconds=(0.0 if small is None else float(small[0])) - began,
        in_line_seconds=created[-1] - began,
    )


def share_used(created: Sequence[float], requests: int, seconds: float) -> float:
    """Creations beside what the limit allows, from the first to the last one that begins a windowful."""
    windowfuls = (len(created) - 1) // requests
    took = created[windowfuls * requests] - created[0]
    return windowfuls * seconds / took


def most_within(created: Sequence[float], seconds: float) -> int:
    """The most in any span of so many seconds."""
    first, most = 0, 0
    for number, at in enumerate(created):
        while created[first] <= at - seconds:
            first += 1
        most = max(most, number - first + 1)
    return most


def measure_rush(server: str, *, sets: int = 1000) -> Rush:
    """`sets` sets that all wait when the worker starts, at a provider without a limit."""
    folder = picture_folder()
    with open_database(server, customers=sets) as dsn:
        start_sets(dsn)
        return asyncio.run(_rush(dsn, folder, sets))


async def _rush(dsn: str, folder: Path, sets: int) -> Rush:
    with psycopg.connect(dsn, autocommit=True) as one:
        look_at_tables(one)
        before = commits_of(one)
        began = time.time()
        async with running("bench.provider") as port:
            async with running("bench.worker", dsn, str(folder), f"http://127.0.0.1:{port}"):
                await until_stored(one, sets * PHOTOS_A_SET)
                commits = commits_of(one) - before
            bought = sum(told_by(port)["by_token"].values())
        stored = _column(one, "SELECT created_at FROM generated_photos ORDER BY 1")
        firsts = _column(
            one, "SELECT min(created_at) FROM generated_photos GROUP BY job_id ORDER BY 1"
        )
    return Rush(
        sets=sets,
        per_second=rate(stored),
        commits_each=commits / len(stored),
        bought=bought,
        first_p50_seconds=percentile(firsts, 0.5) - began,
        first_p99_seconds=percentile(firsts, 0.99) - began,
    )


def _column(one: psycopg.Connection[Any], query: Any) -> list[float]:  # noqa: ANN401 - a literal above
    return [at.timestamp() for (at,) in one.execute(query).fetchall()]
