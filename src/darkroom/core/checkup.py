"""Is the database one that Darkroom can keep its promises on?"""

import time
from typing import Any, Final

from psycopg.rows import dict_row

from darkroom.db.database import Database, DatabaseRefusedError, DatabaseUnavailableError
from darkroom.db.migrate import list_migrations
from darkroom.ports.checkup import Finding, doubtful, well, wrong

VERSION_MIN: Final = 150_000
CLOCKS_SECONDS: Final = 5
"""Leases and deadlines are the database's; what is signed is ours: farther apart, signatures are refused."""
REPEATS: Final = 7
"""psycopg prepares a statement after five runs: a pooler that loses them fails at the sixth or seventh."""
_STATE: Final = """
SELECT current_setting('server_version_num')::INTEGER AS version,
       current_setting('server_version') AS name,
       current_setting('transaction_read_only') AS read_only,
       current_setting('max_connections')::INTEGER AS connections_max,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       extract(epoch FROM clock_timestamp())::FLOAT8 AS unix_seconds,
       to_regclass('schema_migrations') IS NOT NULL AS migrated
"""


async def examine_database(database: Database, *, pool_size: int) -> Finding:
    """Version, writes, durability, clock, prepared statements, and whether the schema is this program's."""
    try:
        began = time.monotonic()
        state = await _read(database)
        took_ms = (time.monotonic() - began) * 1000
        applied = await _applied(database) if state["migrated"] else {}
        for _ in range(REPEATS):
            await database.fetch_value("SELECT %s::INTEGER", [1])
    except DatabaseUnavailableError as error:
        return wrong(f"does not answer: {error}", "DATABASE_URL: host, port, user, firewall?")
    except DatabaseRefusedError as error:
        return wrong(
            f"refuses: {str(error).splitlines()[0]}",
            "behind a pooler without prepared statements set DARKROOM_DATABASE_PREPARE=false",
        )
    return (
        _what_is_wrong(state)
        or _what_is_missing(applied)
        or _what_is_doubtful(state, pool_size)
        or well(f"PostgreSQL {state['name']}, {len(applied)} migrations, {took_ms:.0f} ms away")
    )


async def _read(database: Database) -> dict[str, Any]:
    async with (
        database.connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute(_STATE)
        row = await cursor.fetchone()
    if row is None:
        raise DatabaseUnavailableError("it said nothing")
    # The answer is about half a round trip old; that is milliseconds.
    return {**row, "skew_seconds": row["unix_seconds"] - time.time()}


async def _applied(database: Database) -> dict[int, str]:
    async with database.connection() as connection:
        rows = await (
            await connection.execute("SELECT version, sha256 FROM schema_migrations")
        ).fetchall()
    return dict(rows)


def _what_is_wrong(state: dict[str, Any]) -> Finding | None:
    if state["version"] < VERSION_MIN:
        return wrong(f"PostgreSQL {state['name']} is too old", "PostgreSQL 15 or newer")
    if state["read_only"] != "off":
        return wrong("only reads", "DATABASE_URL must name the primary")
    if state["fsync"] != "on" or state["synchronous_commit"] == "off":
        return wrong("may forget what it committed", "fsync = on and synchronous_commit = on")
    return None


def _what_is_missing(applied: dict[int, str]) -> Finding | None:
    ours = list_migrations()
    missing = [one.version for one in ours if one.version not in applied]
    if missing:
        return wrong(f"{len(missing)} migrations are missing", "darkroom migrate")
    if any(applied[one.version] != one.sha256 for one in ours):
        return wrong("a migration was edited after it was applied", "install what was applied")
    if len(applied) > len(ours):
        return wrong("the schema is newer than this program", "install the newer program")
    return None


def _what_is_doubtful(state: dict[str, Any], pool_size: int) -> Finding | None:
    if abs(state["skew_seconds"]) > CLOCKS_SECONDS:
        return doubtful(
            f"its clock and ours are {state['skew_seconds']:.0f} s apart", "NTP on both machines"
        )
    if pool_size * 2 > state["connections_max"]:
        return doubtful(
            f"takes {state['connections_max']} connections, one process may open {pool_size}",
            "a smaller DARKROOM_DATABASE_POOL_SIZE, or a pooler",
        )
    return None
