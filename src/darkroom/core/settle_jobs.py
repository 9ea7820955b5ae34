"""Settling a set: how it ended, and what goes back for it, written together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.core.funnel import NOTE_GOT_WHOLE, note_got
from darkroom.core.jobs import JobClaim
from darkroom.db.database import Connection

SETTLE_JOB: Final = """
WITH tallied AS (
    SELECT j.id, j.payment_id, p.amount_minor, p.currency, p.compensates, count(*) AS total,
           count(*) FILTER (WHERE t.status = 'completed') AS delivered,
           count(*) FILTER (WHERE t.status = 'completed') * 100
               < policy.whole_price_below_percent * count(*) AS below,
           bool_or(t.status = 'failed' AND t.share_minor > t.returned_minor) AS is_owed,
           p.provider = ANY(%(whole_only)s) AS whole_only,
           CASE WHEN u.forget_at IS NULL THEN policy.without_partial ELSE 'whole' END AS without_partial
    FROM generation_jobs j
    JOIN payments p ON p.id = j.payment_id
    JOIN refund_policies policy ON policy.id = p.policy_id
    JOIN users u ON u.id = p.user_id
    JOIN kie_tasks t ON t.job_id = j.id
    WHERE j.id = %(job_id)s
    GROUP BY j.id, p.id, policy.id, u.id
    HAVING bool_and(t.status IN ('completed', 'failed'))
), counted AS (
    -- Of a provider without parts, a part is the whole price, or made again.
    SELECT tallied.*,
           below OR (whole_only AND delivered < total AND without_partial = 'whole') AS whole_price,
           NOT below AND whole_only AND is_owed AND without_partial = 'grant' AS again,
           CASE WHEN below THEN 'below_threshold' WHEN whole_only THEN 'no_partial'
                ELSE 'shortfall' END AS reason
    FROM tallied
), finished AS (
    UPDATE generation_jobs j
    SET status = CASE WHEN c.delivered = c.total THEN 'completed'
                      WHEN c.delivered > 0 THEN 'partial' ELSE 'failed' END,
        finished_at = darkroom_now(), updated_at = darkroom_now(), lease_until = NULL
    FROM counted c
    WHERE j.id = c.id AND j.claim = %(claim)s AND j.status IN ('pending', 'processing')
    RETURNING j.id, j.status, j.payment_id
), owed AS (
    SELECT t.id, t.job_id, t.share_minor - t.returned_minor AS minor, c.payment_id, c.currency, c.reason,
           CASE t.status WHEN 'failed' THEN 'shortfall' ELSE 'goodwill' END AS kind
    FROM finished f
    JOIN counted c ON c.id = f.id
    JOIN kie_tasks t ON t.job_id = f.id
    WHERE t.share_minor > t.returned_minor
      AND (t.status = 'failed' OR c.whole_price) AND NOT c.again
    UNION ALL
    -- What this set was to make good: the whole price goes back.
    SELECT t.id, t.job_id, t.share_minor - t.returned_minor, p.id, p.currency, 'compensation_failed',
           CASE t.status WHEN 'failed' THEN 'shortfall' ELSE 'goodwill' END
    FROM finished f
    JOIN counted c ON c.id = f.id AND c.delivered < c.total
    JOIN payments p ON p.id = c.compensates
    JOIN generation_jobs j ON j.payment_id = p.id
    JOIN kie_tasks t ON t.job_id = j.id
    WHERE t.share_minor > t.returned_minor
), refund AS (
    INSERT INTO refunds (payment_id, job_id, reason, amount_minor, currency)
    SELECT o.payment_id, o.job_id, o.reason, sum(o.minor), o.currency
    FROM owed o GROUP BY o.payment_id, o.job_id, o.reason, o.currency
    RETURNING id, payment_id, amount_minor
), lines AS (
    INSERT INTO refund_lines (refund_id, payment_id, kind, task_id, task_status, amount_minor)
    SELECT r.id, r.payment_id, o.kind, o.id,
           CASE o.kind WHEN 'shortfall' THEN 'failed' END, o.minor
    FROM refund r JOIN owed o ON o.payment_id = r.payment_id
), again AS (
    INSERT INTO payments
        (user_id, provider, status, tier_id, photo_count, amount_minor, currency, policy_id,
         order_avatar_id, order_style_id, request_id, succeeded_at, compensates)
    SELECT p.user_id, 'grant', 'succeeded', p.tier_id, c.total - c.delivered, 0, p.currency, p.policy_id,
           j.avatar_id, j.style_id, gen_random_uuid(), darkroom_now(), p.id
    FROM finished f
    JOIN counted c ON c.id = f.id AND c.again
    JOIN generation_jobs j ON j.id = f.id
    JOIN payments p ON p.id = f.payment_id
    RETURNING id
)
SELECT f.id AS job_id, f.payment_id, f.status, c.delivered, c.total,
       coalesce(r.amount_minor, 0) AS refund_minor, a.id AS again_payment_id
FROM finished f JOIN counted c ON c.id = f.id LEFT JOIN refund r ON TRUE LEFT JOIN again a ON TRUE
"""
"""Nothing is made again for somebody who has left. A free set that was to make a part good and did not gives
back that one's whole price. Said here, since psycopg remembers no longer text."""

SETTLE_WHOLE_JOBS: Final = (
    """
WITH ours AS (
    -- In their order, and none that somebody else holds: no job is waited for with another one in hand.
    SELECT j.id FROM generation_jobs j
    JOIN unnest(%(jobs)s::BIGINT[], %(claims)s::BIGINT[]) AS mine (id, claim) ON mine.id = j.id
    WHERE j.claim = mine.claim AND j.status = 'processing'
    ORDER BY j.id FOR NO KEY UPDATE OF j SKIP LOCKED
), whole AS (
    UPDATE generation_jobs j
    SET status = 'completed', finished_at = darkroom_now(), updated_at = darkroom_now(), lease_until = NULL
    FROM ours
    WHERE j.id = ours.id
      AND (SELECT bool_and(t.status = 'completed') FROM kie_tasks t WHERE t.job_id = j.id)
    RETURNING j.id, j.user_id, j.payment_id, j.total_photos
), got AS (
    """
    + NOTE_GOT_WHOLE
    + """
)
SELECT id AS job_id, payment_id, 'completed' AS status, total_photos AS delivered, total_photos AS total,
       0::BIGINT AS refund_minor, NULL::BIGINT AS again_payment_id
FROM whole ORDER BY id
"""
)
"""A photo that is delivered stays so, and of a set that has them all nothing goes back: no money is looked at,
so neither the payment nor the tasks are locked."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a job ended.

    Attributes:
        refund_minor: what goes back for it now.
        again_payment_id: the free set that makes what is missing again, where no part can be paid back.
    """

    job_id: int
    payment_id: int
    status: str
    delivered: int
    total: int
    refund_minor: int
    again_payment_id: int | None


async def settle_whole_jobs(tx: Connection, jobs: Sequence[JobClaim]) -> list[Settlement]:
    """Processing -> completed for those of `jobs` whose photos are all delivered: one guarded statement.

    The others are left as they are, for `settle_job`: also whose lease was lost, and who is in somebody's
    hands. A crash before the commit leaves all of them open, and due when the lease ends.
    """
    async with tx.cursor(row_factory=class_row(Settlement)) as cursor:
        await cursor.execute(
            SETTLE_WHOLE_JOBS,
            {"jobs": [job.id for job in jobs], "claims": [job.claim for job in jobs]},
        )
        return await cursor.fetchall()


async def settle_job(tx: Connection, job: JobClaim, *, whole_only: list[str]) -> Settlement | None:
    """End a job whose tasks are all terminal, and write what goes back, in one transaction.

    `whole_only` names the providers that pay back all or nothing. Past the deadline the open tasks become
    dead letters first. None: tasks are open and there is time left (the job sleeps until its deadline), or
    the lease was lost. A crash anywhere inside leaves the job open and due.
    """
    # The lock order of the whole program: payment, job, tasks by id, refund. The older payment first.
    await tx.execute(
        "SELECT FROM payments WHERE id = %(id)s "
        "OR id = (SELECT compensates FROM payments WHERE id = %(id)s) ORDER BY id FOR NO KEY UPDATE",
        {"id": job.payment_id},
    )
    async with tx.cursor(row_factory=scalar_row) as cursor:
        # Read behind the lock: a replay may have set another deadline since the claim.
        await cursor.execute(
            "SELECT deadline_at <= darkroom_now() FROM generation_jobs WHERE id = %s AND claim = %s "
            "AND status IN ('pending', 'processing') FOR NO KEY UPDATE",
            [job.id, job.claim],
        )
        deadline_passed = await cursor.fetchone()
    if deadline_passed is None:
        return None
    await tx.execute(
        "SELECT FROM kie_tasks WHERE job_id = %s ORDER BY id FOR NO KEY UPDATE", [job.id]
    )
    if deadline_passed:
        await _fail_open_tasks(tx, job.id)
    await tx.execute(
        "UPDATE generation_jobs j SET status = 'processing', updated_at = darkroom_now() "
        "WHERE id = %s AND status = 'pending' AND EXISTS (SELECT FROM task_attempts a "
        "JOIN kie_tasks t ON t.id = a.task_id WHERE t.job_id = j.id)",
        [job.id],
    )
    async with tx.cursor(row_factory=class_row(Settlement)) as cursor:
        await cursor.execute(
            SETTLE_JOB, {"job_id": job.id, "claim": job.claim, "whole_only": whole_only}
        )
        settlement = await cursor.fetchone()
    if settlement is None:
        await tx.execute(
            "UPDATE generation_jobs SET due_at = greatest(deadline_at, darkroom_now()), "
            "lease_until = NULL WHERE id = %s AND claim = %s",
            [job.id, job.claim],
        )
    elif settlement.delivered > 0:
        await note_got(tx, job.id)
    return settlement


async def _fail_open_tasks(tx: Connection, job_id: int) -> None:
    await tx.execute(
        """
        WITH failed AS (
            UPDATE kie_tasks
            SET status = 'failed', claim = claim + 1, lease_until = NULL,
                last_error = coalesce(last_error, 'the deadline passed'),
                status_since = darkroom_now(), updated_at = darkroom_now()
            WHERE job_id = %(job_id)s
              AND status IN ('queued', 'submitting', 'unknown', 'pending', 'storing')
            RETURNING id, job_id, attempts, last_error
        )
        INSERT INTO generation_dead_letter_queue (task_id, job_id, error_code, error_text, attempts)
        SELECT id, job_id, 'DEADLINE', last_error, attempts FROM failed
        ON CONFLICT DO NOTHING
        """,
        {"job_id": job_id},
    )
