"""What customers' pages read is found by an index: no page grows slower with the number of customers."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import make_conninfo

from darkroom.db.database import Database
from darkroom.flow.favorites import mark_favorite, read_favorites
from darkroom.flow.read_sets import read_refunds_of
from darkroom.flow.redo_photo import redo_photo, redos_left
from darkroom.flow.share_photos import open_share, share
from tests.edges.serving import application_of, client_of
from tests.shop import open_shop

OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)
WHOLE_TABLES = "SELECT relname FROM pg_stat_user_tables WHERE seq_scan > 0 ORDER BY relname"
COUNT_NOW = "SELECT pg_stat_force_next_flush()"


async def test_no_page_reads_a_whole_table(dsn: str, tmp_path: Path) -> None:
    """bugbook H19: lists without a limit, and foreign keys without an index."""
    selling = Database(dsn)
    await selling.open()
    async with open_shop(selling, tmp_path) as shop:
        customer, job = await shop.sold()
        await shop.drain()
    await selling.close()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as looking:

        async def column(query: str) -> list[object]:
            return [row[0] for row in await (await looking.execute(query.encode())).fetchall()]

        # A connection that ends leaves its counts: these are not the pages'.
        while await column(OTHERS) != [0]:
            await asyncio.sleep(0.01)
        await looking.execute("SELECT pg_stat_reset()")
        # Where any index will do it is taken now: what still reads a whole table has none.
        reading = Database(make_conninfo(dsn, options="-c enable_seqscan=off"), pool_size=1)
        await reading.open()
        async with open_shop(reading, tmp_path) as shop, client_of(application_of(shop)) as client:
            who = {"user_id": customer.user_id}
            wish: dict[str, Any] = {
                "job_id": job.id,
                "photo_id": None,
                "days": 1,
                "request_id": uuid4(),
            }
            link = await share(shop.darkroom, **who, **wish)
            await open_share(shop.darkroom, link.url.rpartition("/")[2])
            await mark_favorite(shop.darkroom, **who, photo_id=1, favorite=True)
            await read_favorites(shop.darkroom, **who, before_id=None, limit=9)
            await redos_left(shop.darkroom, **who, job_id=job.id)
            await redo_photo(shop.darkroom, **who, photo_id=1, request_id=uuid4())
            await read_refunds_of(shop.darkroom, **who, payment_id=job.payment_id)
            for path in (
                f"/api/jobs/{job.id}",
                f"/api/payments/{job.payment_id}",
                "/api/avatars",
                f"/api/avatars/{customer.avatar_id}/photos",
                f"/api/avatars/{customer.avatar_id}/references",
                "/api/jobs",
                "/api/payments",
                "/api/shares",
            ):
                me = {"telegramUserId": customer.telegram_user_id}
                assert (await client.get(path, params=me)).status_code == 200
            await reading.fetch_value(COUNT_NOW)
            assert await column(WHOLE_TABLES) == []
            # The counting works: nothing but the whole table tells this.
            await reading.fetch_value("SELECT count(*) FROM refunds WHERE reason = 'operator'")
            await reading.fetch_value(COUNT_NOW)
            assert await column(WHOLE_TABLES) == ["refunds"]
        await reading.close()
