"""Starting a set on a payment, and what its owner sees of it. Settling it: `core/settle_jobs.py`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.requests import lock_anybody
from darkroom.db.database import Connection

REFERENCES_MAX: Final = 8
"""Selfies given to a provider: nano-banana-pro takes at most 8 (external-apis 1.2)."""

CLAIM_PAYMENT: Final = """
WITH chosen AS (
    SELECT p.id, p.photo_count, p.amount_minor, policy.job_deadline_seconds
    FROM payments p
    JOIN refund_policies policy ON policy.id = p.policy_id
    WHERE p.user_id = %(user_id)s AND p.status = 'succeeded' AND NOT p.generation_consumed
      AND NOT EXISTS (SELECT FROM users u WHERE u.id = p.user_id AND u.forget_at IS NOT NULL)
      AND (%(payment_id)s::BIGINT IS NULL OR p.id = %(payment_id)s)
      AND (p.order_avatar_id IS NULL
           OR (p.order_avatar_id = %(avatar_id)s AND p.order_style_id = %(style_id)s))
    ORDER BY p.order_avatar_id IS NOT NULL, p.created_at DESC, p.id DESC
    LIMIT 1
), selfies AS (
    SELECT array_agg(newest.id ORDER BY newest.id) AS ids
    FROM (
        SELECT r.id FROM reference_photos r
        JOIN avatars a ON a.id = r.avatar_id
        WHERE a.id = %(avatar_id)s AND a.user_id = %(user_id)s
          AND a.deleted_at IS NULL AND r.deleted_at IS NULL
        ORDER BY r.id DESC LIMIT %(references_max)s
    ) newest
), consumed AS (
    UPDATE payments p
    SET generation_consumed = TRUE, consumed_at = darkroom_now(),
        consumed_avatar_id = %(avatar_id)s, updated_at = darkroom_now()
    FROM chosen, selfies
    WHERE p.id = chosen.id AND p.status = 'succeeded' AND NOT p.generation_consumed
      AND selfies.ids IS NOT NULL
      AND EXISTS (SELECT FROM prompts q WHERE q.style_id = %(style_id)s)
      AND (%(open_jobs_max)s::INTEGER IS NULL OR %(open_jobs_max)s > (
          SELECT count(*) FROM generation_jobs j
          WHERE j.user_id = %(user_id)s AND j.status IN ('pending', 'processing')))
    RETURNING p.id, p.photo_count, p.amount_minor, chosen.job_deadline_seconds, selfies.ids
), job AS (
    INSERT INTO generation_jobs
        (user_id, avatar_id, style_id, payment_id, total_photos, request_id,
         reference_ids, deadline_at, due_at)
    SELECT %(user_id)s, %(avatar_id)s, %(style_id)s, c.id, c.photo_count, %(request_id)s,
           c.ids, deadline.at, deadline.at
    FROM consumed c,
         LATERAL (SELECT darkroom_now() + make_interval(secs => c.job_deadline_seconds) AS at) deadline
    RETURNING id, avatar_id, style_id, payment_id, status, total_photos, created_at
), used AS (
    SELECT t.prompt_id, greatest(count(*), max(t.take) + 1) AS takes,
           count(*) FILTER (WHERE t.job_id NOT IN (
               SELECT j.id FROM payments r JOIN generation_jobs j ON j.payment_id = r.id
               WHERE r.user_id = %(user_id)s AND r.redoes_photo_id IS NOT NULL)) AS times
    FROM kie_tasks t
    WHERE t.avatar_id = %(avatar_id)s AND t.status <> 'failed'
    GROUP BY t.prompt_id
), turns AS (
    SELECT q.id, q.text, q.position, coalesce(u.times, 0) + round.number AS turn,
           coalesce(u.takes, 0) + round.number AS take,
           dense_rank() OVER (ORDER BY q.position, q.id) - 1 AS place
    FROM consumed c
    CROSS JOIN LATERAL generate_series(0, c.photo_count - 1) AS round (number)
    JOIN prompts q ON q.style_id = %(style_id)s
    LEFT JOIN used u ON u.prompt_id = q.id
    WHERE q.is_active
       OR NOT EXISTS (SELECT FROM prompts o WHERE o.style_id = %(style_id)s AND o.is_active)
), picked AS (
    SELECT turns.*, row_number() OVER (ORDER BY turn, position, id) - 1 AS prompt_index
    FROM turns
), tasks AS (
    INSERT INTO kie_tasks
        (job_id, avatar_id, style_id, prompt_id, prompt, prompt_index, take, place, seed, provider, turn,
         share_minor)
    SELECT job.id, job.avatar_id, job.style_id, k.id, k.text, k.prompt_index, k.take, k.place,
           hashtextextended(job.avatar_id || ':' || k.id || ':' || k.turn, 0) & 9223372036854775807,
           %(provider)s,
           job.created_at + k.prompt_index * INTERVAL '2 seconds',
           c.amount_minor / c.photo_count
           + CASE WHEN k.prompt_index < c.amount_minor %% c.photo_count THEN 1 ELSE 0 END
    FROM job, consumed c, picked k
    WHERE k.prompt_index < c.photo_count
)
SELECT id, avatar_id, style_id, payment_id, status, total_photos FROM job
"""
"""Every prompt as often as the whole set could need it, first those this avatar never had (or whose photo
failed): its `turn`, and with it another seed. A photo made again takes no turn, so that a whole set later has
every prompt once all the same; but it is a `take`, like every photo of the prompt, so that no two look alike.
`place` is the prompt's among those of its style. Shares: the largest remainder with equal weights, the first
photos carry one minor unit more. Said here, since psycopg remembers no longer text."""


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A set that stands: its payment is consumed and its tasks are queued."""

    id: int
    avatar_id: int
    style_id: str
    payment_id: int
    status: str
    total_photos: int


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to start. `payment_id` None takes the newest payment that is bound to no other order.

    `open_jobs_max` None: as many sets at once as were paid for (an order whose money came must start).
    """

    user_id: int
    avatar_id: int
    style_id: str
    payment_id: int | None
    request_id: UUID
    provider: str
    open_jobs_max: int | None = None


async def start_job(
    tx: Connection, request: StartRequest, *, lock_timeout_ms: int | None
) -> StartedJob | None:
    """Consume one payment and insert its job and tasks, in one statement, behind the user's lock.

    None: no payment of this user can pay for it, and nothing was changed. The photo count, the price
    shares and the deadline are the payment's, never the caller's. A crash before the commit leaves the
    payment as it was; after it, the tasks are due and any worker goes on.

    Args:
        tx: where.
        request: what.
        lock_timeout_ms: how long the user's lock may take; None: the caller holds it already.

    Raises:
        RowBusyError: another claim of this user took longer than `lock_timeout_ms`.
    """
    params = {
        "user_id": request.user_id,
        "avatar_id": request.avatar_id,
        "style_id": request.style_id,
        "payment_id": request.payment_id,
        "request_id": request.request_id,
        "provider": request.provider,
        "open_jobs_max": request.open_jobs_max,
        "references_max": REFERENCES_MAX,
    }
    if lock_timeout_ms is not None:
        # Of one who left the claim takes nothing.
        await lock_anybody(tx, request.user_id, lock_timeout_ms=lock_timeout_ms)
    async with tx.cursor(row_factory=class_row(StartedJob)) as cursor:
        await cursor.execute(CLAIM_PAYMENT, params)
        return await cursor.fetchone()


async def find_job_by_request(tx: Connection, request_id: UUID) -> StartedJob | None:
    """The job that an earlier run of the same request left, if its commit arrived."""
    async with tx.cursor(row_factory=class_row(StartedJob)) as cursor:
        await cursor.execute(
            "SELECT id, avatar_id, style_id, payment_id, status, total_photos "
            "FROM generation_jobs WHERE request_id = %s",
            [request_id],
        )
        return await cursor.fetchone()


async def find_started_job(tx: Connection, job_id: int) -> StartedJob | None:
    """A job by its id, in the shape a start answers with."""
    async with tx.cursor(row_factory=class_row(StartedJob)) as cursor:
        await cursor.execute(
            "SELECT id, avatar_id, style_id, payment_id, status, total_photos "
            "FROM generation_jobs WHERE id = %s",
            [job_id],
        )
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class JobClaim:
    """A job that this worker may settle while its lease holds."""

    id: int
    claim: int
    payment_id: int
    user_id: int


async def claim_due_jobs(tx: Connection, *, limit: int, lease_seconds: float) -> list[JobClaim]:
    """Lease the jobs that are due to be settled, oldest first.

    `due_at` moves behind the lease, so that one job whose settling fails cannot stop those behind it.
    """
    async with tx.cursor(row_factory=class_row(JobClaim)) as cursor:
        await cursor.execute(
            """
            WITH due AS (
                SELECT id FROM generation_jobs
                WHERE status IN ('pending', 'processing')
                  AND due_at <= (SELECT darkroom_now())
                  AND (lease_until IS NULL OR lease_until <= (SELECT darkroom_now()))
                ORDER BY due_at, id LIMIT %(limit)s
                FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE generation_jobs j
            SET claim = j.claim + 1, attempts = j.attempts + 1,
                lease_until = darkroom_now() + make_interval(secs => %(lease)s),
                due_at = darkroom_now() + make_interval(secs => %(lease)s)
            WHERE j.id = ANY(ARRAY(SELECT id FROM due))
            RETURNING j.id, j.claim, j.payment_id, j.user_id
            """,
            {"limit": limit, "lease": lease_seconds},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its owner sees it."""

    id: int
    avatar_id: int
    style_id: str
    payment_id: int
    status: str
    total_photos: int
    completed_photos: int
    failed_photos: int
    created_at: datetime
    deadline_at: datetime
    finished_at: datetime | None
    refunded_minor: int
    refunding_minor: int
    currency: str


VIEW_JOB: Final = """
SELECT j.id, j.avatar_id, j.style_id, j.payment_id, j.status, j.total_photos,
       j.completed_photos, j.created_at, j.deadline_at, j.finished_at, p.currency,
       (SELECT count(*) FROM kie_tasks t
        WHERE t.job_id = j.id AND t.status = 'failed') AS failed_photos,
       back.refunded_minor, back.refunding_minor
FROM generation_jobs j JOIN payments p ON p.id = j.payment_id,
LATERAL (SELECT coalesce(sum(r.settled_minor), 0)::BIGINT AS refunded_minor,
                coalesce(sum(r.amount_minor - r.settled_minor), 0)::BIGINT AS refunding_minor
         FROM refunds r WHERE r.payment_id = j.payment_id) back
"""


async def view_job(tx: Connection, *, user_id: int, job_id: int) -> JobView | None:
    """One job of this user, counted by the job's own tasks; None for anybody else's."""
    async with tx.cursor(row_factory=class_row(JobView)) as cursor:
        await cursor.execute(VIEW_JOB + "WHERE j.id = %s AND j.user_id = %s", [job_id, user_id])
        return await cursor.fetchone()


async def find_job_status(tx: Connection, job_id: int) -> str | None:
    """Where a job stands, for our own eyes: it does not ask whose it is."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT status FROM generation_jobs WHERE id = %s", [job_id])
        return await cursor.fetchone()


async def ring_job(tx: Connection, job_id: int) -> int:
    """Pull a job's waiting tasks forward, never before a backoff ends. Returns how many there are.

    A doorbell: it touches no lease, and ringing it 50 times changes nothing.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            WITH waiting AS (
                SELECT id FROM kie_tasks
                WHERE job_id = %s AND status IN ('queued', 'unknown', 'pending', 'storing')
                  AND due_at > greatest(darkroom_now(), not_before)
                ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
            ), rung AS (
                UPDATE kie_tasks t SET due_at = greatest(darkroom_now(), not_before)
                FROM waiting w WHERE t.id = w.id RETURNING t.id
            )
            SELECT count(*) FROM rung
            """,
            [job_id],
        )
        return int(await cursor.fetchone() or 0)
