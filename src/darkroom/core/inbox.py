"""Messages from outside, once each. A webhook stores; a flow step acts later."""

from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from darkroom.core.leases import UNWAITED
from darkroom.db.database import Connection


async def store_message(
    tx: Connection, *, source: str, external_id: str, kind: str, payload: dict[str, Any]
) -> bool:
    """Keep a verified message. False: it was here before; nothing changes."""
    stored = await tx.execute(
        "INSERT INTO inbox (source, external_id, kind, payload) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (source, external_id) DO NOTHING",
        [source, external_id, kind, Jsonb(payload)],
    )
    return stored.rowcount == 1


async def was_acted_on(tx: Connection, *, source: str, external_id: str) -> bool:
    """Whether this message came before and has had its effect, whatever that was."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT processed_at IS NOT NULL FROM inbox WHERE source = %s AND external_id = %s",
            [source, external_id],
        )
        return bool(await cursor.fetchone())


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """A message that this worker may act on while its lease holds."""

    id: int
    claim: int
    source: str
    kind: str
    payload: dict[str, Any]
    attempts: int


async def claim_messages(tx: Connection, *, limit: int, lease_seconds: float) -> list[InboxMessage]:
    """Lease unprocessed messages, oldest first. `due_at` moves behind the lease: a bad one can't block."""
    async with tx.cursor(row_factory=class_row(InboxMessage)) as cursor:
        await cursor.execute(
            """
            WITH due AS (
                SELECT id FROM inbox
                WHERE processed_at IS NULL AND due_at <= (SELECT darkroom_now())
                  AND (lease_until IS NULL OR lease_until <= (SELECT darkroom_now()))
                ORDER BY due_at, id LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE inbox i
            SET claim = i.claim + 1, attempts = i.attempts + 1,
                lease_until = darkroom_now() + make_interval(secs => %(lease)s),
                due_at = darkroom_now() + make_interval(secs => %(lease)s)
            WHERE i.id = ANY(ARRAY(SELECT id FROM due)) AND """
            + UNWAITED
            + """
            RETURNING i.id, i.claim, i.source, i.kind, i.payload, i.attempts
            """,
            {"limit": limit, "lease": lease_seconds},
        )
        return await cursor.fetchall()


async def hold_message(tx: Connection, message: InboxMessage) -> bool:
    """Lock the message for the transaction of its effect. False: somebody else has it or had it."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT id FROM inbox WHERE id = %s AND claim = %s AND processed_at IS NULL "
            "FOR NO KEY UPDATE",
            [message.id, message.claim],
        )
        return await cursor.fetchone() is not None


class MessageGoneError(Exception):
    """Somebody else has this message, or had it: what was done for it in this transaction must not stay."""


async def close_message(tx: Connection, message: InboxMessage, *, outcome: str) -> None:
    """Done, in the transaction of its effect.

    Raises:
        MessageGoneError: not ours any more; of those who did not hold it before, and who then undo all.
    """
    closed = await tx.execute(
        "UPDATE inbox SET processed_at = darkroom_now(), outcome = %s, lease_until = NULL "
        "WHERE id = %s AND claim = %s AND processed_at IS NULL",
        [outcome, message.id, message.claim],
    )
    if closed.rowcount != 1:
        raise MessageGoneError


async def postpone_message(
    tx: Connection, message: InboxMessage, *, error: str, pause_seconds: float
) -> None:
    """Not now: try again after the pause."""
    await tx.execute(
        "UPDATE inbox SET lease_until = NULL, last_error = %s, "
        "due_at = darkroom_now() + make_interval(secs => %s) "
        "WHERE id = %s AND claim = %s AND processed_at IS NULL",
        [error, pause_seconds, message.id, message.claim],
    )
