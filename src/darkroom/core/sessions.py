"""Sessions: a random token a browser holds, and its hash here."""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from psycopg.rows import class_row, scalar_row

from darkroom.core.funnel import note_opened
from darkroom.db.database import Connection

Origin = Literal["telegram", "link", "demo"]
"""How whoever holds a session was known: signed init data, a link that opened once, demo mode's bare word."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """Who holds a live session, and how they were known."""

    user_id: int
    origin: str
    locale: str
    telegram_user_id: int | None
    email: str | None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def open_session(
    tx: Connection, *, user_id: int, token: str, days: int, origin: Origin
) -> None:
    """Let whoever holds this token be this user until the days are over. However they came, they opened."""
    await tx.execute(
        "INSERT INTO sessions (user_id, token_sha256, origin, expires_at) "
        "VALUES (%s, %s, %s, darkroom_now() + make_interval(days => %s))",
        [user_id, _hash(token), origin, days],
    )
    await note_opened(tx, user_id)


WHOSE_SESSION: Final = """
SELECT s.user_id FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.token_sha256 = %(token_sha256)s AND s.ended_at IS NULL AND s.expires_at > darkroom_now()
  AND u.forget_at IS NULL
"""


async def find_session_user(tx: Connection, token: str) -> int | None:
    """The user of a live session; None for unknown, expired and ended ones, and for users who left."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(WHOSE_SESSION, {"token_sha256": _hash(token)})
        return await cursor.fetchone()


async def view_session(tx: Connection, token: str) -> SessionView | None:
    """As `find_session_user`, with what a page wants to know of its reader. One question."""
    async with tx.cursor(row_factory=class_row(SessionView)) as cursor:
        await cursor.execute(
            "SELECT s.user_id, s.origin, u.locale, u.telegram_user_id, u.email "
            "FROM sessions s JOIN users u ON u.id = s.user_id "
            "WHERE s.token_sha256 = %s AND s.ended_at IS NULL AND s.expires_at > darkroom_now() "
            "AND u.forget_at IS NULL",
            [_hash(token)],
        )
        return await cursor.fetchone()


async def end_session(tx: Connection, token: str) -> None:
    """The token opens nothing any more. Harmless twice."""
    await tx.execute(
        "UPDATE sessions SET ended_at = darkroom_now() WHERE token_sha256 = %s AND ended_at IS NULL",
        [_hash(token)],
    )


async def sweep_sessions(tx: Connection, *, limit: int) -> int:
    """Forget sessions that ended or expired a week ago, at most `limit` a round."""
    swept = await tx.execute(
        "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions "
        "WHERE expires_at < (SELECT darkroom_now()) - INTERVAL '7 days' ORDER BY expires_at LIMIT %s)",
        [limit],
    )
    return swept.rowcount
