"""The order written for Procrastinate: a job a photo, its own retries, and the job that finds stalled jobs."""

import asyncio
from pathlib import Path
from typing import Final, cast

import psycopg
from procrastinate import App, JobContext, PsycopgConnector, RetryStrategy
from psycopg_pool import AsyncConnectionPool

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

LOOK_FOR_STALLED: Final = "* * * * *"
"""Its how-to has every ten minutes; a run would only wait for the clock. Every minute is in its favour."""


class Place:
    """What a job needs; one a process."""

    studio: Studio
    pool: AsyncConnectionPool


app: Final = App(connector=PsycopgConnector())


@app.task(name="make_photo", retry=RetryStrategy(max_attempts=RETRIES_MAX, exponential_wait=2))
async def make_photo(order_id: int, position: int) -> None:
    """One photo. It may run again from its start, so it looks first whether its task was bought already."""
    photo = Photo(order_id, position)
    known = {"order": order_id, "position": position}
    async with Place.pool.connection() as one:
        found = await (await one.execute(FIND_TASK, known)).fetchone()
    if found is None:
        task_id = await Place.studio.create(photo)
        async with Place.pool.connection() as one:
            await one.execute(KEEP_TASK, {**known, "task": task_id})
    else:
        task_id = str(found[0])
    result_url = await Place.studio.wait_for(photo, task_id)
    kept = await Place.studio.keep(photo, task_id, result_url)
    async with Place.pool.connection() as one:
        await one.execute(STORE_PHOTO, row_of(photo, task_id, kept))


@app.periodic(cron=LOOK_FOR_STALLED)
@app.task(queueing_lock="retry_stalled_jobs", pass_context=True)
async def retry_stalled_jobs(context: JobContext, timestamp: int) -> None:
    """What a dead worker held goes back into the queue; without this task it stays there for ever."""
    del context, timestamp
    for job in await app.job_manager.get_stalled_jobs():
        await app.job_manager.retry_job(job)


async def _prepare(dsn: str, orders: int, pause_seconds: float) -> None:
    """Orders that are paid, and their jobs: each payment is used up in the transaction that defers them."""
    order_ids = pay_orders(dsn, orders)
    with app.replace_connector(PsycopgConnector(conninfo=dsn)):
        async with (
            app.open_async(),
            await psycopg.AsyncConnection.connect(dsn, autocommit=True) as one,
        ):
            await app.schema_manager.apply_schema_async()
            say("ready")
            for order_id in order_ids:
                async with one.transaction():
                    row = await (await one.execute(CONSUME, [order_id])).fetchone()
                    wanted = cast("tuple[int]", row)[0]
                    await make_photo.configure(connection=one).batch_defer_async(
                        *({"order_id": order_id, "position": n} for n in range(wanted))
                    )
                await asyncio.sleep(pause_seconds)


async def _work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is told to stop."""
    Place.studio = Studio(Path(folder), base_url)
    connector = PsycopgConnector(conninfo=dsn, min_size=4, max_size=CONNECTIONS)
    with app.replace_connector(connector):
        async with (
            AsyncConnectionPool(
                dsn, kwargs={"autocommit": True}, min_size=4, max_size=CONNECTIONS
            ) as Place.pool,
            app.open_async(),
        ):
            say("working")
            await app.run_worker_async(concurrency=IN_FLIGHT)
    await Place.studio.close()


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """Orders that are paid, and their jobs."""
    del folder
    run_loop(_prepare(dsn, int(orders), float(pause_seconds)))


def work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is told to stop."""
    run_loop(_work(dsn, folder, base_url))
