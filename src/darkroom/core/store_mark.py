"""The mark by which the object store is known: which database's photos are in it, and which store that is."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class StoreMark:
    """What the store must bear. `store_id` None: no store was noted yet."""

    database_id: UUID
    store_id: UUID | None


async def read_store_mark(tx: Connection) -> StoreMark:
    """The database's mark. Read only."""
    async with tx.cursor(row_factory=class_row(StoreMark)) as cursor:
        await cursor.execute("SELECT database_id, store_id FROM store_mark")
        mark = await cursor.fetchone()
    assert mark is not None  # noqa: S101 - its migration writes it
    return mark


async def note_store(tx: Connection, store_id: UUID, *, instead: bool = False) -> StoreMark:
    """This store is the one, unless another one was noted before, or `instead` of it. Gives what stands now."""
    async with tx.cursor(row_factory=class_row(StoreMark)) as cursor:
        await cursor.execute(
            "UPDATE store_mark SET store_id = CASE WHEN %(instead)s THEN %(id)s::UUID "
            "ELSE coalesce(store_id, %(id)s::UUID) END RETURNING database_id, store_id",
            {"id": store_id, "instead": instead},
        )
        mark = await cursor.fetchone()
    assert mark is not None  # noqa: S101 - its migration writes it
    return mark
