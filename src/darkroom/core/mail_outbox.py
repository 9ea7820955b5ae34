"""Letters to be sent: pending until they were handed over (`sent`) or given up (`failed`). Both are final."""

from dataclasses import dataclass

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class MailClaim:
    """A letter that this worker may send while its lease holds.

    Attributes:
        attempts: this try included.
        link_used: whoever it is for has signed in by it: it came.
        link_good_seconds: how long its link is still good; 0 or less: not any more.
    """

    id: int
    claim: int
    link_id: int
    address: str
    locale: str
    attempts: int
    link_used: bool
    link_good_seconds: float


async def insert_mail(
    tx: Connection, *, user_id: int, link_id: int, address: str, locale: str
) -> None:
    """A letter with a link, in the transaction that makes the link."""
    await tx.execute(
        "INSERT INTO mail_outbox (user_id, kind, link_id, address, locale) "
        "VALUES (%s, 'sign_in', %s, %s, %s)",
        [user_id, link_id, address, locale],
    )


async def count_recent_mail(tx: Connection, *, user_id: int, window_seconds: float) -> int:
    """Letters that this user was written within the window. Exact behind the user's lock."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM mail_outbox WHERE user_id = %s "
            "AND created_at > (SELECT darkroom_now()) - make_interval(secs => %s)",
            [user_id, window_seconds],
        )
        return int(await cursor.fetchone() or 0)


async def is_flooded(tx: Connection, *, window_seconds: float, letters_max: int) -> bool:
    """Whether so many letters were written within the window, to whomever. Looks at no more of them."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM (SELECT FROM mail_outbox "
            "WHERE created_at > (SELECT darkroom_now()) - make_interval(secs => %s) LIMIT %s) recent",
            [window_seconds, letters_max],
        )
        return int(await cursor.fetchone() or 0) >= letters_max


async def claim_mail(tx: Connection, *, limit: int, lease_seconds: float) -> list[MailClaim]:
    """Lease letters that are due, oldest first. `due_at` moves behind the lease: a bad one can't block."""
    async with tx.cursor(row_factory=class_row(MailClaim)) as cursor:
        await cursor.execute(
            """
            WITH due AS (
                SELECT id FROM mail_outbox
                WHERE status = 'pending' AND due_at <= (SELECT darkroom_now())
                  AND (lease_until IS NULL OR lease_until <= (SELECT darkroom_now()))
                ORDER BY due_at, id LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            ), m AS (
                UPDATE mail_outbox m
                SET claim = m.claim + 1, attempts = m.attempts + 1,
                    lease_until = darkroom_now() + make_interval(secs => %(lease)s),
                    due_at = darkroom_now() + make_interval(secs => %(lease)s)
                WHERE m.id = ANY(ARRAY(SELECT id FROM due))
                RETURNING m.*
            )
            SELECT m.id, m.claim, m.link_id, m.address, m.locale, m.attempts,
                   l.used_at IS NOT NULL AS link_used,
                   extract(epoch FROM l.expires_at - darkroom_now())::FLOAT8 AS link_good_seconds
            FROM m JOIN sign_in_links l ON l.id = m.link_id ORDER BY m.id
            """,
            {"limit": limit, "lease": lease_seconds},
        )
        return await cursor.fetchall()


async def mark_mail_sent(tx: Connection, mail: MailClaim) -> None:
    """It was handed over: a fact, written by whoever knows it, also when the lease is lost by then."""
    await tx.execute(
        "UPDATE mail_outbox SET status = 'sent', sent_at = darkroom_now(), lease_until = NULL, "
        "last_error = NULL WHERE id = %s AND status = 'pending'",
        [mail.id],
    )


async def postpone_mail(
    tx: Connection, mail: MailClaim, *, error: str, pause_seconds: float
) -> None:
    """Not now: try again after the pause."""
    await tx.execute(
        "UPDATE mail_outbox SET lease_until = NULL, last_error = %s, "
        "due_at = darkroom_now() + make_interval(secs => %s) "
        "WHERE id = %s AND claim = %s AND status = 'pending'",
        [error, pause_seconds, mail.id, mail.claim],
    )


async def fail_mail(tx: Connection, mail: MailClaim, *, error: str) -> bool:
    """Given up. False: not ours any more."""
    failed = await tx.execute(
        "UPDATE mail_outbox SET status = 'failed', lease_until = NULL, last_error = %s "
        "WHERE id = %s AND claim = %s AND status = 'pending'",
        [error, mail.id, mail.claim],
    )
    return failed.rowcount == 1


async def sweep_mail(tx: Connection, *, older_than_days: int, limit: int) -> int:
    """Forget letters this old, whatever became of them, at most `limit` a round. Their links died long ago."""
    swept = await tx.execute(
        "DELETE FROM mail_outbox WHERE id IN (SELECT id FROM mail_outbox "
        "WHERE created_at < (SELECT darkroom_now()) - make_interval(days => %s) "
        "ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        [older_than_days, limit],
    )
    return swept.rowcount
