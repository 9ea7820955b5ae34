"""Behind a real PgBouncer in transaction mode: a session is anybody's, and prepared statements are nobody's."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from darkroom.core.audit import run_audit
from darkroom.db.database import Database, DatabaseRefusedError, DatabaseUnavailableError
from darkroom.db.embedded import server_owner
from darkroom.db.migrate import list_migrations, migrate
from darkroom.edges.worker import Worker
from darkroom.twin.pgbouncer import pgbouncer
from tests.shop import open_shop

ORDERS = 4
SERVERS = 3
"""Fewer than the lanes of one worker: connections are handed from lane to lane between any two transactions."""


@asynccontextmanager
async def _pooler(dsn: str) -> AsyncGenerator[str]:
    # Not in pytest's folder: that one is closed to the server's own user.
    folder = Path(tempfile.mkdtemp(prefix="darkroom-pgbouncer-"))
    try:
        async with pgbouncer(dsn, folder, owner=server_owner(), servers_max=SERVERS) as address:
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def pooled(dsn: str) -> AsyncGenerator[str]:
    """This test's database through a pooler of its own."""
    async with _pooler(dsn) as address:
        yield address


@asynccontextmanager
async def _open(dsn: str, *, prepare: bool) -> AsyncGenerator[Database]:
    database = Database(dsn, pool_size=20, prepare_statements=prepare)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def test_whole_orders_end_well_behind_a_pooler(pooled: str, tmp_path: Path) -> None:
    """bugbook G22: behind a pooler, statements of one transaction went to different sessions."""
    async with _open(pooled, prepare=False) as database, open_shop(database, tmp_path) as shop:
        for _ in range(ORDERS):
            await shop.sold()
        async with Worker(shop.darkroom).running(), asyncio.timeout(60):
            while await shop.value(
                "SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')"
            ):
                await asyncio.sleep(0.05)
        assert set(await shop.statuses()) == {"completed"}
        assert await shop.value("SELECT count(*) FROM generated_photos") == 7 * ORDERS
        assert (
            await shop.value(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'darkroom'"
            )
            <= SERVERS
        )
        report = await run_audit(database)
        assert report.clean, report.findings


async def test_migrations_pass_a_pooler(empty_database: Database) -> None:
    async with (
        _pooler(empty_database.dsn) as address,
        _open(address, prepare=False) as first,
        _open(address, prepare=False) as second,
    ):
        # Two at once: the lock is a transaction's, not a session's.
        applied = await asyncio.gather(migrate(first), migrate(second))
        assert sum(applied) == len(list_migrations())
        assert (await run_audit(first)).clean


async def test_limits_are_those_of_each_transaction(pooled: str) -> None:
    """Set for a session, they would be the next client's, or the last one's."""
    async with _open(pooled, prepare=False) as database:
        async with database.transaction() as tx:
            row = await (await tx.execute("SHOW lock_timeout")).fetchone()
        assert row == ("5s",)
        assert await database.fetch_value("SHOW lock_timeout") == "0"


async def test_with_prepared_statements_the_same_pooler_breaks_us(pooled: str) -> None:
    """The setting removed: DARKROOM_DATABASE_PREPARE is not there for nothing."""
    async with _open(pooled, prepare=True) as database:

        async def ask() -> None:
            for number in range(40):
                async with database.transaction() as tx:
                    await tx.execute("SELECT %s::INT + 1", [number])

        with pytest.raises((DatabaseRefusedError, DatabaseUnavailableError)):
            await asyncio.gather(*(ask() for _ in range(2 * SERVERS)))
