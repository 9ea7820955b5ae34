"""Pictures that go for good: a tombstone, then the mark that their bytes are being deleted, then that they are.

From the mark on a row never lives again (a constraint says so), and no other row has its key: whoever deletes
the bytes of a marked row deletes nobody else's, however often and however late. Marks on selfies are made
behind the user's lock, like every start of a set and every replay: none can begin with a selfie that goes.
"""

from dataclasses import dataclass
from typing import Final, Literal, LiteralString

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

_IDLE: Final[LiteralString] = """
NOT EXISTS (SELECT FROM generation_jobs j
            WHERE j.avatar_id = r.avatar_id AND j.status IN ('pending', 'processing')
              AND r.id = ANY(j.reference_ids))
"""
"""No set that is being made uses the selfie."""

_OLD: Final[LiteralString] = (
    """
r.deleted_at IS NULL AND a.deleted_at IS NULL
AND r.created_at <= (SELECT darkroom_now()) - make_interval(days => %(days)s)
AND NOT EXISTS (SELECT FROM payments p
                WHERE p.user_id = a.user_id AND p.order_avatar_id = a.id
                  AND p.status = 'succeeded' AND NOT p.generation_consumed)
AND """
    + _IDLE
)
"""Its days are over, and nothing that is paid for waits for it."""

_BURIED: Final[LiteralString] = (
    """
(r.deleted_at IS NOT NULL OR a.deleted_at IS NOT NULL) AND r.erasing_at IS NULL
AND """
    + _IDLE
)
"""Its customer deleted it, or its avatar."""


OLD_SELFIES: Final[LiteralString] = (
    """
WITH oldest AS MATERIALIZED (
    -- Along their index, and no further than some: how many are due is guessed to be a third of all.
    SELECT a.user_id, r.created_at FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id
    WHERE """
    + _OLD
    + """
    ORDER BY r.created_at LIMIT %(window)s
)
SELECT user_id FROM oldest GROUP BY user_id ORDER BY min(created_at), user_id LIMIT %(limit)s
"""
)
BURIED_SELFIES: Final[LiteralString] = (
    """
SELECT user_id FROM (
    (SELECT a.user_id, r.id FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id
     WHERE r.deleted_at IS NOT NULL AND r.erased_at IS NULL AND r.erasing_at IS NULL AND """
    + _IDLE
    + """
     ORDER BY r.id LIMIT %(window)s)
    UNION ALL
    -- Of an avatar that was gone through, every selfie is marked.
    SELECT a.user_id, r.id FROM avatars a JOIN reference_photos r ON r.avatar_id = a.id
    WHERE a.deleted_at IS NOT NULL AND a.emptied_at IS NULL AND r.erasing_at IS NULL AND """
    + _IDLE
    + """
) buried
GROUP BY user_id ORDER BY min(id) LIMIT %(limit)s
"""
)
"""Two lists, each along an index of its few: an OR of both would read all selfies and all avatars each time."""


ERASABLE_WINDOW: Final = 1000
"""The oldest of each kind that a round chooses from: as many that the store does not delete, while it deletes
others, would have to lie before those behind them."""


async def list_owners_of_old_selfies(tx: Connection, *, days: int, limit: int) -> list[int]:
    """Users who have live selfies whose days are over."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(OLD_SELFIES, {"days": days, "window": ERASABLE_WINDOW, "limit": limit})
        return [int(user_id) for user_id in await cursor.fetchall()]


async def bury_old_selfies(tx: Connection, *, user_id: int, days: int) -> list[int]:
    """Take a user's selfies whose days are over away from everybody, for good, behind the user's lock."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "UPDATE reference_photos r SET deleted_at = darkroom_now(), erasing_at = darkroom_now() "
            "FROM avatars a WHERE a.id = r.avatar_id AND a.user_id = %(user_id)s AND "
            + _OLD
            + " RETURNING r.id",
            {"days": days, "user_id": user_id},
        )
        return sorted(int(selfie_id) for selfie_id in await cursor.fetchall())


async def list_owners_of_buried_selfies(tx: Connection, *, limit: int) -> list[int]:
    """Users who have deleted selfies, or avatars with some, that no set needs any more."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(BURIED_SELFIES, {"window": ERASABLE_WINDOW, "limit": limit})
        return [int(user_id) for user_id in await cursor.fetchall()]


async def begin_erasing_selfies(tx: Connection, user_id: int) -> int:
    """Mark the deleted selfies of a user that no set needs. Call it behind the user's lock."""
    marked = await tx.execute(
        "UPDATE reference_photos r SET deleted_at = coalesce(r.deleted_at, darkroom_now()), "
        "erasing_at = darkroom_now() "
        "FROM avatars a WHERE a.id = r.avatar_id AND a.user_id = %(user_id)s AND " + _BURIED,
        {"user_id": user_id},
    )
    return marked.rowcount


@dataclass(frozen=True, slots=True)
class DeletedAvatar:
    """An avatar that its customer deleted, with pictures that are not marked yet."""

    id: int
    user_id: int


_NONE_IS_MADE: Final[LiteralString] = """
NOT EXISTS (SELECT FROM generation_jobs j
            WHERE j.avatar_id = avatars.id AND j.status IN ('pending', 'processing'))
"""
"""A process of another version may have replayed a photo of it."""


async def list_avatars_to_empty(
    tx: Connection, *, grace_seconds: float, limit: int
) -> list[DeletedAvatar]:
    """Avatars that were deleted longer ago than any put takes that was under way then, and are not empty."""
    async with tx.cursor(row_factory=class_row(DeletedAvatar)) as cursor:
        await cursor.execute(
            "SELECT id, user_id FROM avatars WHERE deleted_at IS NOT NULL AND emptied_at IS NULL "
            "AND deleted_at <= (SELECT darkroom_now()) - make_interval(secs => %s) AND "
            + _NONE_IS_MADE
            + " ORDER BY deleted_at, id LIMIT %s",
            [grace_seconds, limit],
        )
        return await cursor.fetchall()


_EMPTIES: Final[tuple[LiteralString, ...]] = (
    """
    UPDATE reference_photos
    SET deleted_at = coalesce(deleted_at, darkroom_now()), erasing_at = darkroom_now()
    WHERE avatar_id = %(avatar_id)s AND erasing_at IS NULL
    """,
    # In their order first, as whoever notes what was read of them locks them.
    "SELECT FROM generated_photos WHERE avatar_id = %(avatar_id)s ORDER BY id FOR NO KEY UPDATE",
    """
    UPDATE generated_photos
    SET deleted_at = coalesce(deleted_at, darkroom_now()), erasing_at = darkroom_now(), favorite_at = NULL
    WHERE avatar_id = %(avatar_id)s AND erasing_at IS NULL
    """,
    """
    UPDATE late_photos l SET erasing_at = darkroom_now()
    FROM generation_jobs j JOIN kie_tasks t ON t.job_id = j.id
    WHERE j.avatar_id = %(avatar_id)s AND l.task_id = t.id AND l.erasing_at IS NULL
    """,
    """
    UPDATE kie_tasks t SET result_url = NULL FROM generation_jobs j
    WHERE j.avatar_id = %(avatar_id)s AND t.job_id = j.id AND t.result_url IS NOT NULL
    """,
    """
    UPDATE task_attempts x SET result_url = NULL
    FROM generation_jobs j JOIN kie_tasks t ON t.job_id = j.id
    WHERE j.avatar_id = %(avatar_id)s AND x.task_id = t.id AND x.result_url IS NOT NULL
    """,
)


async def empty_avatar(tx: Connection, avatar_id: int) -> bool:
    """Mark every picture of a deleted avatar to go, and take its name away. Call it behind its user's lock.

    No photo can come after that: no set, no photo made again and no replay begins with a deleted avatar, none
    is being made, and what comes late is marked as it comes. False: it was done before, or a set is made.
    """
    emptied = await tx.execute(
        "UPDATE avatars SET emptied_at = darkroom_now(), name = '-' "
        "WHERE id = %s AND deleted_at IS NOT NULL AND emptied_at IS NULL AND " + _NONE_IS_MADE,
        [avatar_id],
    )
    if emptied.rowcount == 1:
        for statement in _EMPTIES:
            await tx.execute(statement, {"avatar_id": avatar_id})
    return emptied.rowcount == 1


PictureKind = Literal["selfie", "photo", "late"]


@dataclass(frozen=True, slots=True)
class Erasable:
    """A marked row, and the keys of its objects."""

    kind: PictureKind
    id: int
    keys: list[str]


async def list_erasable(tx: Connection, *, limit: int) -> list[Erasable]:
    """Some marked rows whose bytes may still be there."""
    async with tx.cursor(row_factory=class_row(Erasable)) as cursor:
        await cursor.execute(
            """
            SELECT * FROM (
                (SELECT 'selfie' AS kind, id, ARRAY[object_key] AS keys FROM reference_photos
                 WHERE deleted_at IS NOT NULL AND erasing_at IS NOT NULL AND erased_at IS NULL
                 ORDER BY id LIMIT %(window)s)
                UNION ALL
                (SELECT 'photo', id, array_remove(ARRAY[object_key, thumbnail_key], NULL)
                 FROM generated_photos WHERE erasing_at IS NOT NULL AND erased_at IS NULL
                 ORDER BY id LIMIT %(window)s)
                UNION ALL
                (SELECT 'late', id, ARRAY[object_key] FROM late_photos
                 WHERE erasing_at IS NOT NULL AND erased_at IS NULL ORDER BY id LIMIT %(window)s)
            ) marked
            -- In any order: one that the store will not delete cannot stop those behind it.
            ORDER BY random() LIMIT %(limit)s
            """,
            {"window": ERASABLE_WINDOW, "limit": limit},
        )
        return await cursor.fetchall()


_MARK_ERASED: Final[dict[PictureKind, LiteralString]] = {
    # What was measured of a face goes with the face. The hash stays until its customer is forgotten: the next
    # upload of the same file must not get the same key.
    "selfie": "UPDATE reference_photos SET erased_at = darkroom_now(), upload_sha256 = NULL, dhash = NULL, "
    "verdict = '{}' WHERE id = %s AND erasing_at IS NOT NULL AND erased_at IS NULL",
    "photo": "UPDATE generated_photos SET erased_at = darkroom_now() "
    "WHERE id = %s AND erasing_at IS NOT NULL AND erased_at IS NULL",
    "late": "UPDATE late_photos SET erased_at = darkroom_now() "
    "WHERE id = %s AND erasing_at IS NOT NULL AND erased_at IS NULL",
}


async def mark_erased(tx: Connection, picture: Erasable) -> None:
    """Say that the bytes of a marked row are gone: a fact, written once, by whoever deleted them."""
    await tx.execute(_MARK_ERASED[picture.kind], [picture.id])
