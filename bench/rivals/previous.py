"""The older design's loop: its model (bench/previous_design), its server and its crons in one process.

Its queue keeps its messages in a file and outlives the process, as the rented one did. Its pictures are neither
decoded nor made small nor put on the disk for sure: the older system did not.
"""

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Final

import psycopg
import uvicorn

from bench.previous_design.database import SCHEMA, Settings
from bench.previous_design.outside import Queue, open_books, open_client
from bench.previous_design.server import PreviousServer
from bench.previous_design.worker import PreviousWorker
from bench.rivals.orders import PHOTOS_AN_ORDER, say
from darkroom.edges.serve import listen_on_free_port
from darkroom.kit.log import configure_logging
from darkroom.kit.process import run_loop

CRON_SECONDS: Final = "BENCH_CRON_SECONDS"
"""Between two runs of the crons. 0 measures the loop; 1 is what the torture has for the older minute."""
KEY: Final = "bench"
CUSTOMERS: Final = """
WITH people AS (
    INSERT INTO users (telegram_user_id) SELECT n FROM generate_series(1, %(orders)s) n RETURNING id
), faces AS (
    INSERT INTO avatars (user_id, name) SELECT id, 'Me' FROM people RETURNING id, user_id
)
INSERT INTO payments (id, user_id, bank_payment_id, status, tier_id, photo_count, amount_minor,
    consumed_avatar_id)
SELECT f.id, f.user_id, f.id::TEXT, 'succeeded', 'starter', %(photos)s, 49900, f.id FROM faces f
"""
SCENES: Final = (
    "INSERT INTO pack_prompts (style_id, position, prompt) "
    "SELECT 'signature', n, 'Scene ' || n FROM generate_series(1, %s) n"
)
CONSUME: Final = (
    "UPDATE payments SET generation_consumed = TRUE, consumed_at = now() WHERE id = %s "
    "RETURNING consumed_avatar_id"
)
JOB: Final = (
    "INSERT INTO generation_jobs (payment_id, avatar_id, style_id, total_photos, used_prompt_ids) "
    "SELECT %s, %s, 'signature', count(*), array_agg(id ORDER BY id) FROM pack_prompts RETURNING id"
)


def prepare(dsn: str, folder: str, orders: str, pause_seconds: str) -> None:
    """Orders that are paid, and their jobs: each statement commits on its own, as they did."""
    books = open_books(Path(folder))
    queue = Queue(books, http=open_client(), server_url="", key=KEY)
    with psycopg.connect(dsn, autocommit=True) as one:
        one.execute(SCHEMA)
        one.execute(SCENES, [PHOTOS_AN_ORDER])
        one.execute(CUSTOMERS, {"orders": int(orders), "photos": PHOTOS_AN_ORDER})
        say("ready")
        for (payment_id,) in one.execute("SELECT id FROM payments ORDER BY id").fetchall():
            avatar = one.execute(CONSUME, [payment_id]).fetchone()
            job = one.execute(JOB, [payment_id, avatar[0] if avatar else None]).fetchone()
            queue.publish({"jobId": job[0] if job else None, "chunkStart": 0})
            time.sleep(float(pause_seconds))
    books.close()


async def _work(dsn: str, folder: str, base_url: str) -> None:
    listening = listen_on_free_port()
    port = int(listening.getsockname()[1])
    settings = Settings(
        folder=folder,
        dsn=dsn,
        server_port=port,
        server_url=f"http://127.0.0.1:{port}",
        provider_url=base_url,
        provider_key=KEY,
        bank_url=base_url,
        bank_secret=KEY,
        queue_key=KEY,
        life="bench",
        poll_seconds=float(os.environ.get(CRON_SECONDS, "0")),
    )
    server = uvicorn.Server(
        uvicorn.Config(PreviousServer(settings).app, log_config=None, access_log=False)
    )
    listening.listen(128)
    say("working")
    await asyncio.gather(server.serve(sockets=[listening]), PreviousWorker(settings).run_forever())


def work(dsn: str, folder: str, base_url: str) -> None:
    """One worker, until it is ended."""
    configure_logging("json", level=logging.ERROR)
    run_loop(_work(dsn, folder, base_url))
