"""What our ledger and a provider's own list say differently: rows for a person, never silently mended."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

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


SUBJECT_MAX: Final = 255
_BIGINT_MAX: Final = 2**63 - 1


def plain_text(theirs: str) -> str:
    """Their text as a column takes it: without NUL, and without halves of characters."""
    return theirs.encode(errors="replace").decode().replace("\0", "?")


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

    `moved_at` is when its money moved, by the provider's list: only a look at that time can close it. What no
    column takes as an id or amount is shown as near to it as one can: one odd line stops no look.
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
            "subject": plain_text(subject)[:SUBJECT_MAX] or "(none)",
            "payment_id": payment_id,
            "ours": ours_minor,
            "theirs": None if theirs_minor is None else _in_a_column(theirs_minor),
            "currency": None if currency is None else plain_text(currency),
            "moved_at": moved_at,
        },
    )


def _in_a_column(minor: int) -> int:
    return max(-_BIGINT_MAX, min(minor, _BIGINT_MAX))


@dataclass(frozen=True, slots=True)
class Difference:
    """An open difference.

    Attributes:
        currency: theirs, where they say one.
        ours_currency: what the payment was sold in.
    """

    id: int
    provider: str
    kind: str
    subject: str
    payment_id: int | None
    ours_minor: int | None
    theirs_minor: int | None
    currency: str | None
    ours_currency: str | None
    first_seen_at: datetime
    last_seen_at: datetime


async def list_differences(
    tx: Connection, *, limit: int, provider: str | None = None
) -> list[Difference]:
    """Open differences, of one provider or of all, oldest first."""
    async with tx.cursor(row_factory=class_row(Difference)) as cursor:
        await cursor.execute(
            "SELECT d.id, d.provider, d.kind, d.subject, d.payment_id, d.ours_minor, d.theirs_minor, "
            "d.currency, coalesce(p.currency, d.currency) AS ours_currency, d.first_seen_at, d.last_seen_at "
            "FROM differences d LEFT JOIN payments p ON p.id = d.payment_id WHERE d.closed_at IS NULL "
            "AND (%(provider)s::TEXT IS NULL OR d.provider = %(provider)s) ORDER BY d.id LIMIT %(limit)s",
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
