"""The mark by which the object store is known: which database's photos are in it, and which store that is."""

from dataclasses import dataclass, replace
from typing import Final, LiteralString
from uuid import UUID, uuid5

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

READ: Final[LiteralString] = "database_id, store_id, server"


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What a store bears: whose it is, and which one."""

    database_id: UUID
    store_id: UUID


@dataclass(frozen=True, slots=True)
class StoreNote:
    """What the database says.

    Attributes:
        store_id: the store that it knows; None: none was noted yet.
        server: where the database was when it was noted; None: unknown.
        here: where it is now; None: that may not be read.
    """

    database_id: UUID
    store_id: UUID | None
    server: str | None
    here: str | None = None

    @property
    def is_copied(self) -> bool:
        """Whether the rows came from another server, or from another database of this one.

        Not of a replica that has taken over: it has its primary's numbers. A disk's copy has them, too, and
        is not told apart.
        """
        return None not in (self.server, self.here) and self.server != self.here

    @property
    def own_id(self) -> UUID:
        """The database's id; of a copy the one that it gets here, the same each time it is copied to here."""
        if self.is_copied:
            return uuid5(self.database_id, str(self.here))
        return self.database_id


async def read_store_note(tx: Connection) -> StoreNote:
    """The database's note, and where it is now. Read only."""
    async with tx.cursor(row_factory=class_row(StoreNote)) as cursor:
        await cursor.execute("SELECT " + READ + " FROM store_mark")
        note = await cursor.fetchone()
    assert note is not None  # noqa: S101 - its migration writes it
    return replace(note, here=await _read_server(tx))


async def _read_server(tx: Connection) -> str | None:
    """Asked for in two statements: what may not be called is refused even where it would not be called."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
        if not await cursor.fetchone():
            return None
        await cursor.execute(
            "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid "
            "FROM pg_database WHERE datname = current_database()"
        )
        return await cursor.fetchone()


async def note_store(tx: Connection, store_id: UUID, *, here: str | None) -> StoreNote:
    """This store is the one, unless another one was noted before. Gives what stands now."""
    async with tx.cursor(row_factory=class_row(StoreNote)) as cursor:
        await cursor.execute(
            "UPDATE store_mark SET store_id = coalesce(store_id, %(id)s::UUID), "
            "server = coalesce(server, %(here)s) RETURNING " + READ,
            {"id": store_id, "here": here},
        )
        note = await cursor.fetchone()
    assert note is not None  # noqa: S101 - its migration writes it
    return replace(note, here=here)


async def note_store_instead(tx: Connection, mark: StoreMark, *, here: str | None) -> StoreNote:
    """This store is the one from now on, whatever was noted before. Gives what stands now."""
    async with tx.cursor(row_factory=class_row(StoreNote)) as cursor:
        await cursor.execute(
            "UPDATE store_mark SET database_id = %(database_id)s, store_id = %(store_id)s, "
            "server = %(here)s RETURNING " + READ,
            {"database_id": mark.database_id, "store_id": mark.store_id, "here": here},
        )
        note = await cursor.fetchone()
    assert note is not None  # noqa: S101 - its migration writes it
    return replace(note, here=here)


async def note_server(tx: Connection, here: str) -> None:
    """Where the database is, for a note of before that was written down. Of many at once the first says it."""
    await tx.execute("UPDATE store_mark SET server = %s WHERE server IS NULL", [here])
