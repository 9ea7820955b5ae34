"""Avatars: how many there are, what each holds, and when one may go."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class AvatarView:
    """An avatar as its owner sees it; `warnings` counts what its selfies were warned about."""

    id: int
    name: str
    created_at: datetime
    selfies: int
    first_selfie_id: int | None
    warnings: dict[str, int]
    last_job_id: int | None
    last_job_status: str | None
    last_job_total: int | None
    last_job_completed: int | None


async def list_avatars(
    tx: Connection, *, user_id: int, avatar_id: int | None = None
) -> list[AvatarView]:
    """The user's live avatars, oldest first; with `avatar_id` that one alone."""
    async with tx.cursor(row_factory=class_row(AvatarView)) as cursor:
        await cursor.execute(
            """
            SELECT a.id, a.name, a.created_at,
                   coalesce(held.selfies, 0) AS selfies, held.first_selfie_id,
                   (SELECT coalesce(jsonb_object_agg(w.code, w.times), '{}') FROM (
                        SELECT code, count(*) AS times
                        FROM reference_photos r,
                             LATERAL jsonb_array_elements_text(r.verdict -> 'warnings') AS code
                        WHERE r.avatar_id = a.id AND r.deleted_at IS NULL
                        GROUP BY code) w) AS warnings,
                   j.id AS last_job_id, j.status AS last_job_status,
                   j.total_photos AS last_job_total, j.completed_photos AS last_job_completed
            FROM avatars a
            LEFT JOIN LATERAL (
                SELECT count(*) AS selfies, min(r.id) AS first_selfie_id FROM reference_photos r
                WHERE r.avatar_id = a.id AND r.deleted_at IS NULL
            ) held ON TRUE
            LEFT JOIN LATERAL (
                SELECT g.id, g.status, g.total_photos, g.completed_photos FROM generation_jobs g
                WHERE g.avatar_id = a.id ORDER BY g.id DESC LIMIT 1
            ) j ON TRUE
            WHERE a.user_id = %(user_id)s AND a.deleted_at IS NULL
              AND (%(avatar_id)s::BIGINT IS NULL OR a.id = %(avatar_id)s)
            ORDER BY a.id
            """,
            {"user_id": user_id, "avatar_id": avatar_id},
        )
        return await cursor.fetchall()


async def insert_avatar(
    tx: Connection, *, user_id: int, name: str, request_id: UUID, most: int
) -> int | None:
    """A new avatar while the user has fewer than `most` live ones; None otherwise.

    Call it behind the user's lock: only there does the count still hold when the row is written.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO avatars (user_id, name, request_id)
            SELECT %(user_id)s, %(name)s, %(request_id)s
            WHERE (SELECT count(*) FROM avatars
                   WHERE user_id = %(user_id)s AND deleted_at IS NULL) < %(most)s
            RETURNING id
            """,
            {"user_id": user_id, "name": name, "request_id": request_id, "most": most},
        )
        return await cursor.fetchone()


async def find_avatar_by_request(tx: Connection, request_id: UUID) -> int | None:
    """The avatar that an earlier run of the same request left, if its commit arrived."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM avatars WHERE request_id = %s", [request_id])
        return await cursor.fetchone()


async def count_avatars_ever(tx: Connection, user_id: int) -> int:
    """How many avatars a user has had, the deleted ones too."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT count(*) FROM avatars WHERE user_id = %s", [user_id])
        return int(await cursor.fetchone() or 0)


async def rename_avatar(tx: Connection, *, user_id: int, avatar_id: int, name: str) -> bool:
    """Call it something else. False: no such live avatar of this user. Harmless twice."""
    renamed = await tx.execute(
        "UPDATE avatars SET name = %s WHERE id = %s AND user_id = %s AND deleted_at IS NULL",
        [name, avatar_id, user_id],
    )
    return renamed.rowcount == 1


async def bury_avatar(
    tx: Connection, *, user_id: int, avatar_id: int
) -> Literal["deleted", "busy", "missing"]:
    """Put a tombstone on an avatar that nothing paid for needs any more. Harmless twice.

    Busy: a set of it is being made, money of it is going back, or an order that is paid or may still
    be paid names it. Call it behind the user's lock: every claim of a payment, every order and every
    settled notice of the user takes the same one, so none of these can begin in between. Orders that
    came to nothing let go of the avatar: late money for one can then be spent on another.
    """
    buried = await tx.execute(
        """
        UPDATE avatars a SET deleted_at = darkroom_now()
        WHERE a.id = %(avatar_id)s AND a.user_id = %(user_id)s AND a.deleted_at IS NULL
          AND NOT EXISTS (SELECT FROM generation_jobs j
                          WHERE j.avatar_id = a.id AND j.status IN ('pending', 'processing'))
          AND NOT EXISTS (SELECT FROM refunds r
                          JOIN payments p ON p.id = r.payment_id
                          WHERE p.user_id = a.user_id
                            AND a.id IN (p.consumed_avatar_id, p.order_avatar_id)
                            AND r.status IN ('requested', 'sending', 'unknown'))
          AND NOT EXISTS (SELECT FROM payments p
                          WHERE p.user_id = a.user_id AND p.order_avatar_id = a.id
                            AND NOT p.generation_consumed AND p.status IN ('pending', 'succeeded'))
        """,
        {"avatar_id": avatar_id, "user_id": user_id},
    )
    if buried.rowcount == 1:
        await tx.execute(
            "UPDATE payments SET order_avatar_id = NULL, order_style_id = NULL, "
            "updated_at = darkroom_now() "
            "WHERE user_id = %s AND order_avatar_id = %s AND NOT generation_consumed "
            "AND status IN ('canceled', 'expired')",
            [user_id, avatar_id],
        )
        return "deleted"
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT CASE WHEN deleted_at IS NULL THEN 'busy' ELSE 'deleted' END "
            "FROM avatars WHERE id = %s AND user_id = %s",
            [avatar_id, user_id],
        )
        return await cursor.fetchone() or "missing"
