"""The order written for DBOS: a workflow an order, a child workflow a photo, a step for each call outside."""

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig, run_dbos_database_migrations
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from bench.rivals.orders import (
    ASK_SECONDS,
    CONNECTIONS,
    CONSUME,
    IN_FLIGHT,
    RETRIES_MAX,
    STORE_PHOTO,
    Kept,
    Photo,
    Studio,
    pay_orders,
    row_of,
    say,
)
from darkroom.kit.process import run_loop

ORDERS_AT_ONCE: Final = 12
"""Two for each that has its photos in hand: the photos' queue never runs dry, and few workflows wait."""
LOOK_SECONDS: Final = 0.1
"""Between two looks at a queue; its default of a second would leave places empty, so this is in its favour."""
ENQUEUE: Final = (
    "SELECT dbos.enqueue_workflow('make_order', 'orders', ARRAY[%s::JSON, %s::JSON], "
    "workflow_id => %s)"
)
STORE: Final = text(STORE_PHOTO.replace("%(", ":").replace(")s", ""))


class Place:
    """What a step needs; one a process."""

    studio: Studio
    database: AsyncSQLAlchemyDatasource


@DBOS.step(retries_allowed=True, max_attempts=RETRIES_MAX)
async def create(order_id: int, position: int) -> str:
    """At least once: whoever dies between the provider's answer and the checkpoint buys again."""
    return await Place.studio.create(Photo(order_id, position))


@DBOS.step(retries_allowed=True, max_attempts=RETRIES_MAX)
async def ask(order_id: int, position: int, task_id: str) -> str | None:
    """One question."""
    return await Place.studio.ask(Photo(order_id, position), task_id)


@DBOS.step(retries_allowed=True, max_attempts=RETRIES_MAX)
async def keep(order_id: int, position: int, task_id: str, result_url: str) -> Kept:
    """Fetched, decoded, and on the disk."""
    return await Place.studio.keep(Photo(order_id, position), task_id, result_url)


async def store(row: dict[str, Any]) -> None:
    """The photo's row; its checkpoint commits with it."""
    await Place.database.sql_session().execute(STORE, row)


@DBOS.workflow(name="make_photo")
async def make_photo(order_id: int, position: int) -> None:
    """One photo, from its task to its row."""
    task_id = await create(order_id, position)
    while (result_url := await ask(order_id, position, task_id)) is None:
        await DBOS.sleep_async(ASK_SECONDS)
    kept = await keep(order_id, position, task_id, result_url)
    row = row_of(Photo(order_id, position), task_id, kept)
    await Place.database.run_tx_step_async(
        {"name": "store", "isolation_level": "READ COMMITTED"}, store, row
    )


@DBOS.workflow(name="make_order")
async def make_order(order_id: int, photo_count: int) -> None:
    """All photos of one order."""
    photos = await DBOS.retrieve_queue_async("photos")
    handles = [
        await photos.enqueue_async(make_photo, order_id, position)
        for position in range(photo_count)
    ]
    for handle in handles:
        await handle.get_result()


def _url(dsn: str) -> str:
    """What SQLAlchemy calls an address that libpq knows in its own form."""
    parts = conninfo_to_dict(dsn)
    return (
        f"postgresql+psycopg://{parts['user']}@/{parts['dbname']}?host={quote(str(parts['host']))}"
    )


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """Orders that are paid; each payment is used up in the transaction that enqueues its workflow."""
    del folder
    order_ids = pay_orders(dsn, int(orders))
    run_dbos_database_migrations(_url(dsn))
    say("ready")
    with psycopg.connect(dsn, autocommit=True) as one:
        for order_id in order_ids:
            with one.transaction():
                row = one.execute(CONSUME, [order_id]).fetchone()
                wanted = row[0] if row else 0
                one.execute(
                    ENQUEUE, [json.dumps(order_id), json.dumps(wanted), f"order-{order_id}"]
                )
            time.sleep(float(pause_seconds))


async def _work(dsn: str, folder: str, base_url: str) -> None:
    Place.studio = Studio(Path(folder), base_url)
    Place.database = await AsyncSQLAlchemyDatasource.create(
        _url(dsn), engine_kwargs={"pool_size": CONNECTIONS}
    )
    config: DBOSConfig = {
        "name": "orders",
        "system_database_url": _url(dsn),
        "sys_db_pool_size": CONNECTIONS,
        "log_level": "ERROR",
        # One name for the worker and for whoever takes its place: then it recovers what the dead one held.
        "executor_id": "worker-1",
        "application_version": "1",
    }
    DBOS(config=config)
    DBOS.launch()
    await DBOS.register_queue_async(
        "orders", worker_concurrency=ORDERS_AT_ONCE, polling_interval_sec=LOOK_SECONDS
    )
    await DBOS.register_queue_async(
        "photos", worker_concurrency=IN_FLIGHT, polling_interval_sec=LOOK_SECONDS
    )
    say("working")
    await asyncio.Event().wait()


def work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is ended."""
    logging.disable(logging.INFO)
    run_loop(_work(dsn, folder, base_url))
