"""Files on their way through the object store: each has a row before it can be there, until it is gone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """One promised file."""

    id: UUID
    object_key: str
    file_name: str


async def promise_uploads(
    tx: Connection, *, user_id: int, avatar_id: int, file_names: Sequence[str], seconds: float
) -> list[DirectUpload]:
    """Rows for files that may come within so many seconds, in the order of their names."""
    async with tx.cursor(row_factory=class_row(DirectUpload)) as cursor:
        await cursor.execute(
            """
            WITH wish AS (
                SELECT gen_random_uuid() AS id, name, place
                FROM unnest(%(names)s::TEXT[]) WITH ORDINALITY AS w (name, place)
            ), made AS (
                INSERT INTO direct_uploads (id, user_id, avatar_id, file_name, ends_at)
                SELECT id, %(user_id)s, %(avatar_id)s, name,
                       darkroom_now() + make_interval(secs => %(seconds)s)
                FROM wish RETURNING id, object_key, file_name
            )
            SELECT made.* FROM made JOIN wish USING (id) ORDER BY wish.place
            """,
            {
                "names": list(file_names),
                "user_id": user_id,
                "avatar_id": avatar_id,
                "seconds": seconds,
            },
        )
        return await cursor.fetchall()


async def find_uploads(
    tx: Connection, *, user_id: int, avatar_id: int, ids: Sequence[UUID]
) -> list[DirectUpload]:
    """Those of this user's promised files that are named, in that order; others are left out."""
    async with tx.cursor(row_factory=class_row(DirectUpload)) as cursor:
        await cursor.execute(
            "SELECT u.id, u.object_key, u.file_name "
            "FROM unnest(%s::UUID[]) WITH ORDINALITY AS w (id, place) "
            "JOIN direct_uploads u USING (id) "
            "WHERE u.user_id = %s AND u.avatar_id = %s ORDER BY w.place",
            [list(ids), user_id, avatar_id],
        )
        return await cursor.fetchall()


ENDED_WINDOW: Final = 1000
"""The oldest that a round chooses from."""


async def list_ended_uploads(
    tx: Connection, *, grace_seconds: float, limit: int
) -> list[DirectUpload]:
    """Files whose address has been dead for so long that no put to it can be under way.

    Some of the oldest, in any order: those that the store will not delete cannot stop those behind them.
    """
    async with tx.cursor(row_factory=class_row(DirectUpload)) as cursor:
        await cursor.execute(
            "SELECT * FROM (SELECT id, object_key, file_name FROM direct_uploads "
            "WHERE ends_at < (SELECT darkroom_now()) - make_interval(secs => %s) "
            "ORDER BY ends_at LIMIT %s) ended ORDER BY random() LIMIT %s",
            [grace_seconds, ENDED_WINDOW, limit],
        )
        return await cursor.fetchall()


async def drop_upload(tx: Connection, upload_id: UUID) -> None:
    """The object is gone; so is its row."""
    await tx.execute("DELETE FROM direct_uploads WHERE id = %s", [upload_id])
