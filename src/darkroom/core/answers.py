"""What providers answered, for many tasks in one statement: the fact by attempt, the move by task and claim.

A fact is written whoever holds the task by now; a move only while the claim stands. Rows are locked in the
order of their ids, as everywhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import scalar_row

from darkroom.core.leases import UNWAITED
from darkroom.core.tasks import TaskClaim
from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class CreatedThere:
    """The provider has this task's attempt, as `provider_task_id`; ask about it in a while."""

    task: TaskClaim
    provider_task_id: str
    ask_in_seconds: float


@dataclass(frozen=True, slots=True)
class ReadyThere:
    """A picture of this task's attempt waits at `result_url`, until `dies_at` if that is known."""

    task: TaskClaim
    result_url: str
    credits_used: float | None
    dies_at: datetime | None


WRITE_CREATED: Final = """
WITH told AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(told)s::JSONB) AS told (
        task_id BIGINT, claim BIGINT, attempt_id BIGINT, provider_task_id TEXT, pause FLOAT8)
), fact AS (
    -- The first answer stands.
    UPDATE task_attempts a SET provider_task_id = told.provider_task_id, answered_at = darkroom_now()
    FROM told
    WHERE a.id = told.attempt_id AND a.provider_task_id IS NULL AND a.refusal_code IS NULL
), held AS MATERIALIZED (
    SELECT t.id, told.provider_task_id, told.pause
    FROM kie_tasks t JOIN told ON told.task_id = t.id
    WHERE t.status = 'submitting' AND t.claim = told.claim
    ORDER BY t.id FOR NO KEY UPDATE OF t
)
UPDATE kie_tasks t
SET status = 'pending', kie_task_id = held.provider_task_id, attempts = 0, last_error = NULL,
    lease_until = NULL, not_before = '-infinity',
    due_at = darkroom_now() + make_interval(secs => held.pause),
    status_since = darkroom_now(), updated_at = darkroom_now()
FROM held WHERE t.id = held.id
RETURNING t.id
"""

WRITE_READY: Final = (
    """
WITH told AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(told)s::JSONB) AS told (
        task_id BIGINT, claim BIGINT, attempt_id BIGINT, result_url TEXT, credits NUMERIC,
        dies_at TIMESTAMPTZ)
), fact AS (
    UPDATE task_attempts a
    SET end_state = 'succeeded', result_url = told.result_url, credits = told.credits,
        ended_at = darkroom_now()
    FROM told WHERE a.id = told.attempt_id AND a.end_state IS NULL
), held AS MATERIALIZED (
    SELECT t.id, told.result_url, told.dies_at
    FROM kie_tasks t JOIN told ON told.task_id = t.id
    WHERE t.status = 'pending' AND t.claim = told.claim
    ORDER BY t.id FOR NO KEY UPDATE OF t
)
UPDATE kie_tasks t
SET status = 'storing', result_url = held.result_url, result_dies_at = held.dies_at,
    attempts = 0, last_error = NULL,
    lease_until = NULL, not_before = '-infinity', due_at = darkroom_now(),
    status_since = darkroom_now(), updated_at = darkroom_now()
FROM held WHERE t.id = held.id AND """
    + UNWAITED
    + """
RETURNING t.id
"""
)
"""Lost with a server that dies, it is asked for again."""


async def write_created(tx: Connection, answers: Sequence[CreatedThere]) -> set[int]:
    """Submitting -> pending for each that is still ours, and each answer as a fact. Gives the moved tasks' ids.

    Harmless twice.
    """
    told = [
        {
            "task_id": one.task.id,
            "claim": one.task.claim,
            "attempt_id": one.task.attempt_id,
            "provider_task_id": one.provider_task_id,
            "pause": one.ask_in_seconds,
        }
        for one in answers
    ]
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(WRITE_CREATED, {"told": json.dumps(told)})
        return set(await cursor.fetchall())


async def write_ready(tx: Connection, answers: Sequence[ReadyThere]) -> set[int]:
    """Pending -> storing for each that is still ours, and each answer as a fact. Gives the moved tasks' ids.

    Due at once. Harmless twice.
    """
    told = [
        {
            "task_id": one.task.id,
            "claim": one.task.claim,
            "attempt_id": one.task.attempt_id,
            "result_url": one.result_url,
            "credits": one.credits_used,
            "dies_at": None if one.dies_at is None else one.dies_at.isoformat(),
        }
        for one in answers
    ]
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(WRITE_READY, {"told": json.dumps(told)})
        return set(await cursor.fetchall())
