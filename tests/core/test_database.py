"""The pool under load and loss: one lost connection must not cost the others, and waiting must not cost any."""

import asyncio
from contextlib import AsyncExitStack, suppress

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.config import IsolatedSettings
from darkroom.db import database as database_module
from darkroom.db.database import Connection, Database, DatabaseUnavailableError
from darkroom.twin.faulty_network import FaultyNetwork


async def _pid(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def _pids(database: Database, count: int) -> set[int]:
    """The servers' ends of so many connections, used side by side."""
    async with AsyncExitStack() as stack:
        return {
            await _pid(await stack.enter_async_context(database.connection())) for _ in range(count)
        }


async def test_waiting_in_vain_closes_nothing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that was only busy was emptied, so that the next had to wait longer: it fed itself."""
    monkeypatch.setattr(database_module, "CONNECT_SECONDS", 0.05)
    database = Database(dsn, pool_size=2)
    monkeypatch.setattr(database_module, "CONNECT_SECONDS", 5)
    await database.open()
    before = set[int]()
    while len(before) < 2:
        try:
            before = await _pids(database, 2)
        except DatabaseUnavailableError:
            continue  # 0.05 s are short for a first connection
    async with database.connection(), database.connection():
        for _ in range(3):
            with pytest.raises(DatabaseUnavailableError):
                async with database.connection():
                    raise AssertionError("there are only two")
    assert await _pids(database, 2) == before
    await database.close()


@pytest.mark.parametrize("has_sessions", [True, False])
async def test_a_statement_waits_for_a_row_no_longer_than_we_may(
    dsn: str, *, has_sessions: bool
) -> None:
    """Behind a pooler there is no session to keep a limit: a write of one statement brings it along."""
    database = Database(dsn, prepare_statements=has_sessions)
    await database.open()
    async with database.statement() as connection:
        limits = await (
            await connection.execute(
                "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
            )
        ).fetchone()
    await database.close()
    assert limits == ("5s", "15s")


async def test_a_restart_is_one_drain_and_a_lost_connection_costs_itself(dsn: str) -> None:
    database = Database(dsn, pool_size=3)
    await database.open()
    first = await _pids(database, 3)

    async def lose(connection: Connection) -> None:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [await _pid(connection)])
        await connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailableError):
        async with database.connection() as connection:
            await lose(connection)
    second = await _until_fresh(database, first)
    with pytest.raises(DatabaseUnavailableError):
        async with database.connection() as connection:
            await lose(connection)
    third = await _pids(database, 3)
    assert len(second & third) == 2, "the pool was drained again for one loss"
    await database.close()


async def _until_fresh(database: Database, old: set[int]) -> set[int]:
    """Drained in the background: soon nobody of before is left."""
    while True:
        now = await _pids(database, 3)
        if not now & old:
            return now


@pytest.mark.parametrize("checks", [True, False])
async def test_a_process_that_was_frozen_begins_with_connections_that_live(
    dsn: str, server: str, *, checks: bool
) -> None:
    """A managed database that slept closes what a frozen process holds; its first request was answered 503.

    More than the library tries, one after the other, before it gives up.
    """
    database = Database(dsn, pool_size=6, check_before_use=checks)
    await database.open()
    try:
        asleep = await _pids(database, 6)
        with psycopg.connect(server, autocommit=True) as admin:
            for pid in asleep:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        if checks:
            async with database.connection() as connection:
                assert await _pid(connection) not in asleep
        else:
            # The guard removed.
            with pytest.raises(DatabaseUnavailableError):
                await database.fetch_value("SELECT 1")
    finally:
        await database.close()


async def test_a_connection_that_died_unnoticed_has_committed_nothing(dsn: str) -> None:
    """The driver ends a block on a dead connection without a word, as if it had committed.

    Whoever passes over an error inside of a transaction must not be told that the work is kept.
    """
    database = Database(dsn, pool_size=2)
    await database.open()

    async def pass_over_the_loss() -> None:
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE kept ()")
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [await _pid(tx)])
            with suppress(psycopg.Error):
                await tx.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailableError):
        await pass_over_the_loss()
    assert await database.fetch_value("SELECT to_regclass('kept')") is None
    await database.close()


async def test_of_several_hosts_the_pool_finds_the_one_that_takes_writes(
    dsn: str, server: str
) -> None:
    """A primary that died, and one that was demoted: no restart, no other setting than the DSN.

    What a real cluster does is measured (bench/failover.py); this is what the pool needs of it.
    """
    first, second = FaultyNetwork.to_postgres(dsn), FaultyNetwork.to_postgres(dsn)
    async with second, AsyncExitStack() as stack:
        async with first:
            hosts = make_conninfo(
                first.dsn, host="127.0.0.1,127.0.0.1", port=f"{first.port},{second.port}"
            )
            settings = IsolatedSettings.model_validate(
                {"DARKROOM_MODE": "demo", "DATABASE_URL": hosts}
            )
            assert settings.database_url is not None
            database = Database(settings.database_url.get_secret_value(), pool_size=3)
            await database.open()
            stack.push_async_callback(database.close)
            await database.ping()
            assert (bool(first.seen), bool(second.seen)) == (True, False)
            first.cut_all()
        await _until_it_pings(database)
        assert second.seen

        await _only_reading(dsn, server, is_on=True)
        second.cut_all()
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()
        await _only_reading(dsn, server, is_on=False)
        await _until_it_pings(database)


async def _until_it_pings(database: Database) -> None:
    async with asyncio.timeout(20):
        while True:
            with suppress(DatabaseUnavailableError):
                await database.ping()
                return
            await asyncio.sleep(0.02)


async def _only_reading(dsn: str, server: str, *, is_on: bool) -> None:
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(
                Identifier(name), SQL("on") if is_on else SQL("off")
            )
        )


async def test_what_an_order_needs_stays_prepared(dsn: str) -> None:
    """The library keeps a hundred statements; an order, a worker's looks and the pages are more."""
    database = Database(dsn, pool_size=1)
    await database.open()
    async with database.connection() as one:
        for _ in range(2):
            for number in range(150):
                await one.execute(SQL("SELECT %s::INTEGER + {}").format(number), [1])
    assert await _prepared(database) == 150
    await database.close()


async def _prepared(database: Database) -> int:
    async with database.connection() as one:
        row = await (
            await one.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
        ).fetchone()
    assert row is not None
    return int(row[0])
