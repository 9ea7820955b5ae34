"""The mark by which the object store is known: which database's photos are in it."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What the store must bear. `is_written`: it did once, so one without it is another one."""

    id: UUID
    is_written: bool


async def read_store_mark(tx: Connection) -> StoreMark:
    """The database's mark. Read only."""
    async with tx.cursor(row_factory=class_row(StoreMark)) as cursor:
        await cursor.execute("SELECT id, written_at IS NOT NULL AS is_written FROM store_mark")
        mark = await cursor.fetchone()
    assert mark is not None  # noqa: S101 - its migration writes it
    return mark


async def note_store_mark(tx: Connection) -> None:
    """The store bears the mark: from now on it must. Harmless twice."""
    await tx.execute("UPDATE store_mark SET written_at = darkroom_now() WHERE written_at IS NULL")
