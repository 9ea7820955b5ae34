"""No rival: the same photos made and put away by a loop that remembers nothing. What the others cannot pass."""

import asyncio
import time
from pathlib import Path

import psycopg

from bench.rivals.orders import IN_FLIGHT, PHOTOS_AN_ORDER, Photo, Studio, pay_orders, say
from darkroom.kit.process import run_loop

AT_THE_END = (
    "INSERT INTO photos (order_id, position, provider_task_id, object_key, sha256, size_bytes, thumbnail_key, "
    "stored_at) VALUES (%s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))"
)


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """Orders that are paid, all at once."""
    del folder, pause_seconds
    pay_orders(dsn, int(orders))
    say("ready")


async def _work(dsn: str, folder: str, base_url: str) -> None:
    studio = Studio(Path(folder), base_url)
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def make(photo: Photo) -> tuple[object, ...]:
        async with turns:
            task_id = await studio.create(photo)
            kept = await studio.keep(photo, task_id, await studio.wait_for(photo, task_id))
        place = (photo.order_id, photo.position, task_id)
        return (
            *(*place, kept.object_key, kept.sha256, kept.size_bytes, kept.thumbnail_key),
            time.time(),
        )

    async with await psycopg.AsyncConnection.connect(dsn) as one:
        orders = await (await one.execute("SELECT id FROM orders")).fetchall()
        say("working")
        photos = [Photo(int(row[0]), n) for row in orders for n in range(PHOTOS_AN_ORDER)]
        rows = await asyncio.gather(*(make(photo) for photo in photos))
        await one.cursor().executemany(AT_THE_END, rows)
    await studio.close()
    await asyncio.Event().wait()


def work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is ended."""
    run_loop(_work(dsn, folder, base_url))
