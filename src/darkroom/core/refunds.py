"""Refunds: what is owed back, who may send it, and every move but success.

Success is not written here: `core/settlements.py` derives it from the provider's own books.
"""

from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.unused import close_compensation_of
from darkroom.db.database import Connection

CALL_MAY_STILL_ARRIVE: Final[LiteralString] = """
EXISTS (SELECT FROM refund_attempts a
        WHERE a.refund_id = r.id AND a.key = r.id || '-' || r.key_number
          AND a.answer IS DISTINCT FROM 'refused' AND a.answer IS DISTINCT FROM 'later')
"""
"""The current key of refund `r` was sent and got no definite no: whatever the books say now, it may be on its
way. Money that somebody gave back must not make another wish of it: both would arrive."""


@dataclass(frozen=True, slots=True)
class RefundClaim:
    """A refund that this worker may work on while its lease holds.

    Attributes:
        due_minor: what has not gone back yet.
        returned_minor: what the provider gave back of this payment, as far as we know.
        photo_count: how many photos it is for.
        key_age_seconds: since the current key was first sent; None: never.
        called_age_seconds: since the last call, under any key; None: there was none.
        age_seconds: since it was written.
        last_answer: of the last call, if one was heard.
        calls: how often the provider was told; `later_answers` of them were "not now".
    """

    id: int
    claim: int
    payment_id: int
    provider: str
    provider_payment_id: str | None
    payer_telegram_id: int | None
    currency: str
    price_minor: int
    returned_minor: int
    due_minor: int
    photo_count: int
    key_number: int
    attempts: int
    key_age_seconds: float | None
    called_age_seconds: float | None
    age_seconds: float
    last_answer: str | None
    calls: int
    later_answers: int
    receipt_email: str | None

    @property
    def key(self) -> str:
        """The idempotency key: n grows only after a definite no."""
        return f"{self.id}-{self.key_number}"


def _claim(status: LiteralString, set_status: LiteralString, first: LiteralString) -> LiteralString:
    return (
        """
WITH due AS (
    SELECT r.id FROM refunds r
    WHERE r.status = '"""
        + status
        + """' AND r.due_at <= (SELECT darkroom_now())
      AND (r.lease_until IS NULL OR r.lease_until <= (SELECT darkroom_now()))
      -- Row by row, in their turn: joined, all that wait and all payments would be.
      AND (SELECT p.provider FROM payments p WHERE p.id = r.payment_id) = ANY(%(providers)s)
"""
        + first
        + """
    ORDER BY r.due_at, r.id LIMIT %(limit)s
    FOR NO KEY UPDATE OF r SKIP LOCKED
), r AS (
    UPDATE refunds r
    SET """
        + set_status
        + """claim = r.claim + 1, attempts = r.attempts + 1,
        lease_until = darkroom_now() + make_interval(secs => %(lease)s),
        -- Behind the lease: one whose work breaks cannot stop those behind it.
        due_at = darkroom_now() + make_interval(secs => %(lease)s)
    WHERE r.id = ANY(ARRAY(SELECT id FROM due))
    RETURNING r.*
)
SELECT r.id, r.claim, r.payment_id, p.provider, p.provider_payment_id,
       coalesce(u.telegram_user_id, u.forgotten_telegram_user_id) AS payer_telegram_id,
       r.currency, p.amount_minor AS price_minor,
       (SELECT coalesce(sum(b.amount_minor), 0)::BIGINT FROM provider_refunds b
        WHERE b.payment_id = p.id) AS returned_minor,
       r.amount_minor - r.settled_minor AS due_minor,
       (SELECT count(*) FROM refund_lines l
        WHERE l.refund_id = r.id AND l.task_id IS NOT NULL) AS photo_count,
       r.key_number, r.attempts,
       (SELECT extract(epoch FROM darkroom_now() - min(a.called_at))::FLOAT8 FROM refund_attempts a
        WHERE a.refund_id = r.id AND a.key = r.id || '-' || r.key_number) AS key_age_seconds,
       (SELECT extract(epoch FROM darkroom_now() - max(a.called_at))::FLOAT8 FROM refund_attempts a
        WHERE a.refund_id = r.id) AS called_age_seconds,
       extract(epoch FROM darkroom_now() - r.created_at)::FLOAT8 AS age_seconds,
       (SELECT a.answer FROM refund_attempts a
        WHERE a.refund_id = r.id ORDER BY a.number DESC LIMIT 1) AS last_answer,
       (SELECT count(*) FROM refund_attempts a WHERE a.refund_id = r.id) AS calls,
       (SELECT count(*) FROM refund_attempts a
        WHERE a.refund_id = r.id AND a.answer = 'later') AS later_answers,
       p.receipt_email
FROM r JOIN payments p ON p.id = r.payment_id JOIN users u ON u.id = p.user_id
ORDER BY r.id
"""
    )


CLAIM_REQUESTED: Final = _claim(
    "requested",
    "status = 'sending', ",
    # The first of its payment, and none while one is under way: rivals then want the same row, and one has it.
    "      AND NOT EXISTS (SELECT FROM refunds o WHERE o.payment_id = r.payment_id AND o.id <> r.id"
    " AND (o.status IN ('sending', 'unknown') OR (o.status = 'requested' AND o.id < r.id)))",
)
CLAIM_UNKNOWN: Final = _claim("unknown", "", "")


async def claim_requested(
    tx: Connection, *, providers: list[str], limit: int, lease_seconds: float
) -> list[RefundClaim]:
    """Requested -> sending: the oldest due refund of each payment that has none under way.

    A crash after it leaves rows that become unknown when their leases end.
    """
    async with tx.cursor(row_factory=class_row(RefundClaim)) as cursor:
        await cursor.execute(
            CLAIM_REQUESTED, {"providers": providers, "limit": limit, "lease": lease_seconds}
        )
        return await cursor.fetchall()


async def claim_unknown(
    tx: Connection, *, providers: list[str], limit: int, lease_seconds: float
) -> list[RefundClaim]:
    """Lease the refunds whose outcome nobody knows. They stay what they are."""
    async with tx.cursor(row_factory=class_row(RefundClaim)) as cursor:
        await cursor.execute(
            CLAIM_UNKNOWN, {"providers": providers, "limit": limit, "lease": lease_seconds}
        )
        return await cursor.fetchall()


async def settle_lapsed_sending(tx: Connection, *, limit: int) -> int:
    """Sending -> unknown where the worker died: its call may have been made, so the provider is asked."""
    moved = await tx.execute(
        """
        WITH lapsed AS (
            SELECT id FROM refunds
            WHERE status = 'sending' AND lease_until <= (SELECT darkroom_now())
            ORDER BY lease_until LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE refunds r SET status = 'unknown', claim = r.claim + 1, lease_until = NULL,
            due_at = darkroom_now(), updated_at = darkroom_now()
        WHERE r.id = ANY(ARRAY(SELECT id FROM lapsed))
        """,
        {"limit": limit},
    )
    return moved.rowcount


async def begin_attempt(tx: Connection, refund: RefundClaim) -> int | None:
    """The row that stands before the call. None: the refund, or a part of it, is not ours to send any more."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            INSERT INTO refund_attempts (refund_id, number, key, amount_minor)
            SELECT r.id, 1 + (SELECT count(*) FROM refund_attempts a WHERE a.refund_id = r.id),
                   %(key)s, %(due)s
            FROM refunds r
            WHERE r.id = %(id)s AND r.claim = %(claim)s AND r.status = 'sending'
              AND r.amount_minor - r.settled_minor = %(due)s
            RETURNING id
            """,
            {"id": refund.id, "claim": refund.claim, "key": refund.key, "due": refund.due_minor},
        )
        return await cursor.fetchone()


async def record_answer(
    tx: Connection, attempt_id: int, *, answer: str, code: str | None, text: str | None
) -> None:
    """What the provider said: a fact, written once, by whoever heard it."""
    await tx.execute(
        "UPDATE refund_attempts SET answered_at = darkroom_now(), answer = %s, code = %s, text = %s "
        "WHERE id = %s AND answered_at IS NULL",
        [answer, code, text, attempt_id],
    )


async def move_to_unknown(
    tx: Connection, refund: RefundClaim, *, error: str, pause_seconds: float
) -> bool:
    """Sending -> unknown: its books will tell, from after the pause on."""
    moved = await tx.execute(
        "UPDATE refunds SET status = 'unknown', attempts = 0, last_error = %s, lease_until = NULL, "
        "due_at = darkroom_now() + make_interval(secs => %s), updated_at = darkroom_now() "
        "WHERE id = %s AND claim = %s AND status = 'sending'",
        [error, pause_seconds, refund.id, refund.claim],
    )
    return moved.rowcount == 1


async def ask_again_later(
    tx: Connection, refund: RefundClaim, *, error: str | None, pause_seconds: float
) -> bool:
    """Still unknown: give the lease back and ask after the pause."""
    moved = await tx.execute(
        "UPDATE refunds SET last_error = coalesce(%s, last_error), lease_until = NULL, "
        "due_at = darkroom_now() + make_interval(secs => %s) "
        "WHERE id = %s AND claim = %s AND status = 'unknown'",
        [error, pause_seconds, refund.id, refund.claim],
    )
    return moved.rowcount == 1


async def move_to_requested(
    tx: Connection, refund: RefundClaim, *, error: str, pause_seconds: float, new_key: bool
) -> bool:
    """Sending | unknown -> requested: nothing happened there.

    `new_key`: a definite no was heard. The key grows only if each call under it got one: the one whose answer
    was lost may still arrive, and under another key both would be paid.
    """
    moved = await tx.execute(
        "UPDATE refunds r SET status = 'requested', "
        "key_number = key_number + (%s AND NOT " + CALL_MAY_STILL_ARRIVE + ")::INTEGER, "
        "last_error = %s, lease_until = NULL, "
        "due_at = darkroom_now() + make_interval(secs => %s), updated_at = darkroom_now() "
        "WHERE id = %s AND claim = %s AND status IN ('sending', 'unknown')",
        [new_key, error, pause_seconds, refund.id, refund.claim],
    )
    return moved.rowcount == 1


async def fail_refund(tx: Connection, refund: RefundClaim, *, error: str | None) -> bool:
    """Sending | unknown -> failed: a definite no. A person decides. Without `error` the last one stays."""
    moved = await tx.execute(
        "UPDATE refunds SET status = 'failed', failed_at = darkroom_now(), "
        "last_error = coalesce(%s, last_error), "
        "lease_until = NULL, updated_at = darkroom_now() "
        "WHERE id = %s AND claim = %s AND status IN ('sending', 'unknown')",
        [error, refund.id, refund.claim],
    )
    return moved.rowcount == 1


async def read_due_minor(tx: Connection, refund_id: int) -> int:
    """What of a refund has not gone back by now, as the transaction sees it."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT amount_minor - settled_minor FROM refunds WHERE id = %s", [refund_id]
        )
        return int(await cursor.fetchone() or 0)


async def request_failed_again(tx: Connection, refund_id: int) -> bool:
    """Failed -> requested, the same row under a new key: a person asked. False: it is not failed."""
    moved = await tx.execute(
        "UPDATE refunds SET status = 'requested', failed_at = NULL, key_number = key_number + 1, "
        "attempts = 0, due_at = darkroom_now(), open_since = darkroom_now(), "
        "updated_at = darkroom_now() "
        "WHERE id = %s AND status = 'failed'",
        [refund_id],
    )
    return moved.rowcount == 1


async def lock_payment_money(tx: Connection, payment_id: int) -> None:
    """Nobody else moves this payment's money until the transaction ends. First of the locks taken here."""
    await tx.execute("SELECT FROM payments WHERE id = %s FOR NO KEY UPDATE", [payment_id])


REQUEST_UNUSED: Final = """
WITH asked AS (
    UPDATE payments p SET status = 'refunding', lease_until = NULL, updated_at = darkroom_now()
    WHERE p.id = %(payment_id)s AND p.status = 'succeeded' AND NOT p.generation_consumed
      AND p.amount_minor > p.refund_reserved_minor
    RETURNING p.id, p.amount_minor - p.refund_reserved_minor AS minor, p.currency
), refund AS (
    INSERT INTO refunds (payment_id, reason, amount_minor, currency, request_id, note)
    SELECT id, %(reason)s, minor, currency, %(request_id)s, %(note)s FROM asked
    RETURNING id, payment_id, amount_minor
), line AS (
    INSERT INTO refund_lines (refund_id, payment_id, kind, amount_minor)
    SELECT id, payment_id, 'unused', amount_minor FROM refund
)
SELECT id FROM refund
"""


async def request_unused(
    tx: Connection,
    payment_id: int,
    *,
    reason: str,
    request_id: UUID | None = None,
    note: str | None = None,
) -> int | None:
    """Ask all of an unused payment back: it can't start a job from here on. None: there is nothing unused.

    One guarded statement: of a claim and this at once, one finds nothing.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            REQUEST_UNUSED,
            {"payment_id": payment_id, "reason": reason, "request_id": request_id, "note": note},
        )
        return await cursor.fetchone()


REQUEST_GOODWILL: Final = """
WITH free AS (
    SELECT t.id, t.job_id, t.share_minor - t.returned_minor AS minor,
           CASE t.status WHEN 'failed' THEN 0 WHEN 'completed' THEN 2 ELSE 1 END AS turn
    FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id
    WHERE j.payment_id = %(payment_id)s AND t.share_minor > t.returned_minor
), running AS (
    -- What was not delivered first, then what is not yet, then gifts.
    SELECT free.*, sum(minor) OVER (ORDER BY turn, id) AS upto FROM free
), taken AS (
    SELECT id, job_id, least(minor, %(most)s - (upto - minor))::BIGINT AS minor
    FROM running WHERE upto - minor < %(most)s
), refund AS (
    INSERT INTO refunds (payment_id, job_id, reason, amount_minor, currency, request_id, note)
    SELECT p.id, min(taken.job_id), %(reason)s, sum(taken.minor), p.currency, %(request_id)s, %(note)s
    FROM taken JOIN payments p ON p.id = %(payment_id)s
    GROUP BY p.id
    RETURNING id, payment_id, amount_minor
), lines AS (
    INSERT INTO refund_lines (refund_id, payment_id, kind, task_id, amount_minor)
    SELECT refund.id, refund.payment_id, 'goodwill', taken.id, taken.minor FROM refund, taken
)
SELECT id FROM refund
"""


async def request_goodwill(
    tx: Connection,
    payment_id: int,
    *,
    most_minor: int,
    reason: str,
    request_id: UUID | None = None,
    note: str | None = None,
) -> int | None:
    """A refund of at most so much of a set's price, line by line. None: nothing of it is left.

    A photo that was delivered, or still will be, is then (in part) a gift. Call it behind
    `lock_payment_money`.
    """
    # Open photos may be settled meanwhile: the lock order's next, by id.
    await tx.execute(
        "SELECT FROM kie_tasks t WHERE t.job_id IN (SELECT id FROM generation_jobs WHERE payment_id = %s) "
        "ORDER BY t.id FOR NO KEY UPDATE",
        [payment_id],
    )
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            REQUEST_GOODWILL,
            {
                "payment_id": payment_id,
                "most": most_minor,
                "reason": reason,
                "request_id": request_id,
                "note": note,
            },
        )
        refund_id = await cursor.fetchone()
    # Nobody gets their money and the photos that it was to be made good by.
    await close_compensation_of(tx, payment_id)
    return refund_id


async def find_refund_by_request(tx: Connection, request_id: UUID) -> int | None:
    """The refund that an earlier run of the same wish left, if its commit arrived."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM refunds WHERE request_id = %s", [request_id])
        return await cursor.fetchone()


async def refund_providers_waited_for(tx: Connection) -> list[str]:
    """Providers of refunds that are not settled: an alarm where one is not configured."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT DISTINCT (SELECT p.provider FROM payments p WHERE p.id = r.payment_id) FROM refunds r "
            "WHERE r.status IN ('requested', 'sending', 'unknown')"
        )
        return [str(provider) for provider in await cursor.fetchall()]
