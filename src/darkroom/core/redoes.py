"""A photo made again: a free set of one photo, written and started in one statement."""

from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.jobs import REFERENCES_MAX
from darkroom.db.database import Connection

_REDOS_USED: Final[LiteralString] = """
(SELECT count(*) FROM generated_photos g JOIN payments r ON r.redoes_photo_id = g.id WHERE g.job_id = j.id)
"""
_REDOS_LEFT: Final[LiteralString] = (
    """
CASE WHEN o.provider <> 'grant' AND o.status IN ('succeeded', 'partially_refunded')
          AND o.refund_reserved_minor < o.amount_minor
     THEN greatest(0, policy.redo_photos - """
    + _REDOS_USED
    + """) ELSE 0 END::INTEGER
"""
)
"""Of a set that was paid for and whose price is not going back whole. A redo that failed is one all the same:
its task can be replayed."""

_OF_PHOTO: Final[LiteralString] = """
FROM generated_photos p
JOIN kie_tasks t ON t.id = p.task_id
JOIN avatars a ON a.id = p.avatar_id
JOIN users u ON u.id = a.user_id
JOIN generation_jobs j ON j.id = p.job_id
JOIN payments o ON o.id = j.payment_id
JOIN refund_policies policy ON policy.id = o.policy_id
WHERE p.id = %(photo_id)s AND a.user_id = %(user_id)s
  AND p.deleted_at IS NULL AND a.deleted_at IS NULL AND u.forget_at IS NULL
"""

START_REDO: Final[LiteralString] = (
    """
WITH original AS (
    SELECT p.id AS photo_id, t.prompt_id, t.prompt, a.id AS avatar_id, t.style_id,
           o.tier_id, o.currency, o.policy_id, policy.job_deadline_seconds,
           coalesce(t.place, t.prompt_index) AS place,
           -- One that no photo of this prompt and avatar is.
           greatest(t.take + 1, (SELECT greatest(count(*), max(had.take) + 1) FROM kie_tasks had
                                 WHERE had.avatar_id = a.id AND had.prompt_id = t.prompt_id
                                   AND had.status <> 'failed')) AS take
    """
    + _OF_PHOTO
    + """
      AND j.status NOT IN ('pending', 'processing')
      AND """
    + _REDOS_LEFT
    + """ > 0
      AND NOT EXISTS (SELECT FROM payments r WHERE r.redoes_photo_id = p.id)
), selfies AS (
    SELECT array_agg(newest.id ORDER BY newest.id) AS ids
    FROM (
        SELECT r.id FROM reference_photos r JOIN original ON original.avatar_id = r.avatar_id
        WHERE r.deleted_at IS NULL
        ORDER BY r.id DESC LIMIT %(references_max)s
    ) newest
), payment AS (
    INSERT INTO payments
        (user_id, provider, status, tier_id, photo_count, amount_minor, currency, policy_id,
         order_avatar_id, order_style_id, request_id, succeeded_at, redoes_photo_id,
         generation_consumed, consumed_at, consumed_avatar_id)
    SELECT %(user_id)s, 'grant', 'succeeded', o.tier_id, 1, 0, o.currency, o.policy_id,
           o.avatar_id, o.style_id, %(request_id)s, darkroom_now(), o.photo_id,
           TRUE, darkroom_now(), o.avatar_id
    FROM original o, selfies
    WHERE selfies.ids IS NOT NULL
      AND %(open_jobs_max)s > (SELECT count(*) FROM generation_jobs j
                               WHERE j.user_id = %(user_id)s AND j.status IN ('pending', 'processing'))
    RETURNING id
), job AS (
    INSERT INTO generation_jobs
        (user_id, avatar_id, style_id, payment_id, total_photos, request_id,
         reference_ids, deadline_at, due_at)
    SELECT %(user_id)s, o.avatar_id, o.style_id, payment.id, 1, %(request_id)s,
           selfies.ids, deadline.at, deadline.at
    FROM payment, original o, selfies,
         LATERAL (SELECT darkroom_now() + make_interval(secs => o.job_deadline_seconds) AS at) deadline
    RETURNING id, payment_id, created_at
), task AS (
    INSERT INTO kie_tasks
        (job_id, avatar_id, style_id, prompt_id, prompt, prompt_index, take, place, seed, provider, turn,
         share_minor)
    SELECT job.id, o.avatar_id, o.style_id, o.prompt_id, o.prompt, 0, o.take, o.place,
           -- Of the photo, so that it is none that a set of this avatar and prompt ever gets.
           hashtextextended('again:' || o.photo_id, 0) & 9223372036854775807,
           %(provider)s, job.created_at, 0
    FROM job, original o
)
SELECT id AS job_id, payment_id FROM job
"""
)


@dataclass(frozen=True, slots=True)
class StartedRedo:
    """A photo that is being made again: its free payment is consumed and its one task is queued."""

    job_id: int
    payment_id: int


@dataclass(frozen=True, slots=True)
class RedoRequest:
    """Which photo, for whom, and by which provider."""

    user_id: int
    photo_id: int
    request_id: UUID
    provider: str
    open_jobs_max: int


async def start_redo(tx: Connection, request: RedoRequest) -> StartedRedo | None:
    """Write the free payment of one photo with its job and its task. Call it behind the user's lock.

    None: it may not be (see `look_at_redo`), and nothing was changed. The count of redos holds only behind the
    lock; that a photo is made again once, a unique index says, too.
    """
    async with tx.cursor(row_factory=class_row(StartedRedo)) as cursor:
        await cursor.execute(
            START_REDO,
            {
                "user_id": request.user_id,
                "photo_id": request.photo_id,
                "request_id": request.request_id,
                "provider": request.provider,
                "open_jobs_max": request.open_jobs_max,
                "references_max": REFERENCES_MAX,
            },
        )
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class RedoLook:
    """All that a wish for a redo can be wrong about."""

    redo_job_id: int | None
    set_is_open: bool
    left: int
    selfies: int
    open_jobs: int


async def look_at_redo(tx: Connection, *, user_id: int, photo_id: int) -> RedoLook | None:
    """What stands against making a photo again; None: no such photo of this user is shown. Read only."""
    async with tx.cursor(row_factory=class_row(RedoLook)) as cursor:
        await cursor.execute(
            """
            SELECT (SELECT again.id FROM payments r JOIN generation_jobs again ON again.payment_id = r.id
                    WHERE r.redoes_photo_id = p.id) AS redo_job_id,
                   j.status IN ('pending', 'processing') AS set_is_open,
                   """
            + _REDOS_LEFT
            + """ AS left,
                   (SELECT count(*) FROM reference_photos s
                    WHERE s.avatar_id = a.id AND s.deleted_at IS NULL) AS selfies,
                   (SELECT count(*) FROM generation_jobs mine WHERE mine.user_id = %(user_id)s
                    AND mine.status IN ('pending', 'processing')) AS open_jobs
            """
            + _OF_PHOTO,
            {"user_id": user_id, "photo_id": photo_id},
        )
        return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class KnownRedo:
    """What an earlier run of a request left."""

    user_id: int
    redoes_photo_id: int | None
    job_id: int | None
    payment_id: int


async def find_redo_by_request(tx: Connection, request_id: UUID) -> KnownRedo | None:
    """The payment that this request made, if its commit arrived, whatever it is for."""
    async with tx.cursor(row_factory=class_row(KnownRedo)) as cursor:
        await cursor.execute(
            "SELECT p.user_id, p.redoes_photo_id, j.id AS job_id, p.id AS payment_id "
            "FROM payments p LEFT JOIN generation_jobs j ON j.payment_id = p.id "
            "WHERE p.request_id = %s",
            [request_id],
        )
        return await cursor.fetchone()


async def count_redos_left(tx: Connection, *, user_id: int, job_id: int) -> int | None:
    """How many photos of this set its customer may still have made again; None: no such set of theirs."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT "
            + _REDOS_LEFT
            + " FROM generation_jobs j JOIN payments o ON o.id = j.payment_id "
            "JOIN refund_policies policy ON policy.id = o.policy_id "
            "WHERE j.id = %(job_id)s AND j.user_id = %(user_id)s",
            {"job_id": job_id, "user_id": user_id},
        )
        return await cursor.fetchone()
