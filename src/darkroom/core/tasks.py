"""Claims and moves of tasks. Every move says which status and which claim it starts from.

A move that returns False (zero rows) means "not yours any more": stop, log, do not retry.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, LiteralString
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from darkroom.core.budget import FREE, model_key
from darkroom.core.leases import UNWAITED
from darkroom.db.database import Connection

RUNG: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When a leased task is due that was called meanwhile. Whoever gives it back sees it (`release`)."""


@dataclass(frozen=True, slots=True)
class TaskClaim:
    """A task this worker may work on while its lease holds, with its attempt under way."""

    id: int
    claim: int
    job_id: int
    avatar_id: int
    style_id: str
    prompt: str
    prompt_index: int
    take: int
    place: int
    seed: int
    provider: str
    kie_task_id: str | None
    result_url: str | None
    attempts: int
    attempt_id: int
    attempt_number: int
    paid_attempts: int
    bad_results: int
    attempts_forgiven: int
    token: UUID
    status_since: datetime
    status_age_seconds: float
    begun_age_seconds: float
    result_left_seconds: float | None
    lapses: int


_CLAIM_COLUMNS: Final = """
    t.id, t.claim, t.job_id, t.avatar_id, t.style_id, t.prompt, t.prompt_index, t.take,
    coalesce(t.place, t.prompt_index) AS place, t.seed, t.provider, t.kie_task_id, t.result_url,
    t.attempts, a.id AS attempt_id, a.number AS attempt_number, a.token,
    -- Attempts that may have cost the provider's money: all but those refused outright.
    (SELECT count(*) FROM task_attempts paid
     WHERE paid.task_id = t.id AND paid.refusal_code IS NULL) AS paid_attempts,
    t.bad_results, t.attempts_forgiven, t.status_since,
    extract(epoch FROM darkroom_now() - t.status_since)::FLOAT8 AS status_age_seconds,
    -- A provider may let it stand in its line: that time is not the making's.
    extract(epoch FROM darkroom_now() - greatest(t.status_since, t.in_line_at))::FLOAT8 AS begun_age_seconds,
    extract(epoch FROM t.result_dies_at - darkroom_now())::FLOAT8 AS result_left_seconds,
    t.lapses
"""


def _queued(*, only_if: LiteralString = "") -> LiteralString:
    return (
        """
WITH due AS (
    -- By turn, straight from the index; rows in a backoff are few, and passed over.
    SELECT id FROM kie_tasks
    WHERE status = 'queued' AND provider = %(provider)s AND due_at <= (SELECT darkroom_now())"""
        + only_if
        + """
    ORDER BY turn, id LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
), a AS (
    -- The intent, before the call: what stands here when the worker dies is a call that may have been made.
    INSERT INTO task_attempts (task_id, number, provider, model, expected_credits)
    SELECT t.id, 1 + (SELECT count(*) FROM task_attempts old WHERE old.task_id = t.id), t.provider,
           %(model)s, %(price)s
    FROM kie_tasks t JOIN due ON due.id = t.id
    RETURNING id, task_id, number, token
), t AS (
    UPDATE kie_tasks t
    SET status = 'submitting', claim = t.claim + 1, attempt_id = a.id,
        kie_task_id = NULL, result_url = NULL, result_dies_at = NULL, link_alarm_at = NULL,
        lapses = 0, lease_until = darkroom_now() + make_interval(secs => %(lease)s),
        status_since = darkroom_now(), updated_at = darkroom_now()
    FROM a WHERE t.id = a.task_id AND t.status = 'queued' AND """
        + UNWAITED
        + """
    RETURNING t.*
)
SELECT """
        + _CLAIM_COLUMNS
        + " FROM t JOIN a ON a.task_id = t.id ORDER BY t.id"
    )


CLAIM_QUEUED: Final = _queued()
CLAIM_QUEUED_FREE: Final = _queued(only_if=" AND (SELECT " + FREE + ")")
"""Where nothing is to be counted (FREE says when); elsewhere it finds nothing."""
CLAIM_QUEUED_PROBE: Final = _queued(
    only_if="""
      AND NOT EXISTS (SELECT FROM kie_tasks other JOIN task_attempts a ON a.task_id = other.id
                      WHERE other.job_id = kie_tasks.job_id AND a.called_at IS NOT NULL
                        AND a.provider_task_id IS NULL AND a.refusal_code IS NULL)"""
)
"""Of sets whose creations were all answered: the others may be what the account does not answer to."""


def _leasable(
    status: LiteralString, *, order: LiteralString, limit: LiteralString, more: LiteralString = ""
) -> LiteralString:
    # The status is written into the text, not bound: a generic plan can then use the partial index.
    return (
        """(
    SELECT id FROM kie_tasks
    WHERE status = '"""
        + status
        + """' AND due_at <= (SELECT darkroom_now())
      AND (lease_until IS NULL OR lease_until <= (SELECT darkroom_now()))"""
        + more
        + " ORDER BY "
        + order
        + " LIMIT "
        + limit
        + """
    FOR NO KEY UPDATE SKIP LOCKED
)"""
    )


_LEASED: Final = (
    """, t AS (
    UPDATE kie_tasks t
    SET claim = t.claim + 1, lease_until = darkroom_now() + make_interval(secs => %(lease)s),
        lapses = t.lapses + (t.status = 'storing' AND t.lease_until IS NOT NULL)::INTEGER
    WHERE t.id = ANY(ARRAY(SELECT id FROM due)) AND """
    + UNWAITED
    + """
    RETURNING t.*
)
SELECT """
    + _CLAIM_COLUMNS
    + " FROM t JOIN task_attempts a ON a.id = t.attempt_id ORDER BY t.id"
)
_DEATH_NEAR: Final = "(SELECT darkroom_now() + make_interval(secs => %(dying)s))"

CLAIM_PENDING: Final = (
    "WITH due AS " + _leasable("pending", order="due_at, id", limit="%(limit)s") + _LEASED
)
CLAIM_STORING: Final = (
    "WITH dying AS "
    + _leasable(
        "storing",
        more=" AND result_dies_at <= " + _DEATH_NEAR,
        order="result_dies_at, due_at, id",
        limit="%(limit)s",
    )
    + ", others AS "
    + _leasable(
        "storing",
        more=" AND (result_dies_at IS NULL OR result_dies_at > " + _DEATH_NEAR + ")",
        order="due_at, id",
        limit="(%(limit)s - (SELECT count(*) FROM dying))",
    )
    + ", due AS (SELECT id FROM dying UNION ALL SELECT id FROM others)"
    + _LEASED
)
"""First those whose link dies soon, the soonest first; the rest by turn, so that what fails waits behind what
was not tried yet. Each of the two straight from its index."""


async def _claim(tx: Connection, query: LiteralString, bounds: dict[str, float]) -> list[TaskClaim]:
    async with tx.cursor(row_factory=class_row(TaskClaim)) as cursor:
        await cursor.execute(query, bounds)
        return await cursor.fetchall()


async def claim_queued(
    tx: Connection,
    *,
    provider: str,
    limit: int,
    lease_seconds: float,
    model: str | None = None,
    price_credits: float | None = None,
    while_free: str | None = None,
    is_probe: bool = False,
) -> list[TaskClaim]:
    """Move due tasks of one provider to `submitting` and write their attempt rows, in one statement.

    The attempt says which model is asked and what it is expected to cost. A crash after it leaves attempts
    without an answer; `settle_unknown` finds them when the lease ends.

    `while_free` names an account: then nothing is claimed while something is to be counted for it.
    `is_probe`: only of sets whose creations were all answered.
    """
    plain = CLAIM_QUEUED_PROBE if is_probe else CLAIM_QUEUED
    async with tx.cursor(row_factory=class_row(TaskClaim)) as cursor:
        await cursor.execute(
            plain if while_free is None else CLAIM_QUEUED_FREE,
            {
                "provider": provider,
                "limit": limit,
                "lease": lease_seconds,
                "model": model,
                "price": price_credits,
                "account": while_free,
                "model_key": model_key(while_free or "", model or ""),
            },
        )
        return await cursor.fetchall()


async def claim_pending(tx: Connection, *, limit: int, lease_seconds: float) -> list[TaskClaim]:
    """Lease due tasks that a provider has. A crash leaves them due when the lease ends."""
    return await _claim(tx, CLAIM_PENDING, {"limit": limit, "lease": lease_seconds})


async def claim_storing(
    tx: Connection, *, limit: int, lease_seconds: float, dying_seconds: float
) -> list[TaskClaim]:
    """Lease due tasks whose picture waits at the provider. A crash leaves them due when the lease ends.

    Those whose link dies within `dying_seconds` come first, then whichever has been due longest.
    """
    bounds = {"limit": limit, "lease": lease_seconds, "dying": dying_seconds}
    return await _claim(tx, CLAIM_STORING, bounds)


async def move_to_unknown(
    tx: Connection, task: TaskClaim, *, error: str, grace_seconds: float
) -> bool:
    """Submitting -> unknown: no answer came. Wait for its callback; no doorbell cuts the grace short."""
    moved = await tx.execute(
        """
        UPDATE kie_tasks
        SET status = 'unknown', last_error = %(error)s, lease_until = NULL,
            due_at = darkroom_now() + make_interval(secs => %(grace)s),
            not_before = darkroom_now() + make_interval(secs => %(grace)s),
            status_since = darkroom_now(), updated_at = darkroom_now()
        WHERE id = %(id)s AND status = 'submitting' AND claim = %(claim)s
        """,
        {"id": task.id, "claim": task.claim, "error": error, "grace": grace_seconds},
    )
    return moved.rowcount == 1


async def move_to_queued(
    tx: Connection,
    task: TaskClaim,
    source: str,
    *,
    error: str,
    pause_seconds: float,
    provider: str | None = None,
) -> bool:
    """`source` -> queued: another attempt, not before the pause is over.

    With a provider: at that one from here on, with its attempts anew, as after a replay.
    """
    moved = await tx.execute(
        """
        UPDATE kie_tasks
        SET status = 'queued', last_error = %(error)s, lease_until = NULL, bad_results = 0,
            attempts = CASE WHEN %(source)s = 'submitting' THEN attempts + 1 ELSE 0 END,
            provider = coalesce(%(provider)s, provider),
            attempts_forgiven = CASE WHEN %(provider)s::TEXT IS NULL THEN attempts_forgiven
                                     ELSE %(paid)s END,
            due_at = darkroom_now() + make_interval(secs => %(pause)s),
            not_before = darkroom_now() + make_interval(secs => %(pause)s),
            status_since = darkroom_now(), updated_at = darkroom_now()
        WHERE id = %(id)s AND status = %(source)s AND claim = %(claim)s
        """,
        {
            "id": task.id,
            "claim": task.claim,
            "source": source,
            "error": error,
            "pause": pause_seconds,
            "provider": provider,
            "paid": task.paid_attempts,
        },
    )
    return moved.rowcount == 1


async def release(
    tx: Connection,
    task: TaskClaim,
    *,
    pause_seconds: float,
    error: str | None,
    hold_doorbells: bool,  # keyword-only, and read as a sentence at each call
    bad_result: bool = False,
    lapses_min: int = 0,
    in_line: bool = False,
) -> bool:
    """Give the lease back in the same status. With an error the step's failed tries grow by one.

    `hold_doorbells`: the pause is a backoff that no doorbell may cut short. `lapses_min`: it was as bad as so
    many leases that ended without a word. `in_line`: its provider has not begun it yet.
    """
    moved = await tx.execute(
        """
        UPDATE kie_tasks
        SET lease_until = NULL, last_error = coalesce(%(error)s, last_error),
            attempts = attempts + CASE WHEN %(error)s::TEXT IS NULL THEN 0 ELSE 1 END,
            bad_results = bad_results + CASE WHEN %(bad)s THEN 1 ELSE 0 END,
            lapses = greatest(lapses, %(lapses)s),
            in_line_at = CASE WHEN %(in_line)s THEN darkroom_now() ELSE in_line_at END,
            due_at = CASE WHEN due_at = %(rung)s AND NOT %(hold)s THEN darkroom_now()
                          ELSE darkroom_now() + make_interval(secs => %(pause)s) END,
            not_before = CASE WHEN %(hold)s THEN darkroom_now() + make_interval(secs => %(pause)s)
                              ELSE '-infinity' END,
            updated_at = darkroom_now()
        WHERE id = %(id)s AND claim = %(claim)s AND status IN ('pending', 'storing')
        """,
        {
            "id": task.id,
            "claim": task.claim,
            "error": error,
            "pause": pause_seconds,
            "hold": hold_doorbells,
            "bad": bad_result,
            "lapses": lapses_min,
            "in_line": in_line,
            "rung": RUNG,
        },
    )
    return moved.rowcount == 1


async def lock_job(tx: Connection, job_id: int) -> None:
    """Take the job's row before its tasks: the lock order, and what makes its counts exact."""
    await tx.execute("SELECT FROM generation_jobs WHERE id = %s FOR NO KEY UPDATE", [job_id])


async def fail_task(
    tx: Connection, *, task_id: int, job_id: int, claim: int, source: str, code: str, text: str
) -> bool:
    """`source` -> failed, with its dead letter; the job becomes due when no task is open any more."""
    await lock_job(tx, job_id)
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            WITH failed AS (
                UPDATE kie_tasks
                SET status = 'failed', last_error = %(text)s, lease_until = NULL,
                    status_since = darkroom_now(), updated_at = darkroom_now()
                WHERE id = %(id)s AND status = %(source)s AND claim = %(claim)s
                RETURNING id, job_id, attempts
            ), dead AS (
                INSERT INTO generation_dead_letter_queue
                    (task_id, job_id, error_code, error_text, attempts)
                SELECT id, job_id, %(code)s, %(text)s, attempts FROM failed
                ON CONFLICT DO NOTHING
            ), ended AS (
                UPDATE generation_jobs j SET due_at = darkroom_now()
                FROM failed f
                WHERE j.id = f.job_id AND j.status IN ('pending', 'processing')
                  AND NOT EXISTS (
                      SELECT FROM kie_tasks t
                      WHERE t.job_id = j.id AND t.id <> f.id
                        AND t.status IN ('queued', 'submitting', 'unknown', 'pending', 'storing'))
            )
            SELECT id FROM failed
            """,
            {"id": task_id, "claim": claim, "source": source, "code": code, "text": text},
        )
        return await cursor.fetchone() is not None


async def ring_task(tx: Connection, task_id: int) -> None:
    """Pull one waiting task forward, never before its backoff ends. Touches no lease.

    One that is in somebody's hands is due when they give it back: they may have asked before there was news.
    """
    await tx.execute(
        "UPDATE kie_tasks SET due_at = CASE WHEN lease_until > darkroom_now() THEN %(rung)s "
        "ELSE greatest(darkroom_now(), not_before) END "
        "WHERE id = %(id)s AND status IN ('queued', 'unknown', 'pending', 'storing') "
        "AND (due_at > greatest(darkroom_now(), not_before) OR lease_until > darkroom_now())",
        {"id": task_id, "rung": RUNG},
    )


async def count_dying_links(tx: Connection, *, within_seconds: float) -> int:
    """Results that are not stored and whose link dies within so long, or is dead. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT count(*) FROM kie_tasks WHERE status = 'storing' "
            "AND result_dies_at <= (SELECT darkroom_now()) + make_interval(secs => %s)",
            [within_seconds],
        )
        return int(await cursor.fetchone() or 0)


async def alarm_dying_links(
    tx: Connection, *, within_seconds: float, limit: int
) -> list[tuple[int, float]]:
    """Mark results whose link dies within so long as told of, each once: their task and the seconds left."""
    async with tx.cursor() as cursor:
        await cursor.execute(
            """
            UPDATE kie_tasks t SET link_alarm_at = darkroom_now()
            WHERE t.link_alarm_at IS NULL AND t.status = 'storing' AND t.id = ANY(ARRAY(
                SELECT id FROM kie_tasks WHERE status = 'storing' AND link_alarm_at IS NULL
                  AND result_dies_at <= (SELECT darkroom_now()) + make_interval(secs => %s)
                ORDER BY result_dies_at LIMIT %s FOR NO KEY UPDATE SKIP LOCKED))
            RETURNING t.id, extract(epoch FROM t.result_dies_at - darkroom_now())::FLOAT8
            """,
            [within_seconds, limit],
        )
        return [(int(task_id), float(left)) for task_id, left in await cursor.fetchall()]
