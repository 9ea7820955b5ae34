"""Calls whose answer never came: what their attempt rows say by now, and where their tasks go."""

from dataclasses import dataclass

from psycopg.rows import class_row

from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class LapsedTask:
    """A task whose answer is not known: what the attempt row says by now."""

    id: int
    claim: int
    job_id: int
    provider: str
    attempt_id: int
    paid_attempts: int
    attempts_forgiven: int
    provider_task_id: str | None
    refusal_code: str | None


async def settle_lapsed_submitting(
    tx: Connection, *, limit: int, grace_seconds: float, idempotent_providers: list[str]
) -> int:
    """Move tasks whose worker died while calling, by the facts their attempt row holds.

    Accepted there: pending. Refused, or never called: queued. Called and nothing known: unknown, until
    the grace after the call (zero where creating is idempotent) is over. An attempt that was never called
    is written off as NOT_SENT, so that it counts for nothing and nobody can still call with it.
    """
    moved = await tx.execute(
        """
        WITH lapsed AS (
            SELECT t.id, a.id AS attempt_id, a.provider_task_id, a.refusal_code, a.called_at,
                   CASE WHEN a.provider_task_id IS NULL AND a.refusal_code IS NULL
                             AND t.provider <> ALL(%(idempotent)s)
                        THEN a.called_at + make_interval(secs => %(grace)s) END AS grace_ends
            FROM kie_tasks t JOIN task_attempts a ON a.id = t.attempt_id
            WHERE t.status = 'submitting' AND t.lease_until <= (SELECT darkroom_now())
            ORDER BY t.due_at, t.id LIMIT %(limit)s
            FOR NO KEY UPDATE OF t, a SKIP LOCKED
        ), never_sent AS (
            UPDATE task_attempts a
            SET refusal_code = 'NOT_SENT', answered_at = darkroom_now()
            FROM lapsed l
            WHERE a.id = l.attempt_id AND l.called_at IS NULL
              AND l.provider_task_id IS NULL AND l.refusal_code IS NULL
        )
        UPDATE kie_tasks t
        SET status = CASE WHEN l.provider_task_id IS NOT NULL THEN 'pending'
                          WHEN l.refusal_code IS NOT NULL OR l.called_at IS NULL THEN 'queued'
                          ELSE 'unknown' END,
            kie_task_id = l.provider_task_id, claim = t.claim + 1, lease_until = NULL,
            not_before = coalesce(l.grace_ends, '-infinity'),
            due_at = coalesce(l.grace_ends, darkroom_now()),
            status_since = darkroom_now(), updated_at = darkroom_now()
        FROM lapsed l WHERE t.id = l.id
        """,
        {"limit": limit, "grace": grace_seconds, "idempotent": idempotent_providers},
    )
    return moved.rowcount


async def list_due_unknown(tx: Connection, *, limit: int) -> list[LapsedTask]:
    """Tasks in `unknown` whose wait is over: the answer is known by now, or the grace has passed. Read only."""
    async with tx.cursor(row_factory=class_row(LapsedTask)) as cursor:
        await cursor.execute(
            """
            SELECT t.id, t.claim, t.job_id, t.provider, t.attempts_forgiven, a.id AS attempt_id,
                   a.provider_task_id, a.refusal_code,
                   (SELECT count(*) FROM task_attempts paid
                    WHERE paid.task_id = t.id AND paid.refusal_code IS NULL) AS paid_attempts
            FROM kie_tasks t JOIN task_attempts a ON a.id = t.attempt_id
            WHERE t.status = 'unknown'
              AND (t.due_at <= (SELECT darkroom_now()) OR a.provider_task_id IS NOT NULL)
            ORDER BY t.due_at, t.id LIMIT %(limit)s
            """,
            {"limit": limit},
        )
        return await cursor.fetchall()


async def move_unknown(tx: Connection, task: LapsedTask, *, provider: str | None = None) -> bool:
    """Unknown -> pending where the attempt's task has become known since, else unknown -> queued.

    With a provider, a queued one goes to that one, with its attempts anew.

    The attempt row is read inside the statement, so an adoption that came a moment ago still counts.
    """
    moved = await tx.execute(
        """
        UPDATE kie_tasks t
        SET status = CASE WHEN a.provider_task_id IS NULL THEN 'queued' ELSE 'pending' END,
            kie_task_id = a.provider_task_id, claim = t.claim + 1, attempts = 0,
            provider = CASE WHEN a.provider_task_id IS NULL
                            THEN coalesce(%(provider)s, t.provider) ELSE t.provider END,
            attempts_forgiven = CASE WHEN a.provider_task_id IS NULL AND %(provider)s::TEXT IS NOT NULL
                                     THEN %(paid)s ELSE t.attempts_forgiven END,
            due_at = darkroom_now(), not_before = '-infinity',
            status_since = darkroom_now(), updated_at = darkroom_now()
        FROM task_attempts a
        WHERE t.id = %(id)s AND t.claim = %(claim)s AND t.status = 'unknown' AND a.id = t.attempt_id
        """,
        {
            "id": task.id,
            "claim": task.claim,
            "provider": provider,
            "paid": task.paid_attempts,
        },
    )
    return moved.rowcount == 1
