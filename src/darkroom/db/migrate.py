"""Numbered SQL files, forward only, safe twice and by two processes at once."""

import hashlib
import re
from collections.abc import Callable
from importlib.resources import files
from typing import Final, LiteralString, NamedTuple, cast

from psycopg.errors import LockNotAvailable
from psycopg.sql import SQL

from darkroom.db.database import Connection, Database, RowBusyError

LOCK_KEY: Final = 0x6461726B726F6F6D
"""'darkroom' in ASCII: the advisory lock that lets one process migrate at a time."""
MIGRATE_SECONDS: Final = 300
"""One file, waiting for another process's turn included."""
TRIES: Final = 12
"""Of one file: it waits 5 s for a table each time, a minute in all. Who waits for a table holds up all who come
after, so it is asked for anew and not waited for longer."""
_NAME: Final = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")


class Migration(NamedTuple):
    """One file: its number, its name, its text."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hash that is kept, so that an edited file is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class TableBusyError(RowBusyError):
    """Somebody reads a table that a file changes, for longer than the file waits. Nothing was changed."""


class MigrationChangedError(Exception):
    """A file that was applied before has another text now."""


def list_migrations() -> list[Migration]:
    """All files, by number."""
    found: list[Migration] = []
    for entry in files("darkroom.db").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return sorted(found)


async def migrate(database: Database, report: Callable[[str], None] = lambda _line: None) -> int:
    """Apply what is missing; each file is one transaction. Returns how many were applied.

    A crash between two files leaves the first ones applied and recorded; calling again goes on. A table that
    somebody reads for longer than a file waits (an audit, a dump) is asked for again, TRIES times.

    Raises:
        TableBusyError: it is still read.
        RowBusyError: another process migrates, and does not end.
        MigrationChangedError: an applied file was edited since.
        DatabaseUnavailableError: no database.
    """
    applied = 0
    async with database.transaction(timeout_seconds=MIGRATE_SECONDS) as tx:
        await _lock(tx)
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, "
            "applied_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())"
        )
    for migration in list_migrations():
        if await _apply_in_time(database, migration, report):
            applied += 1
            report(f"✓ Migration {migration.version:03} complete")
    return applied


async def _apply_in_time(
    database: Database, migration: Migration, report: Callable[[str], None]
) -> bool:
    for _ in range(TRIES - 1):
        try:
            return await _apply(database, migration)
        except TableBusyError:
            report(f"… Migration {migration.version:03} waits: somebody reads its table")
    return await _apply(database, migration)


async def _lock(tx: Connection) -> None:
    """Wait for whoever migrates; a file sets its own limits after this."""
    await tx.execute("SELECT set_config('lock_timeout', '120s', TRUE)")
    await tx.execute("SELECT set_config('statement_timeout', '120s', TRUE)")
    await tx.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])


async def _apply(database: Database, migration: Migration) -> bool:
    async with database.transaction(timeout_seconds=MIGRATE_SECONDS) as tx:
        await _lock(tx)
        known = await (
            await tx.execute(
                "SELECT sha256 FROM schema_migrations WHERE version = %s", [migration.version]
            )
        ).fetchone()
        if known is not None:
            if known[0] != migration.sha256:
                raise MigrationChangedError(
                    f"migration {migration.version:03}_{migration.name} was edited after it was applied"
                )
            return False
        # The text is a file of this package, not something a person typed.
        try:
            await tx.execute(SQL(cast("LiteralString", migration.sql)))
        except LockNotAvailable as error:
            raise TableBusyError from error
        await tx.execute(
            "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.sha256],
        )
        return True
