"""The spend ledger. What the outside answered is a fact: written by attempt id, never fenced.

A worker that lost its lease still writes what it heard; only moves of tasks are fenced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.tasks import TaskClaim
from darkroom.db.database import Connection
from darkroom.ports.generation import Reference

BEGIN_CALLS: Final = """
WITH ours AS MATERIALIZED (
    SELECT * FROM unnest(%(attempts)s::BIGINT[], %(tokens)s::UUID[], %(tasks)s::BIGINT[], %(claims)s::BIGINT[])
             AS ours (attempt_id, token, task_id, claim)
), jobs AS MATERIALIZED (
    SELECT j.id FROM generation_jobs j
    WHERE j.status = 'pending' AND j.id = ANY(ARRAY(
        SELECT t.job_id FROM kie_tasks t JOIN ours ON ours.task_id = t.id
        WHERE t.claim = ours.claim AND t.status = 'submitting'))
    ORDER BY j.id FOR NO KEY UPDATE
), asked AS (
    UPDATE generation_jobs j SET status = 'processing', updated_at = darkroom_now()
    FROM jobs WHERE j.id = jobs.id
    RETURNING j.id
), held AS MATERIALIZED (
    -- Jobs first, tasks second, as everywhere: counting makes it so. Whoever had a job may have ended tasks.
    SELECT ours.attempt_id, ours.token
    FROM kie_tasks t JOIN ours ON ours.task_id = t.id
    WHERE t.claim = ours.claim AND t.status = 'submitting' AND (SELECT count(*) FROM asked) >= 0
    ORDER BY t.id FOR NO KEY UPDATE OF t
)
UPDATE task_attempts a SET called_at = darkroom_now()
FROM held
WHERE a.id = held.attempt_id AND a.token = held.token AND a.called_at IS NULL AND a.refusal_code IS NULL
RETURNING a.id, ARRAY(
    SELECT ARRAY[r.object_key, r.sha256, r.content_type]
    FROM kie_tasks t JOIN generation_jobs j ON j.id = t.job_id
    JOIN reference_photos r ON r.id = ANY(j.reference_ids)
    WHERE t.id = a.task_id ORDER BY r.id)
"""


async def begin_calls(
    tx: Connection, tasks: Sequence[TaskClaim]
) -> dict[int, tuple[Reference, ...]]:
    """Say that calls may be made for these claims from here on. Returns the attempts that may.

    With each come the selfies that its set was started with, in their order. Their jobs are `processing` from
    here on. Those not returned belong to tasks that somebody else has by now, and must not be called. A crash
    before this commits costs nothing; after it, an answer may be missing.

    Claims do not wait for the disk (`core/leases.py`). A server that died may have forgotten one and given its
    number and its attempt's id to somebody else: the attempt's token is random, and theirs is another.
    """
    async with tx.cursor() as cursor:
        await cursor.execute(
            BEGIN_CALLS,
            {
                "attempts": [task.attempt_id for task in tasks],
                "tokens": [task.token for task in tasks],
                "tasks": [task.id for task in tasks],
                "claims": [task.claim for task in tasks],
            },
        )
        return {
            attempt_id: tuple(Reference(*selfie) for selfie in selfies)
            for attempt_id, selfies in await cursor.fetchall()
        }


async def hold_attempt(tx: Connection, attempt_id: int) -> str | None:
    """Lock an attempt against facts that arrive now, and read the provider's task it has, if any."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT provider_task_id FROM task_attempts WHERE id = %s FOR NO KEY UPDATE",
            [attempt_id],
        )
        return await cursor.fetchone()


async def record_refused(tx: Connection, attempt_id: int, code: str, text: str) -> None:
    """The provider said a definite no: nothing was created."""
    await tx.execute(
        "UPDATE task_attempts SET refusal_code = %s, error_text = %s, answered_at = darkroom_now() "
        "WHERE id = %s AND provider_task_id IS NULL AND refusal_code IS NULL",
        [code, text, attempt_id],
    )


async def record_failed(
    tx: Connection, attempt_id: int, *, code: str, text: str, credits_used: float | None
) -> None:
    """The provider gave up on this attempt."""
    await tx.execute(
        "UPDATE task_attempts SET end_state = 'failed', error_code = %s, error_text = %s, "
        "credits = %s, ended_at = darkroom_now() WHERE id = %s AND end_state IS NULL",
        [code, text, credits_used, attempt_id],
    )


async def record_lost(tx: Connection, attempt_id: int, text: str) -> None:
    """The attempt's task or picture was never heard of again."""
    await tx.execute(
        "UPDATE task_attempts SET end_state = 'lost', error_text = %s, ended_at = darkroom_now() "
        "WHERE id = %s AND end_state IS NULL",
        [text, attempt_id],
    )


async def close_abandoned(tx: Connection, *, limit: int) -> int:
    """End attempts that nobody waits for any more: their task was settled, or goes on with another attempt.

    One that was called and never ended stays a possible cost; its provider is asked about it later.
    """
    closed = await tx.execute(
        """
        UPDATE task_attempts a
        SET end_state = 'lost', error_text = coalesce(a.error_text, 'nobody waits for it any more'),
            ended_at = darkroom_now()
        WHERE a.end_state IS NULL AND a.id = ANY(ARRAY(
            SELECT o.id FROM task_attempts o JOIN kie_tasks t ON t.id = o.task_id
            WHERE o.ended_at IS NULL AND o.refusal_code IS NULL
              AND (t.attempt_id <> o.id OR t.status IN ('queued', 'completed', 'failed'))
            ORDER BY o.id LIMIT %s))
        """,
        [limit],
    )
    return closed.rowcount


@dataclass(frozen=True, slots=True)
class Adopted:
    """An attempt whose provider task became known by its token."""

    attempt_id: int
    task_id: int
    job_id: int


async def adopt(
    tx: Connection, *, account: str, token: UUID, provider_task_id: str
) -> Adopted | None:
    """Bind a provider's task to the attempt whose token it echoed. None: no such open attempt.

    Harmless twice: the same binding again finds the row and changes nothing.
    """
    async with tx.cursor(row_factory=class_row(Adopted)) as cursor:
        await cursor.execute(
            """
            UPDATE task_attempts a
            SET provider_task_id = %(provider_task_id)s,
                adopted = a.adopted OR a.provider_task_id IS NULL,
                answered_at = coalesce(a.answered_at, darkroom_now())
            FROM kie_tasks t
            WHERE a.token = %(token)s AND split_part(a.provider, ':', 1) = %(account)s
              AND a.refusal_code IS NULL
              AND (a.provider_task_id IS NULL OR a.provider_task_id = %(provider_task_id)s)
              AND t.id = a.task_id
            RETURNING a.id AS attempt_id, a.task_id, t.job_id
            """,
            {"account": account, "token": token, "provider_task_id": provider_task_id},
        )
        return await cursor.fetchone()


async def find_by_provider_task(
    tx: Connection, *, account: str, provider_task_id: str
) -> Adopted | None:
    """The attempt that has this provider task, with whichever model of the account."""
    async with tx.cursor(row_factory=class_row(Adopted)) as cursor:
        await cursor.execute(
            "SELECT a.id AS attempt_id, a.task_id, t.job_id FROM task_attempts a "
            "JOIN kie_tasks t ON t.id = a.task_id "
            "WHERE split_part(a.provider, ':', 1) = %s AND a.provider_task_id = %s",
            [account, provider_task_id],
        )
        return await cursor.fetchone()


async def token_is_known(tx: Connection, *, account: str, token: UUID) -> bool:
    """Whether an attempt of this account carries this token."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT EXISTS (SELECT FROM task_attempts "
            "WHERE split_part(provider, ':', 1) = %s AND token = %s)",
            [account, token],
        )
        return bool(await cursor.fetchone())
