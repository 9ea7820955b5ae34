"""Lists for a customer's own pages: their sets, what of a payment goes back, and what is sold."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row

from darkroom.core.catalog import Tier
from darkroom.db.database import Connection

REFUNDS_MAX: Final = 100
"""Refunds of one payment that a page shows. A set has at most 100 photos; most payments have none or one."""


@dataclass(frozen=True, slots=True)
class SetView:
    """A set as its owner sees it in a list.

    Attributes:
        id: the job's.
        cover_photo_id: the first photo of it that may be shown, if any is there.
        redoes_photo_id: the photo that this set of one photo makes again.
    """

    id: int
    avatar_id: int
    avatar_name: str
    style_id: str
    style_title_ru: str
    style_title_en: str
    status: str
    total_photos: int
    completed_photos: int
    created_at: datetime
    finished_at: datetime | None
    payment_id: int
    cover_photo_id: int | None
    redoes_photo_id: int | None


async def list_sets(
    tx: Connection, *, user_id: int, before_id: int | None, limit: int
) -> list[SetView]:
    """This user's sets, newest first, below `before_id`; none of a deleted avatar."""
    async with tx.cursor(row_factory=class_row(SetView)) as cursor:
        await cursor.execute(
            """
            SELECT j.id, j.avatar_id, a.name AS avatar_name, j.style_id,
                   s.title_ru AS style_title_ru, s.title_en AS style_title_en,
                   j.status, j.total_photos, j.completed_photos, j.created_at, j.finished_at, j.payment_id,
                   (SELECT p.id FROM generated_photos p
                    WHERE p.job_id = j.id AND p.deleted_at IS NULL ORDER BY p.id LIMIT 1) AS cover_photo_id,
                   paid.redoes_photo_id
            FROM generation_jobs j
            JOIN avatars a ON a.id = j.avatar_id
            JOIN users u ON u.id = a.user_id
            JOIN styles s ON s.id = j.style_id
            JOIN payments paid ON paid.id = j.payment_id
            WHERE j.user_id = %(user_id)s AND a.deleted_at IS NULL AND u.forget_at IS NULL
              AND (%(before_id)s::BIGINT IS NULL OR j.id < %(before_id)s)
            ORDER BY j.id DESC LIMIT %(limit)s
            """,
            {"user_id": user_id, "before_id": before_id, "limit": limit},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class RefundView:
    """Money of a payment on its way back, or back, as its payer sees it.

    Attributes:
        settled_minor: what of it is back for certain.
        settled_at: when the last of that came back, by the provider's books or a person's note.
        by_hand: a person paid (a part of) it by a transfer.
        photo_count: photos that it is for; 0: it is not about photos.
    """

    id: int
    reason: str
    status: str
    amount_minor: int
    settled_minor: int
    currency: str
    created_at: datetime
    settled_at: datetime | None
    by_hand: bool
    photo_count: int


async def list_refunds_of(tx: Connection, *, payment_id: int) -> list[RefundView]:
    """What goes back of a payment, oldest first, at most REFUNDS_MAX. It does not ask whose it is."""
    async with tx.cursor(row_factory=class_row(RefundView)) as cursor:
        await cursor.execute(
            """
            SELECT r.id, r.reason, r.status, r.amount_minor, r.settled_minor, r.currency, r.created_at,
                   settled.at AS settled_at, settled.by_hand,
                   (SELECT count(*) FROM refund_lines l
                    WHERE l.refund_id = r.id AND l.kind = 'shortfall') AS photo_count
            FROM refunds r,
            LATERAL (SELECT max(s.settled_at) AS at, coalesce(bool_or(s.note IS NOT NULL), FALSE) AS by_hand
                     FROM refund_settlements s WHERE s.refund_id = r.id) settled
            WHERE r.payment_id = %s ORDER BY r.id LIMIT %s
            """,
            [payment_id, REFUNDS_MAX],
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class StyleView:
    """A style that is sold; `prompt_count` pictures of it are all different."""

    id: str
    title_ru: str
    title_en: str
    description_ru: str
    description_en: str
    prompt_count: int


@dataclass(frozen=True, slots=True)
class CatalogView:
    """What is sold, in display order."""

    tiers: list[Tier]
    styles: list[StyleView]


async def view_catalog(tx: Connection) -> CatalogView:
    """Active tiers that have a price, and active styles that have a prompt: so few that they need no limit."""
    async with tx.cursor(row_factory=class_row(Tier)) as cursor:
        await cursor.execute(
            "SELECT t.id, t.title_ru, t.title_en, t.photo_count, t.is_active, t.is_popular, t.position, "
            "jsonb_object_agg(p.currency, p.amount_minor) AS prices "
            "FROM tiers t JOIN tier_prices p ON p.tier_id = t.id "
            "WHERE t.is_active GROUP BY t.id ORDER BY t.position, t.id"
        )
        tiers = await cursor.fetchall()
    async with tx.cursor(row_factory=class_row(StyleView)) as cursor:
        await cursor.execute(
            "SELECT s.id, s.title_ru, s.title_en, s.description_ru, s.description_en, "
            "count(*) AS prompt_count "
            "FROM styles s JOIN prompts q ON q.style_id = s.id AND q.is_active "
            "WHERE s.is_active GROUP BY s.id ORDER BY s.position, s.id"
        )
        return CatalogView(tiers, await cursor.fetchall())
