"""Refunds as people read them: what is owed, why, and what the provider last said."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class RefundView:
    """One refund. `last_answer` is the provider's, in its words where it gave any."""

    id: int
    payment_id: int
    provider: str
    status: str
    reason: str
    amount_minor: int
    settled_minor: int
    currency: str
    calls: int
    last_error: str | None
    note: str | None
    created_at: datetime
    failed_at: datetime | None


_VIEW: Final = """
SELECT r.id, r.payment_id, p.provider, r.status, r.reason, r.amount_minor, r.settled_minor, r.currency,
       (SELECT count(*) FROM refund_attempts a WHERE a.refund_id = r.id) AS calls,
       r.last_error, r.note, r.created_at, r.failed_at
FROM refunds r JOIN payments p ON p.id = r.payment_id
"""


async def list_open_refunds(tx: Connection, *, limit: int) -> list[RefundView]:
    """Refunds that are not back yet: those that wait for a person first, then the oldest."""
    async with tx.cursor(row_factory=class_row(RefundView)) as cursor:
        await cursor.execute(
            _VIEW + "WHERE r.status <> 'succeeded' ORDER BY r.status <> 'failed', r.id LIMIT %s",
            [limit],
        )
        return await cursor.fetchall()


async def find_refund(tx: Connection, refund_id: int) -> RefundView | None:
    """One refund; None: there is no such."""
    async with tx.cursor(row_factory=class_row(RefundView)) as cursor:
        await cursor.execute(_VIEW + "WHERE r.id = %s", [refund_id])
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class MoneyLeft:
    """What of a payment could still go back."""

    provider: str
    price_minor: int
    left_minor: int
    generation_consumed: bool


async def read_money_left(tx: Connection, payment_id: int) -> MoneyLeft | None:
    """Of a payment whose money came; None: no such. Exact behind `lock_payment_money`."""
    async with tx.cursor(row_factory=class_row(MoneyLeft)) as cursor:
        await cursor.execute(
            "SELECT provider, amount_minor AS price_minor, "
            "amount_minor - refund_reserved_minor AS left_minor, generation_consumed "
            "FROM payments WHERE id = %s AND succeeded_at IS NOT NULL",
            [payment_id],
        )
        return await cursor.fetchone()
