"""Money that has bought nothing: whom to remind of it, and what goes back by itself."""

from dataclasses import dataclass
from typing import Final, LiteralString

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class UnusedPayment:
    """A payment that lies unused for longer than its policy's reminder allows.

    Attributes:
        days_left: until it goes back by itself, at least 1.
    """

    id: int
    user_id: int
    amount_minor: int
    currency: str
    photo_count: int
    days_left: int


async def list_unreminded(tx: Connection, *, limit: int) -> list[UnusedPayment]:
    """Unused payments nobody was reminded of yet, oldest first."""
    async with tx.cursor(row_factory=class_row(UnusedPayment)) as cursor:
        await cursor.execute(
            """
            SELECT p.id, p.user_id, p.amount_minor, p.currency, p.photo_count,
                   greatest(1, ceil(policy.unused_refund_days
                       - extract(epoch FROM darkroom_now() - p.succeeded_at) / 86400))::INTEGER AS days_left
            FROM payments p JOIN refund_policies policy ON policy.id = p.policy_id
            WHERE p.status = 'succeeded' AND NOT p.generation_consumed AND p.amount_minor > 0
              AND p.succeeded_at <= (SELECT darkroom_now())
                                    - make_interval(days => policy.unused_remind_days)
              AND NOT EXISTS (SELECT FROM customer_messages m
                              WHERE m.kind = 'unused_reminder' AND m.subject_id = p.id)
            ORDER BY p.succeeded_at, p.id LIMIT %s
            """,
            [limit],
        )
        return await cursor.fetchall()


async def list_forgotten(tx: Connection, *, limit: int) -> list[int]:
    """Payments that lay unused for as long as their policy lets them, and a day after their reminder."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT p.id FROM payments p JOIN refund_policies policy ON policy.id = p.policy_id
            WHERE p.status = 'succeeded' AND NOT p.generation_consumed AND p.amount_minor > 0
              AND p.succeeded_at <= (SELECT darkroom_now())
                                    - make_interval(days => policy.unused_refund_days)
              AND EXISTS (SELECT FROM customer_messages m
                          WHERE m.kind = 'unused_reminder' AND m.subject_id = p.id
                            AND m.created_at <= (SELECT darkroom_now()) - INTERVAL '1 day')
            ORDER BY p.succeeded_at, p.id LIMIT %s
            """,
            [limit],
        )
        return [int(payment_id) for payment_id in await cursor.fetchall()]


async def list_idle_compensations(tx: Connection, *, limit: int) -> list[tuple[int, int]]:
    """Free sets that were to make photos good and could not start for as long: (the set, what it is for)."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            """
            SELECT g.id, g.compensates FROM payments g
            JOIN refund_policies policy ON policy.id = g.policy_id
            WHERE g.compensates IS NOT NULL AND g.status = 'succeeded' AND NOT g.generation_consumed
              AND g.succeeded_at <= (SELECT darkroom_now())
                                    - make_interval(days => policy.unused_refund_days)
            ORDER BY g.id LIMIT %s
            """,
            [limit],
        )
        return [(int(grant), int(original)) for grant, original in await cursor.fetchall()]


MONEY_STAYS: Final[LiteralString] = """
EXISTS (SELECT FROM generation_jobs o JOIN kie_tasks t ON t.job_id = o.id
        WHERE o.payment_id = free.compensates AND t.status = 'failed' AND t.share_minor > t.returned_minor)
"""
"""Of the photos that payment `free` is to make good, one is not wholly paid back. While there is one, all are
made: what went back for the others is a gift."""


async def close_compensation_of(tx: Connection, original_id: int) -> bool:
    """A free set that waits to make photos good is over when the money for all of them goes back.

    Behind the original's lock, like whoever gives money back. False: there is none, it began, or some stays.
    """
    closed = await tx.execute(
        "UPDATE payments free SET status = 'refunded', updated_at = darkroom_now() "
        "WHERE free.compensates = %s AND free.status = 'succeeded' AND NOT free.generation_consumed "
        "AND NOT " + MONEY_STAYS,
        [original_id],
    )
    return closed.rowcount == 1


async def close_compensation(tx: Connection, grant_id: int) -> bool:
    """A free set that nobody started is over. False: it was started after all."""
    closed = await tx.execute(
        "UPDATE payments SET status = 'refunded', updated_at = darkroom_now() "
        "WHERE id = %s AND compensates IS NOT NULL AND status = 'succeeded' AND NOT generation_consumed",
        [grant_id],
    )
    return closed.rowcount == 1
