"""The order written for PgQueuer: a job a photo, retries in the database, its heartbeat for dead workers."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
from pgqueuer import PgQueuer, run
from pgqueuer.db import AsyncpgDriver
from pgqueuer.executors import DatabaseRetryEntrypointExecutor
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from psycopg.conninfo import conninfo_to_dict

from bench.rivals.orders import (
    CONNECTIONS,
    CONSUME,
    FIND_TASK,
    IN_FLIGHT,
    KEEP_TASK,
    RETRIES_MAX,
    STORE_PHOTO,
    Photo,
    Studio,
    pay_orders,
    row_of,
    say,
)
from darkroom.kit.process import run_loop

BATCH: Final = IN_FLIGHT // 2
"""The most it allows for so many jobs at once; its default is 10."""
PLACES: Final = ("order", "position", "task", "key", "sha256", "size", "thumbnail")


def _numbered(query: str, names: tuple[str, ...]) -> str:
    """The query as asyncpg wants it, its named places numbered in the order of `names`."""
    for number, name in enumerate(names, start=1):
        query = query.replace(f"%({name})s", f"${number}")
    return query


def _address(dsn: str) -> dict[str, Any]:
    """What asyncpg calls the parts of libpq's own form."""
    parts = dict(conninfo_to_dict(dsn))
    parts["database"] = parts.pop("dbname")
    return parts


FIND: Final = _numbered(FIND_TASK, PLACES[:2])
KEEP: Final = _numbered(KEEP_TASK, PLACES[:3])
STORE: Final = _numbered(STORE_PHOTO, PLACES)


async def _make_photo(pool: asyncpg.Pool, studio: Studio, photo: Photo) -> None:
    """One photo. It may run again from its start, so it looks first whether its task was bought already."""
    task_id = await pool.fetchval(FIND, photo.order_id, photo.position)
    if task_id is None:
        task_id = await studio.create(photo)
        await pool.execute(KEEP, photo.order_id, photo.position, task_id)
    result_url = await studio.wait_for(photo, task_id)
    kept = await studio.keep(photo, task_id, result_url)
    row = row_of(photo, task_id, kept)
    await pool.execute(STORE, *(row[name] for name in PLACES))


async def _prepare(dsn: str, orders: int, pause_seconds: float) -> None:
    order_ids = pay_orders(dsn, orders)
    one = await asyncpg.connect(**_address(dsn))
    queries = Queries(AsyncpgDriver(one))
    await queries.install()
    say("ready")
    for order_id in order_ids:
        async with one.transaction():
            wanted = await one.fetchval(CONSUME.replace("%s", "$1"), order_id)
            photos = [{"order_id": order_id, "position": n} for n in range(wanted)]
            await queries.enqueue(
                ["make_photo"] * wanted,
                [json.dumps(photo).encode() for photo in photos],
                [0] * wanted,
                dedupe_key=[f"{order_id}/{n}" for n in range(wanted)],
            )
        await asyncio.sleep(pause_seconds)
    await one.close()


@asynccontextmanager
async def _application(dsn: str, studio: Studio) -> AsyncGenerator[PgQueuer]:
    """The queue on a connection of its own, the handlers' statements on a pool: as its tuning page has it."""
    async with asyncpg.create_pool(**_address(dsn), min_size=4, max_size=CONNECTIONS) as pool:
        one = await asyncpg.connect(**_address(dsn))
        queue = PgQueuer.from_asyncpg_connection(one)

        @queue.entrypoint(
            "make_photo",
            executor_factory=lambda parameters: DatabaseRetryEntrypointExecutor(
                parameters=parameters,
                max_attempts=RETRIES_MAX,
                initial_delay=timedelta(seconds=1),
            ),
        )
        async def make_photo(job: Job) -> None:
            await _make_photo(pool, studio, Photo(**json.loads(job.payload or b"")))

        say("working")
        yield queue
        await one.close()


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """Orders that are paid, and their jobs: each payment is used up in the transaction that enqueues them."""
    del folder
    run_loop(_prepare(dsn, int(orders), float(pause_seconds)))


def work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is told to stop. Its dead workers' jobs are taken again after 30 s, its default."""
    logging.disable(logging.INFO)
    studio = Studio(Path(folder), base_url)
    run_loop(
        run(
            lambda: _application(dsn, studio),
            batch_size=BATCH,
            max_concurrent_tasks=IN_FLIGHT,
        )
    )
