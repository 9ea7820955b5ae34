"""Photos that failed for good, and giving them another try while their money stays."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from psycopg.rows import class_row, scalar_row

from darkroom.core.unused import MONEY_STAYS
from darkroom.db.database import Connection

REPLAYABLE: Final[LiteralString] = (
    """
NOT EXISTS (SELECT FROM refund_lines l WHERE l.task_id = d.task_id)
AND NOT EXISTS (
    SELECT FROM generation_jobs g JOIN users u ON u.id = g.user_id JOIN avatars a ON a.id = g.avatar_id
    WHERE g.id = d.job_id AND (u.forget_at IS NOT NULL OR a.deleted_at IS NOT NULL OR EXISTS (
        SELECT FROM reference_photos r WHERE r.id = ANY(g.reference_ids) AND r.erasing_at IS NOT NULL)))
AND NOT EXISTS (
    SELECT FROM generation_jobs g JOIN payments again ON again.compensates = g.payment_id
    WHERE g.id = d.job_id)
AND NOT EXISTS (
    SELECT FROM generation_jobs g JOIN payments free ON free.id = g.payment_id
    WHERE g.id = d.job_id AND free.compensates IS NOT NULL AND NOT """
    + MONEY_STAYS
    + ")"
)
"""Its money stays (of a free set, that of the set it makes good), its customer and their avatar do, the selfies
that it would be made from are all there, and it is not made again for free by another set."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An open dead letter. `replayable`: its money stays, and its selfies, avatar and customer do."""

    id: int
    task_id: int
    job_id: int
    provider: str
    prompt_index: int
    error_code: str
    error_text: str
    attempts: int
    created_at: datetime
    replayable: bool


async def list_dead_letters(tx: Connection, *, limit: int) -> list[DeadLetter]:
    """Open dead letters: those that can be replayed first, then the oldest first."""
    async with tx.cursor(row_factory=class_row(DeadLetter)) as cursor:
        await cursor.execute(
            """
            SELECT d.id, d.task_id, d.job_id, t.provider, t.prompt_index, d.error_code, d.error_text,
                   d.attempts, d.created_at, """
            + REPLAYABLE
            + """ AS replayable
            FROM generation_dead_letter_queue d JOIN kie_tasks t ON t.id = d.task_id
            WHERE d.replayed_at IS NULL
            -- Paid back, a letter stays open for ever: those must not keep the others from being seen.
            ORDER BY replayable DESC, d.id LIMIT %s
            """,
            [limit],
        )
        return await cursor.fetchall()


async def replay_dead_letter(tx: Connection, letter_id: int, *, provider: str | None) -> int | None:
    """failed -> queued with its attempts anew, its job open again until a new deadline.

    Returns the job's id; None when there is no such open letter, its money is going back (the foreign key
    of a shortfall line would refuse the move in any case), or its selfies, avatar or customer are gone: of
    this and the eraser at once, the second sees the first, behind the user's lock. `provider` None keeps
    the one it had.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT job_id FROM generation_dead_letter_queue WHERE id = %s AND replayed_at IS NULL",
            [letter_id],
        )
        job_id = await cursor.fetchone()
        if job_id is None:
            return None
        # The lock order: user, payment (the older one first, as settling takes them), job, task.
        await tx.execute(
            "SELECT FROM users WHERE id = (SELECT user_id FROM generation_jobs WHERE id = %s) "
            "FOR NO KEY UPDATE",
            [job_id],
        )
        await tx.execute(
            "SELECT FROM payments WHERE id IN ("
            "SELECT unnest(ARRAY[p.id, p.compensates]) FROM generation_jobs g "
            "JOIN payments p ON p.id = g.payment_id WHERE g.id = %s) ORDER BY id FOR NO KEY UPDATE",
            [job_id],
        )
        await tx.execute("SELECT FROM generation_jobs WHERE id = %s FOR NO KEY UPDATE", [job_id])
        await cursor.execute(
            """
            WITH letter AS (
                UPDATE generation_dead_letter_queue d SET replayed_at = darkroom_now()
                WHERE d.id = %(letter_id)s AND d.replayed_at IS NULL AND """
            + REPLAYABLE
            + """
                RETURNING d.task_id
            ), task AS (
                UPDATE kie_tasks t
                SET status = 'queued', provider = coalesce(%(provider)s, t.provider),
                    claim = t.claim + 1, attempts = 0, bad_results = 0,
                    attempts_forgiven = (SELECT count(*) FROM task_attempts paid
                        WHERE paid.task_id = t.id AND paid.refusal_code IS NULL),
                    kie_task_id = NULL, result_url = NULL, not_before = '-infinity',
                    due_at = darkroom_now(), status_since = darkroom_now(), updated_at = darkroom_now()
                FROM letter WHERE t.id = letter.task_id AND t.status = 'failed'
                RETURNING t.job_id
            )
            UPDATE generation_jobs j
            SET status = CASE WHEN j.status IN ('partial', 'failed') THEN 'processing' ELSE j.status END,
                finished_at = NULL, updated_at = darkroom_now(),
                -- Whoever is settling it with the old deadline in hand has lost it.
                claim = j.claim + 1, lease_until = NULL,
                deadline_at = darkroom_now() + make_interval(secs => policy.job_deadline_seconds),
                due_at = darkroom_now() + make_interval(secs => policy.job_deadline_seconds)
            FROM task, payments p JOIN refund_policies policy ON policy.id = p.policy_id
            WHERE j.id = task.job_id AND p.id = j.payment_id
            RETURNING j.id
            """,
            {"letter_id": letter_id, "provider": provider},
        )
        return await cursor.fetchone()
