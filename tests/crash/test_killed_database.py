"""PostgreSQL itself dies, at once and under load; no worker is restarted, and nothing is missing after."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from darkroom.core.audit import run_audit
from darkroom.db.database import Database, DatabaseUnavailableError
from darkroom.db.embedded import EmbeddedPostgres
from darkroom.db.migrate import migrate
from darkroom.flow.stock_catalog import stock_catalog
from darkroom.wiring import bundled_catalog
from tests.shop import Shop, open_shop, store_folder

ORDERS = 6
DEATHS = 3


@pytest.fixture
def mortal() -> Generator[EmbeddedPostgres]:
    """A server of this test's own. It keeps fsync: this is about what a commit is worth."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-test-"))
    server = EmbeddedPostgres(folder / "postgres")
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _workers(dsn: str, store: Path, count: int) -> AsyncGenerator[list[int]]:
    """Real worker processes; yields their ids."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.crash.killed_worker", dsn, str(store), "nowhere", "1",
            stdout=asyncio.subprocess.DEVNULL,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        yield [process.pid for process in processes]
        assert all(process.returncode is None for process in processes), "a worker gave up"
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _photos(shop: Shop) -> int:
    """How many there are now; the database may be away for a moment."""
    while True:
        try:
            return int(await shop.value("SELECT count(*) FROM generated_photos"))
        except DatabaseUnavailableError:
            await asyncio.sleep(0.05)


@pytest.mark.timeout(180)
async def test_a_database_that_is_killed_under_load_loses_nothing(
    mortal: EmbeddedPostgres, tmp_path: Path
) -> None:
    """bugbook C1, bugbook A2: the older poller lost what it could not write while the database was away."""
    dsn = mortal.start()
    database = Database(dsn)
    await database.open()
    await migrate(database)
    await stock_catalog(database, bundled_catalog(), only_if_empty=True)
    async with open_shop(database, tmp_path) as shop:
        for _ in range(ORDERS):
            await shop.sold()
        async with _workers(dsn, store_folder(tmp_path), 2):
            for death in range(DEATHS):
                before = await _photos(shop)
                while await _photos(shop) < min(before + 5, 7 * ORDERS - DEATHS + death):
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(mortal.crash)
                with pytest.raises(psycopg.OperationalError):
                    psycopg.connect(dsn, connect_timeout=2)
                await asyncio.to_thread(mortal.start)
            async with asyncio.timeout(120):
                while await _open_jobs(shop):
                    await asyncio.sleep(0.05)
        assert await _given_up(shop) == []
        assert await _photos(shop) == 7 * ORDERS
        assert await shop.value("SELECT count(DISTINCT payment_id) FROM generation_jobs") == ORDERS
        assert (await run_audit(database)).clean
    await database.close()


async def _open_jobs(shop: Shop) -> int:
    try:
        return int(
            await shop.value(
                "SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing')"
            )
        )
    except DatabaseUnavailableError:
        return 1


async def _given_up(shop: Shop) -> list[dict[str, object]]:
    """The photos that ended without a picture, with each attempt and its reason."""
    return await shop.rows(
        "SELECT t.id, t.status, t.last_error, a.number, a.provider_task_id, a.refusal_code, a.end_state,"
        "       a.error_code"
        "  FROM kie_tasks AS t LEFT JOIN task_attempts AS a ON a.task_id = t.id"
        " WHERE t.status <> 'completed' ORDER BY t.id, a.number"
    )
