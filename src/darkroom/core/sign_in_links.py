"""Links that sign somebody in once. The link itself is in no table: its token is made of the row's number."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


async def lock_user_of_email(
    tx: Connection, email: str, *, locale: str, lock_timeout_ms: int
) -> int:
    """The user of this address behind their lock, made at first sight. Harmless twice and at once.

    Whoever leaves gives the address up: it is another user's from then on, also while it is waited for here.

    Raises:
        RowBusyError: (through the database room) somebody else holds the lock.
    """
    await tx.execute("SELECT set_config('lock_timeout', %s, TRUE)", [f"{lock_timeout_ms}ms"])
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM users WHERE email = %s FOR NO KEY UPDATE", [email])
        known = await cursor.fetchone()
        if known is not None:
            return int(known)
        await cursor.execute(
            "INSERT INTO users (email, locale) VALUES (%s, %s) "
            "ON CONFLICT (email) WHERE email IS NOT NULL DO UPDATE SET email = EXCLUDED.email "
            "RETURNING id",
            [email, locale],
        )
        return int(await cursor.fetchone() or 0)


async def insert_link(
    tx: Connection,
    *,
    user_id: int,
    request_id: UUID,
    good_seconds: float,
    next_path: str | None = None,
) -> int | None:
    """A link that is good for so long, once, and leads to `next_path`. None: no such user, or they left."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "INSERT INTO sign_in_links (user_id, request_id, next_path, expires_at) "
            "SELECT u.id, %s, %s, darkroom_now() + make_interval(secs => %s) FROM users u "
            "WHERE u.id = %s AND u.forget_at IS NULL RETURNING id",
            [request_id, next_path, good_seconds, user_id],
        )
        return await cursor.fetchone()


async def find_link_by_request(tx: Connection, request_id: UUID) -> int | None:
    """The link that an earlier run of the same wish left, if its commit arrived."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM sign_in_links WHERE request_id = %s", [request_id])
        return await cursor.fetchone()


async def is_known(tx: Connection, user_id: int) -> bool:
    """Whether this user ever signed in by a link, by Telegram, or paid: no stranger. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT EXISTS (SELECT FROM users WHERE id = %(id)s AND telegram_user_id IS NOT NULL) "
            "OR EXISTS (SELECT FROM sessions WHERE user_id = %(id)s) "
            "OR EXISTS (SELECT FROM payments WHERE user_id = %(id)s)",
            {"id": user_id},
        )
        return bool(await cursor.fetchone())


async def lock_link(tx: Connection, link_id: int) -> None:
    """Wait for whoever is using this link."""
    await tx.execute("SELECT FROM sign_in_links WHERE id = %s FOR NO KEY UPDATE", [link_id])


@dataclass(frozen=True, slots=True)
class LinkOwner:
    """Whose account a link opens, and the path it leads to; None: wherever links lead."""

    user_id: int
    email: str | None
    telegram_user_id: int | None
    next_path: str | None


async def find_link_owner(tx: Connection, link_id: int) -> LinkOwner | None:
    """Whom the link still signs in; None: nobody any more. Changes nothing."""
    async with tx.cursor(row_factory=class_row(LinkOwner)) as cursor:
        await cursor.execute(
            "SELECT u.id AS user_id, u.email, u.telegram_user_id, l.next_path "
            "FROM sign_in_links l JOIN users u ON u.id = l.user_id "
            "WHERE l.id = %s AND l.used_at IS NULL AND l.expires_at > darkroom_now() "
            "AND u.forget_at IS NULL",
            [link_id],
        )
        return await cursor.fetchone()


async def use_link(tx: Connection, link_id: int) -> int | None:
    """Use a link up, in the transaction of the session it opens. Returns whose it was.

    None: it was used, its time is over, its user left, or it never was. Of two at once, the second waits for
    the first and finds it used.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "UPDATE sign_in_links l SET used_at = darkroom_now() FROM users u "
            "WHERE l.id = %s AND u.id = l.user_id AND l.used_at IS NULL "
            "AND l.expires_at > darkroom_now() AND u.forget_at IS NULL RETURNING l.user_id",
            [link_id],
        )
        return await cursor.fetchone()


async def sweep_links(tx: Connection, *, older_than_days: int, limit: int) -> int:
    """Forget links that ended so long ago and that no letter names, at most `limit` a round."""
    swept = await tx.execute(
        "DELETE FROM sign_in_links WHERE id IN (SELECT l.id FROM sign_in_links l "
        "WHERE l.expires_at < (SELECT darkroom_now()) - make_interval(days => %s) "
        "AND NOT EXISTS (SELECT FROM mail_outbox m WHERE m.link_id = l.id) "
        "ORDER BY l.expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        [older_than_days, limit],
    )
    return swept.rowcount
