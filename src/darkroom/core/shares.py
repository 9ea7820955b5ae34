"""Shares: a set, or one photo of it, for whoever holds a link, until a moment or until its owner ends it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class Share:
    """A share's row."""

    id: int
    user_id: int
    job_id: int
    payment_id: int
    photo_id: int | None
    style_id: str
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None


_VIEW: Final[LiteralString] = """
SELECT s.id, s.user_id, s.job_id, j.payment_id, s.photo_id, j.style_id,
       s.created_at, s.expires_at, s.ended_at
FROM photo_shares s JOIN generation_jobs j ON j.id = s.job_id
"""
_LIVE: Final[LiteralString] = """s.ended_at IS NULL AND s.expires_at > darkroom_now() AND EXISTS (
    SELECT FROM generated_photos shown JOIN avatars a ON a.id = shown.avatar_id
    WHERE shown.job_id = s.job_id AND (s.photo_id IS NULL OR shown.id = s.photo_id)
      AND shown.deleted_at IS NULL AND a.deleted_at IS NULL)
"""
"""A link that opens something: also one whose photos are deleted does not, nor does it count."""


@dataclass(frozen=True, slots=True)
class NewShare:
    """What is to be shown, and for how long. `photo_id` None: the whole set, also what comes later."""

    user_id: int
    job_id: int
    photo_id: int | None
    days: int
    request_id: UUID


async def insert_share(tx: Connection, new: NewShare, *, most: int) -> int | None:
    """A new share while its user has fewer than `most` live ones, and there is something to show.

    None: neither holds, or it is not theirs. Call it behind the user's lock: only there does the count still
    hold when the row is written.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO photo_shares (user_id, job_id, photo_id, request_id, created_at, expires_at)
            SELECT %(user_id)s, %(job_id)s, %(photo_id)s, %(request_id)s,
                   present.at, present.at + make_interval(hours => 24 * %(days)s)
            FROM (SELECT darkroom_now() AS at) present
            WHERE EXISTS (
                SELECT FROM generated_photos p JOIN avatars a ON a.id = p.avatar_id
                WHERE p.job_id = %(job_id)s AND a.user_id = %(user_id)s
                  AND p.deleted_at IS NULL AND a.deleted_at IS NULL
                  AND (%(photo_id)s::BIGINT IS NULL OR p.id = %(photo_id)s))
              AND (SELECT count(*) FROM photo_shares s WHERE s.user_id = %(user_id)s AND """
            + _LIVE
            + """) < %(most)s
            RETURNING id
            """,
            {
                "user_id": new.user_id,
                "job_id": new.job_id,
                "photo_id": new.photo_id,
                "request_id": new.request_id,
                "days": new.days,
                "most": most,
            },
        )
        return await cursor.fetchone()


async def find_share(tx: Connection, share_id: int) -> Share | None:
    """A share by its id, whoever's."""
    async with tx.cursor(row_factory=class_row(Share)) as cursor:
        await cursor.execute(_VIEW + "WHERE s.id = %s", [share_id])
        return await cursor.fetchone()


async def find_share_by_request(tx: Connection, *, user_id: int, request_id: UUID) -> Share | None:
    """The share that an earlier run of the same request left, if its commit arrived."""
    async with tx.cursor(row_factory=class_row(Share)) as cursor:
        await cursor.execute(
            _VIEW + "WHERE s.user_id = %s AND s.request_id = %s", [user_id, request_id]
        )
        return await cursor.fetchone()


async def count_live_shares(tx: Connection, *, user_id: int) -> int:
    """Links of this user that open something. Exact behind the user's lock."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM photo_shares s WHERE s.user_id = %s AND " + _LIVE, [user_id]
        )
        return int(await cursor.fetchone() or 0)


async def list_live_shares(tx: Connection, *, user_id: int, limit: int) -> list[Share]:
    """This user's shares that open something, newest first."""
    async with tx.cursor(row_factory=class_row(Share)) as cursor:
        await cursor.execute(
            _VIEW + "WHERE s.user_id = %s AND " + _LIVE + " ORDER BY s.id DESC LIMIT %s",
            [user_id, limit],
        )
        return await cursor.fetchall()


async def find_live_share(tx: Connection, share_id: int) -> Share | None:
    """A share that opens something, and whose owner is here; whoever asks."""
    async with tx.cursor(row_factory=class_row(Share)) as cursor:
        await cursor.execute(
            _VIEW
            + "JOIN users u ON u.id = s.user_id WHERE s.id = %s AND u.forget_at IS NULL AND "
            + _LIVE,
            [share_id],
        )
        return await cursor.fetchone()


async def end_share(tx: Connection, *, user_id: int, share_id: int) -> bool:
    """The link opens nothing any more. False: no such share of this user. Harmless twice."""
    ended = await tx.execute(
        "UPDATE photo_shares SET ended_at = coalesce(ended_at, darkroom_now()) "
        "WHERE id = %s AND user_id = %s",
        [share_id, user_id],
    )
    return ended.rowcount == 1


async def sweep_shares(tx: Connection, *, limit: int) -> int:
    """Forget shares that were ended or over a week ago, at most `limit` a round."""
    swept = await tx.execute(
        "DELETE FROM photo_shares WHERE id IN (SELECT id FROM photo_shares "
        "WHERE least(ended_at, expires_at) < (SELECT darkroom_now()) - INTERVAL '7 days' "
        "ORDER BY least(ended_at, expires_at) LIMIT %s)",
        [limit],
    )
    return swept.rowcount
