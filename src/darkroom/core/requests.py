"""Idempotency keys: the same key with the same request is answered with the same row."""

from dataclasses import dataclass
from typing import Final, Literal

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

Scope = Literal["generate", "payment", "avatar"]


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What an earlier request with this key was, and the row it made."""

    request_sha256: str
    row_id: int


async def find_request(
    tx: Connection, *, user_id: int, scope: Scope, key: str
) -> KnownRequest | None:
    """The request that used this key before. Call it behind the user's lock where a row is to be made."""
    async with tx.cursor(row_factory=class_row(KnownRequest)) as cursor:
        await cursor.execute(
            "SELECT request_sha256, row_id FROM idempotency_keys "
            "WHERE user_id = %s AND scope = %s AND key = %s",
            [user_id, scope, key],
        )
        return await cursor.fetchone()


async def remember_request(
    tx: Connection, *, user_id: int, scope: Scope, key: str, request_sha256: str, row_id: int
) -> None:
    """Bind the key to the row, in the transaction that makes the row."""
    await tx.execute(
        "INSERT INTO idempotency_keys (user_id, scope, key, request_sha256, row_id) "
        "VALUES (%s, %s, %s, %s, %s)",
        [user_id, scope, key, request_sha256, row_id],
    )


LOCK_USER: Final = """
WITH patience AS MATERIALIZED (SELECT set_config('lock_timeout', %(lock_timeout)s, TRUE))
SELECT u.forget_at IS NOT NULL FROM patience, users u WHERE u.id = %(user_id)s FOR NO KEY UPDATE OF u
"""
"""Serializes what one user does. A statement of its own: whatever comes after it must see, in a fresh
snapshot, what the holder before us committed. Waiting, not SKIP LOCKED: a loser may be told "consumed"
only when the winner has committed.

How long it waits is set within it: PostgreSQL looks at the limit when the wait begins."""


class UserLeftError(Exception):
    """This customer asked to be forgotten: nothing is begun in their name any more."""


async def lock_user(tx: Connection, user_id: int, *, lock_timeout_ms: int) -> None:
    """Serialize with other requests of this user.

    Raises:
        UserLeftError: they asked to be forgotten, perhaps while this request was under way.
        RowBusyError: (through the database room) somebody else holds the lock.
    """
    if await lock_anybody(tx, user_id, lock_timeout_ms=lock_timeout_ms):
        raise UserLeftError


async def lock_anybody(tx: Connection, user_id: int, *, lock_timeout_ms: int) -> bool:
    """As `lock_user`, for those who asked to be forgotten, too. Returns whether they did."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            LOCK_USER, {"user_id": user_id, "lock_timeout": f"{lock_timeout_ms}ms"}
        )
        return bool(await cursor.fetchone())
