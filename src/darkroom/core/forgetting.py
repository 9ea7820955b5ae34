"""Customers who leave: what of them goes, when it may go, and what stays in the books.

Three moments of a user: `forget_at` (asked: nobody signs in as this row any more), `wiped_at` (nothing of
theirs is open: names and links are gone, pictures are marked to go), `forgotten_at` (no byte, no id is left).

`funnel_steps` and `consents` stay as they are. They name no person: a step is a time and the number of a row of
`users` that then holds nothing but a language and times, as the books' own rows do; a consent is a hash that
everybody got who agreed on that day, and it is evidence of a payment that stays, too. Who comes back later
is another row, and is counted as somebody new.
"""

from typing import Final, LiteralString

from psycopg.rows import scalar_row

from darkroom.db.database import Connection

_MONEY: Final[LiteralString] = """
p.status = 'succeeded' AND NOT p.generation_consumed AND (p.amount_minor > 0 OR p.compensates IS NOT NULL)
"""
"""Bought, or promised for free, and not begun."""


async def begin_forgetting(tx: Connection, user_id: int) -> bool:
    """The row gives up its Telegram id and its address, its sessions end, its orders let go of their avatars.

    Links that would sign it in are gone, and letters that were not sent with them.
    From here on `lock_user` refuses it, no payment of it starts a set, and no photo of it is shown. False: it
    was asked for before. Call it behind `lock_anybody`.
    """
    begun = await tx.execute(
        "UPDATE users SET forget_at = darkroom_now(), forgotten_telegram_user_id = telegram_user_id, "
        "telegram_user_id = NULL, email = NULL WHERE id = %s AND forget_at IS NULL",
        [user_id],
    )
    # Before the sessions: whoever uses a link at this moment is waited for, and their session is seen below.
    await _drop_links(tx, user_id)
    await tx.execute(
        "UPDATE sessions SET ended_at = darkroom_now() WHERE user_id = %s AND ended_at IS NULL",
        [user_id],
    )
    await tx.execute(
        "UPDATE payments SET order_avatar_id = NULL, order_style_id = NULL, updated_at = darkroom_now() "
        "WHERE user_id = %s AND order_avatar_id IS NOT NULL AND NOT generation_consumed "
        # A free set that makes photos good is closed instead, with the money that it stood for.
        "AND compensates IS NULL",
        [user_id],
    )
    return begun.rowcount == 1


async def _drop_links(tx: Connection, user_id: int) -> None:
    await tx.execute("DELETE FROM mail_outbox WHERE user_id = %s", [user_id])
    await tx.execute("DELETE FROM sign_in_links WHERE user_id = %s", [user_id])


async def list_unused_of(tx: Connection, user_id: int) -> list[tuple[int, int | None]]:
    """A user's payments that bought nothing yet: (payment, the payment that it makes good for free)."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            "SELECT p.id, p.compensates FROM payments p WHERE p.user_id = %s AND "
            + _MONEY
            + " ORDER BY p.id",
            [user_id],
        )
        return [(int(payment_id), original) for payment_id, original in await cursor.fetchall()]


async def list_leavers_with_money(tx: Connection, *, limit: int) -> list[int]:
    """Users who asked to be forgotten and to whom money came since, whose wish it is to have it back."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT u.id FROM users u WHERE u.forget_at IS NOT NULL AND u.forgotten_at IS NULL "
            "AND EXISTS (SELECT FROM payments p WHERE p.user_id = u.id AND "
            + _MONEY
            + ") ORDER BY u.forget_at, u.id LIMIT %s",
            [limit],
        )
        return [int(user_id) for user_id in await cursor.fetchall()]


TO_WIPE: Final[LiteralString] = (
    """
u.forget_at IS NOT NULL AND u.forgotten_at IS NULL AND u.wiped_at IS NULL
AND NOT EXISTS (SELECT FROM generation_jobs j
                WHERE j.user_id = u.id AND j.status IN ('pending', 'processing'))
AND NOT EXISTS (SELECT FROM refunds r JOIN payments p ON p.id = r.payment_id
                WHERE p.user_id = u.id AND r.status IN ('requested', 'sending', 'unknown'))
AND NOT EXISTS (SELECT FROM payments p WHERE p.user_id = u.id AND """
    + _MONEY
    + ")"
)
"""Nothing of theirs is open: no set is made, no money is on its way. A refund that waits for a person keeps no
picture."""


async def list_to_wipe(tx: Connection, *, limit: int) -> list[int]:
    """Users who asked to be forgotten and of whom nothing is open any more."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT u.id FROM users u WHERE " + TO_WIPE + " ORDER BY u.forget_at, u.id LIMIT %s",
            [limit],
        )
        return [int(user_id) for user_id in await cursor.fetchall()]


_WIPES: Final[tuple[LiteralString, ...]] = (
    """
    UPDATE avatars SET name = '-', deleted_at = coalesce(deleted_at, darkroom_now())
    WHERE user_id = %(user_id)s
    """,
    """
    UPDATE reference_photos r
    SET deleted_at = coalesce(r.deleted_at, darkroom_now()), erasing_at = darkroom_now()
    FROM avatars a WHERE a.id = r.avatar_id AND a.user_id = %(user_id)s AND r.erasing_at IS NULL
    """,
    # In their order first, as whoever notes what was read of them locks them.
    """
    SELECT FROM generated_photos p JOIN avatars a ON a.id = p.avatar_id WHERE a.user_id = %(user_id)s
    ORDER BY p.id FOR NO KEY UPDATE OF p
    """,
    """
    UPDATE generated_photos p
    SET deleted_at = coalesce(p.deleted_at, darkroom_now()), erasing_at = darkroom_now(), favorite_at = NULL
    FROM avatars a WHERE a.id = p.avatar_id AND a.user_id = %(user_id)s AND p.erasing_at IS NULL
    """,
    """
    UPDATE late_photos l SET erasing_at = darkroom_now()
    FROM kie_tasks t JOIN avatars a ON a.id = t.avatar_id
    WHERE t.id = l.task_id AND a.user_id = %(user_id)s AND l.erasing_at IS NULL
    """,
    """
    UPDATE kie_tasks t SET result_url = NULL FROM generation_jobs j
    WHERE j.id = t.job_id AND j.user_id = %(user_id)s AND t.result_url IS NOT NULL
    """,
    """
    UPDATE task_attempts x SET result_url = NULL
    FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id
    WHERE t.id = x.task_id AND j.user_id = %(user_id)s AND x.result_url IS NOT NULL
    """,
    "UPDATE payments SET checkout_url = NULL WHERE user_id = %(user_id)s AND checkout_url IS NOT NULL",
    # 0 is no chat.
    "UPDATE telegram_message_queue SET chat_id = 0 WHERE user_id = %(user_id)s AND chat_id <> 0",
    "DELETE FROM sessions WHERE user_id = %(user_id)s",
    "DELETE FROM upload_requests WHERE user_id = %(user_id)s",
    "DELETE FROM idempotency_keys WHERE user_id = %(user_id)s",
    "DELETE FROM photo_shares WHERE user_id = %(user_id)s",
)


async def wipe(tx: Connection, user_id: int) -> bool:
    """Take away names, links and tokens, and mark every picture to go. Call it behind `lock_anybody`.

    False: something of theirs is open (again), or it was done. Prompts, prices and counts stay.
    """
    wiped = await tx.execute(
        "UPDATE users u SET wiped_at = darkroom_now() WHERE u.id = %(user_id)s AND " + TO_WIPE,
        {"user_id": user_id},
    )
    if wiped.rowcount == 1:
        for statement in _WIPES:
            await tx.execute(statement, {"user_id": user_id})
        await _drop_links(tx, user_id)
    return wiped.rowcount == 1


async def mark_latecomers(tx: Connection) -> int:
    """Mark pictures that came after their customer was wiped: a worker had them in its hands. Never shown."""
    marked = await tx.execute(
        """
        UPDATE late_photos l SET erasing_at = darkroom_now()
        FROM users u JOIN generation_jobs j ON j.user_id = u.id JOIN kie_tasks t ON t.job_id = j.id
        WHERE u.forget_at IS NOT NULL AND u.forgotten_at IS NULL AND u.wiped_at IS NOT NULL
          AND l.task_id = t.id AND l.erasing_at IS NULL
        """
    )
    return marked.rowcount


TO_FINISH: Final[LiteralString] = """
u.forget_at IS NOT NULL AND u.wiped_at <= (SELECT darkroom_now()) - make_interval(secs => %(grace)s) AND
u.forgotten_at IS NULL AND NOT EXISTS (SELECT FROM payments p WHERE p.user_id = u.id AND (
    p.status = 'pending'
    OR (p.status = 'succeeded' AND NOT p.generation_consumed AND p.amount_minor > 0)))
AND NOT EXISTS (SELECT FROM refunds r JOIN payments p ON p.id = r.payment_id
                WHERE p.user_id = u.id AND r.status <> 'succeeded')
AND NOT EXISTS (SELECT FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id
                WHERE a.user_id = u.id AND r.erased_at IS NULL)
AND NOT EXISTS (SELECT FROM generated_photos g JOIN avatars a ON a.id = g.avatar_id
                WHERE a.user_id = u.id AND g.erased_at IS NULL)
AND NOT EXISTS (SELECT FROM late_photos l JOIN kie_tasks t ON t.id = l.task_id
                JOIN avatars a ON a.id = t.avatar_id
                WHERE a.user_id = u.id AND l.erased_at IS NULL)
"""
"""All their pictures are gone, and no money that would need their Telegram id is open or may still come soon. A
put that was under way when the rows were marked has ended, too: a grace longer than any takes."""


async def list_to_finish(tx: Connection, *, grace_seconds: float, limit: int) -> list[int]:
    """Users of whom nothing is left but what no row names, and an id that nobody needs any more."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT u.id FROM users u WHERE "
            + TO_FINISH
            + " ORDER BY random() LIMIT %(limit)s",  # as `list_erasable`: none stops those behind it
            {"grace": grace_seconds, "limit": limit},
        )
        return [int(user_id) for user_id in await cursor.fetchall()]


async def list_avatars_of(tx: Connection, user_id: int) -> list[int]:
    """All avatars a user ever had."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM avatars WHERE user_id = %s ORDER BY id", [user_id])
        return [int(avatar_id) for avatar_id in await cursor.fetchall()]


async def finish_forgetting(tx: Connection, user_id: int, *, grace_seconds: float) -> bool:
    """The last ids and hashes go: what is left is nobody's. Call it behind `lock_anybody`.

    False: something came up since, or it was done. A selfie's hash is replaced by one of its row's number. The
    address of receipts goes only here: a refund that is still owed needs it for its own receipt.
    """
    finished = await tx.execute(
        "UPDATE users u SET forgotten_at = darkroom_now(), forgotten_telegram_user_id = NULL "
        "WHERE u.id = %(user_id)s AND " + TO_FINISH,
        {"user_id": user_id, "grace": grace_seconds},
    )
    if finished.rowcount == 1:
        await tx.execute(
            "UPDATE reference_photos r SET sha256 = encode(sha256(r.id::TEXT::BYTEA), 'hex'), "
            "object_key = 'erased/' || r.id, upload_sha256 = NULL, dhash = NULL, verdict = '{}' "
            "FROM avatars a WHERE a.id = r.avatar_id AND a.user_id = %(user_id)s",
            {"user_id": user_id},
        )
        await tx.execute("DELETE FROM sessions WHERE user_id = %(user_id)s", {"user_id": user_id})
        await tx.execute(
            "UPDATE payments SET checkout_url = NULL, receipt_email = NULL "
            "WHERE user_id = %(user_id)s AND num_nonnulls(checkout_url, receipt_email) > 0",
            {"user_id": user_id},
        )
    return finished.rowcount == 1
