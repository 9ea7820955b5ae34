"""What our ledger and a provider's own list say differently: rows for a person, never silently mended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

DifferenceKind = Literal[
    "unknown_payment",
    "price_mismatch",
    "payment_not_ours_yet",
    "payment_missing_there",
    "refund_not_ours_yet",
    "refund_missing_there",
    "refund_amount",
    "more_back_than_paid",
]


async def note_difference(
    tx: Connection,
    *,
    provider: str,
    kind: DifferenceKind,
    subject: str,
    payment_id: int | None,
    ours_minor: int | None,
    theirs_minor: int | None,
    currency: str | None,
    moved_at: datetime | None = None,
) -> None:
    """Write a difference down, or say that it was seen again. Once for each open one.

    `moved_at` is when its money moved, by the provider's list: only a look at that time can close it.
    """
    await tx.execute(
        """
        INSERT INTO differences
            (provider, kind, subject, payment_id, ours_minor, theirs_minor, currency, moved_at)
        SELECT %(provider)s, %(kind)s, %(subject)s, p.id, %(ours)s, %(theirs)s, %(currency)s,
               %(moved_at)s
        FROM (SELECT %(payment_id)s::BIGINT AS id) wanted LEFT JOIN payments p ON p.id = wanted.id
        ON CONFLICT (provider, kind, subject) WHERE closed_at IS NULL
        DO UPDATE SET last_seen_at = darkroom_now(), ours_minor = EXCLUDED.ours_minor,
                      theirs_minor = EXCLUDED.theirs_minor,
                      moved_at = coalesce(EXCLUDED.moved_at, differences.moved_at)
        """,
        {
            "provider": provider,
            "kind": kind,
            "subject": subject,
            "payment_id": payment_id,
            "ours": ours_minor,
            "theirs": theirs_minor,
            "currency": currency,
            "moved_at": moved_at,
        },
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """An open difference."""

    id: int
    provider: str
    kind: str
    subject: str
    payment_id: int | None
    ours_minor: int | None
    theirs_minor: int | None
    currency: str | None
    first_seen_at: datetime
    last_seen_at: datetime


async def list_differences(
    tx: Connection, *, limit: int, provider: str | None = None
) -> list[Difference]:
    """Open differences, of one provider or of all, oldest first."""
    async with tx.cursor(row_factory=class_row(Difference)) as cursor:
        await cursor.execute(
            "SELECT id, provider, kind, subject, payment_id, ours_minor, theirs_minor, currency, "
            "first_seen_at, last_seen_at FROM differences WHERE closed_at IS NULL "
            "AND (%(provider)s::TEXT IS NULL OR provider = %(provider)s) ORDER BY id LIMIT %(limit)s",
            {"provider": provider, "limit": limit},
        )
        return await cursor.fetchall()


async def count_differences(tx: Connection, *, provider: str | None = None) -> int:
    """How many are open, of one provider or of all."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM differences WHERE closed_at IS NULL "
            "AND (%(provider)s::TEXT IS NULL OR provider = %(provider)s)",
            {"provider": provider},
        )
        return int(await cursor.fetchone() or 0)


async def close_difference(tx: Connection, difference_id: int, *, note: str) -> bool:
    """A person has dealt with it, and says how. False: no such open difference."""
    closed = await tx.execute(
        "UPDATE differences SET closed_at = darkroom_now(), note = %s "
        "WHERE id = %s AND closed_at IS NULL",
        [note, difference_id],
    )
    return closed.rowcount == 1
