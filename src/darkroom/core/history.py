"""Forgetting what was logged of old orders, in bounded rounds (decision 17).

The books stay: what was bought, made, paid and given back, with its times. The oldest rows have the lowest
numbers, so each round looks at the first of them by number: no index by time has to be written at every move. A
round that finds nothing old enough has touched one batch.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import scalar_row

from darkroom.db.database import Connection

FORGET_MOVES: Final = """
WITH clock AS MATERIALIZED (
    SELECT darkroom_now() - make_interval(days => %(days)s) AS old
), gone AS (
    DELETE FROM move_log WHERE id = ANY(ARRAY(
        SELECT first.id FROM (SELECT id, moved_at FROM move_log ORDER BY id LIMIT %(limit)s) first
        WHERE first.moved_at < (SELECT old FROM clock)))
    RETURNING id
), marked AS (
    -- With them, or not at all: the audit asks for every move since.
    UPDATE history_marks SET forgotten_before = greatest(forgotten_before, (SELECT old FROM clock))
    WHERE name = 'moves' AND EXISTS (SELECT FROM gone)
)
SELECT count(*) FROM gone
"""
FORGET_INBOX: Final = """
DELETE FROM inbox WHERE id = ANY(ARRAY(
    SELECT first.id FROM (
        SELECT id, received_at FROM inbox WHERE processed_at IS NOT NULL ORDER BY id LIMIT %(limit)s
    ) first
    WHERE first.received_at < (SELECT darkroom_now()) - make_interval(days => %(days)s)))
"""
FORGET_COPIES: Final = """
DELETE FROM telegram_message_queue WHERE id = ANY(ARRAY(
    SELECT first.id FROM (
        SELECT id, updated_at FROM telegram_message_queue
        WHERE status IN ('sent', 'failed') ORDER BY id LIMIT %(limit)s
    ) first
    WHERE first.updated_at < (SELECT darkroom_now()) - make_interval(days => %(days)s)))
"""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many rows of each went in a round."""

    moves: int
    messages: int
    copies: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.moves + self.messages + self.copies


async def forget_old_history(tx: Connection, *, older_than_days: int, limit: int) -> Forgotten:
    """Drop moves, messages that were acted on and copies that were sent, at most `limit` of each.

    Call it in a transaction. What is open stays, however old: a message that nobody could act on, a copy for a
    customer who blocked the bot. A message that comes again after its row is gone is new, and finds that its
    effect was had: the rows that it is about say so, not the inbox.
    """
    values = {"days": older_than_days, "limit": limit}
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(FORGET_MOVES, values)
        moves = int(await cursor.fetchone() or 0)
    messages = await tx.execute(FORGET_INBOX, values)
    copies = await tx.execute(FORGET_COPIES, values)
    return Forgotten(moves, messages.rowcount, copies.rowcount)


async def moves_kept_since(tx: Connection) -> datetime | None:
    """Since when every move is there; None: since ever. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT forgotten_before FROM history_marks "
            "WHERE name = 'moves' AND isfinite(forgotten_before)"
        )
        return await cursor.fetchone()
