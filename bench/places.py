"""Where a measurement happens: a PostgreSQL with fsync on, and databases that are filled and dropped."""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from darkroom.config import IsolatedSettings
from darkroom.db.database import Database
from darkroom.db.embedded import EmbeddedPostgres
from darkroom.db.migrate import migrate
from darkroom.flow.stock_catalog import stock_catalog
from darkroom.wiring import bundled_catalog

TEMPLATE: Final = "bench_template"
FIRST_TELEGRAM: Final = 1_000_000
PREPARE: Final = "DARKROOM_DATABASE_PREPARE"
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a folder of its own in it, as in any other
Door = Callable[[str], AbstractAsyncContextManager[str]]
"""How processes reach the database that a DSN names: gives the DSN that they get."""
CUSTOMERS: Final = """
WITH people AS (
    INSERT INTO users (telegram_user_id) SELECT %(first)s + n FROM generate_series(1, %(count)s) n
    RETURNING id
), faces AS (
    INSERT INTO avatars (user_id, name) SELECT id, 'Me' FROM people RETURNING id, user_id
), selfies AS (
    INSERT INTO reference_photos
        (avatar_id, object_key, sha256, size_bytes, content_type, width, height)
    SELECT f.id, 'references/' || f.id || '/' || n, encode(sha256((f.id || '/' || n)::BYTEA), 'hex'),
           1, 'image/jpeg', 1, 1
    FROM faces f, generate_series(1, 4) n
), keys AS (
    INSERT INTO sessions (user_id, token_sha256, expires_at, origin)
    SELECT id, encode(sha256(('token-' || id)::BYTEA), 'hex'), darkroom_now() + INTERVAL '1 day', 'telegram'
    FROM people
)
INSERT INTO payments
    (user_id, provider, status, tier_id, photo_count, amount_minor, currency, policy_id, request_id,
     succeeded_at)
SELECT f.user_id, 'sandbox', 'succeeded', 'starter', 7, 49900, 'RUB',
       (SELECT max(id) FROM refund_policies), gen_random_uuid(), darkroom_now()
FROM faces f
"""
"""Each has a Telegram id above `first`, four selfies, a session whose token is `token-{id}`, and one paid
set that nobody has started."""


@contextmanager
def open_server() -> Generator[str]:
    """A server as a newcomer has it: embedded, nothing tuned, every commit on the disk. Yields its address."""
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-"))
    server = EmbeddedPostgres(folder / "postgres")
    try:
        dsn = server.start()
        _make_template(dsn)
        yield dsn
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def picture_folder() -> Path:
    """An empty folder for pictures, removed when this process ends.

    ext4 gives a file no number that was freed in the last minutes, and looks at each of those first. Folders
    removed after each turn made the next turn's files dearer, up to four times: what no shop sees, which
    removes no thousand photos a minute.
    """
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def others_folder() -> Path:
    """An empty folder for what others keep, in memory where that is a folder; removed when this process ends.

    A bank has a disk of its own. On ours, its books' syncs would stand before an order's commits; they do where
    there is no such folder.
    """
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-", dir=MEMORY if is_there else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _make_template(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(TEMPLATE)))

    async def fill() -> None:
        database = Database(make_conninfo(dsn, dbname=TEMPLATE))
        await database.open()
        await migrate(database)
        await stock_catalog(database, bundled_catalog(), only_if_empty=True)
        await database.close()

    asyncio.run(fill())


@contextmanager
def open_database(server: str, *, customers: int) -> Generator[str]:
    """A fresh database with customers who have paid, analyzed as after a day's work; gone at the end."""
    name = f"bench_{customers}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))
        admin.execute(
            SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(TEMPLATE))
        )
    dsn = make_conninfo(server, dbname=name)
    try:
        with psycopg.connect(dsn, autocommit=True) as one:
            one.execute(CUSTOMERS, {"first": FIRST_TELEGRAM, "count": customers})
            look_at_tables(one)
            one.execute("CHECKPOINT")
        yield dsn
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))


def look_at_tables(one: psycopg.Connection[Any]) -> None:
    """What autovacuum does all day, at once: in `one`, which commits by itself, to all tables that hold rows.

    A table that was looked at while it was empty is taken for one that stays so, and plans read it from end to
    end until the server looks again. No shop sees that: autovacuum passes over what is empty.
    """
    tables = one.execute(
        "SELECT oid::REGCLASS::TEXT FROM pg_class WHERE relkind = 'r' AND relpersistence <> 't' "
        "AND relnamespace NOT IN ('pg_catalog'::REGNAMESPACE, 'information_schema'::REGNAMESPACE)"
    ).fetchall()
    for (table,) in tables:
        if one.execute(f"SELECT EXISTS (SELECT FROM {table})".encode()).fetchone() == (True,):
            one.execute(f"VACUUM ANALYZE {table}".encode())


@asynccontextmanager
async def straight(dsn: str) -> AsyncGenerator[str]:
    """The door of whoever goes to the database without a detour."""
    yield dsn


def process_settings(
    dsn: str, folder: Path, *, port: int = 8000, bank: tuple[str, str] | None = None
) -> IsolatedSettings:
    """The settings of a measured process. The environment says what a pooler asks for.

    Args:
        dsn: where rows are kept.
        folder: where pictures are kept.
        port: of the process's own server, if it has one.
        bank: the sandbox bank's address, and the secret it shares with us; None: nobody pays.
    """
    url, secret = bank or (None, None)
    return IsolatedSettings.model_validate(
        {
            "DARKROOM_SANDBOX_URL": url,
            "DARKROOM_SANDBOX_SECRET": secret,
            "DARKROOM_MODE": "demo",
            "DATABASE_URL": dsn,
            "DARKROOM_DATA_DIR": folder,
            "DARKROOM_PORT": port,
            PREPARE: os.environ.get(PREPARE, "true"),
        }
    )
