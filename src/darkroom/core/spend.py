"""The spend ledger read: what became of each attempt at a provider, and what it cost.

Nothing is added up beside the attempts themselves: one row before each call is the whole ledger, and each
attempt is exactly one of these kinds.
"""

from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg.rows import class_row

from darkroom.db.database import Connection

KINDS: Final = {
    "useful": "its picture became the photo",
    "wasted": "the provider made and billed it, and its picture never became a photo",
    "lost": "no answer, and never heard of again: at most one task there",
    "failed": "failed there, and took nothing",
    "refused": "refused, or never sent: took nothing",
    "open": "under way",
}

_JUDGED: Final = """
    SELECT a.id, a.provider, a.model, a.provider_task_id, a.adopted, a.credits, a.expected_credits,
           (a.created_at AT TIME ZONE 'UTC')::DATE AS day,
           CASE
               WHEN a.refusal_code IS NOT NULL THEN 'refused'
               WHEN p.id IS NOT NULL THEN 'useful'
               WHEN t.attempt_id = a.id AND t.status IN ('submitting', 'unknown', 'pending', 'storing')
                   THEN 'open'
               -- Its task was settled before the call was begun.
               WHEN a.called_at IS NULL AND a.provider_task_id IS NULL THEN 'refused'
               WHEN a.credits = 0 OR (a.end_state = 'failed' AND a.credits IS NULL) THEN 'failed'
               WHEN a.provider_task_id IS NULL THEN 'lost'
               ELSE 'wasted'
           END AS kind
    FROM task_attempts a
    JOIN kie_tasks t ON t.id = a.task_id
    LEFT JOIN generated_photos p ON p.task_id = a.task_id AND p.attempt_id = a.id
"""


@dataclass(frozen=True, slots=True)
class SpendLine:
    """One provider's model on one UTC day, by the day the attempts were made on.

    Attributes:
        photos: attempts whose picture became a photo.
        adopted: attempts whose task was found by its callback after a lost answer, whatever became of it.
        lost: answers that were lost for good; each is at most one task there.
        credits_photos: taken by those that became photos.
        credits_wasted: taken by those that did not.
        credits_unknown: of tasks whose cost nobody knows, lost answers among them: at most about this much.
    """

    provider: str
    model: str | None
    day: date
    attempts: int
    photos: int
    adopted: int
    wasted: int
    lost: int
    failed: int
    refused: int
    open: int
    credits_photos: float
    credits_wasted: float
    credits_unknown: float


async def read_spend(tx: Connection, *, days: int) -> list[SpendLine]:
    """The ledger of the last `days` UTC days, today's included, newest day first. Read only."""
    async with tx.cursor(row_factory=class_row(SpendLine)) as cursor:
        await cursor.execute(
            "WITH judged AS ("
            + _JUDGED
            + """
                WHERE a.created_at >= (SELECT (date_trunc('day', darkroom_now() AT TIME ZONE 'UTC')
                    - make_interval(days => %(days)s - 1)) AT TIME ZONE 'UTC')
            )
            SELECT provider, model, day, count(*) AS attempts,
                   count(*) FILTER (WHERE kind = 'useful') AS photos,
                   count(*) FILTER (WHERE adopted) AS adopted,
                   count(*) FILTER (WHERE kind = 'wasted') AS wasted,
                   count(*) FILTER (WHERE kind = 'lost') AS lost,
                   count(*) FILTER (WHERE kind = 'failed') AS failed,
                   count(*) FILTER (WHERE kind = 'refused') AS refused,
                   count(*) FILTER (WHERE kind = 'open') AS open,
                   coalesce(sum(credits) FILTER (WHERE kind = 'useful'), 0)::FLOAT8 AS credits_photos,
                   coalesce(sum(credits) FILTER (WHERE kind = 'wasted'), 0)::FLOAT8 AS credits_wasted,
                   coalesce(sum(expected_credits) FILTER (
                       WHERE credits IS NULL AND kind IN ('useful', 'wasted', 'lost')), 0)::FLOAT8
                       AS credits_unknown
            FROM judged GROUP BY provider, model, day ORDER BY day DESC, provider, model
            """,
            {"days": days},
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class UnreadCost:
    """An ended attempt that the provider knows by id, and whose cost nobody has read."""

    attempt_id: int
    account: str
    provider_task_id: str


async def list_unread_costs(
    tx: Connection, *, accounts: list[str], settled_seconds: float, limit: int
) -> list[UnreadCost]:
    """Attempts whose cost should be asked for: ended, known there, not asked about lately. Read only.

    One that is still being made there is asked about again each hour of a day; then its cost stays unknown.
    """
    async with tx.cursor(row_factory=class_row(UnreadCost)) as cursor:
        await cursor.execute(
            """
            SELECT id AS attempt_id, split_part(provider, ':', 1) AS account, provider_task_id
            FROM task_attempts
            WHERE credits IS NULL AND expected_credits IS NOT NULL AND provider_task_id IS NOT NULL
              AND ended_at IS NOT NULL AND split_part(provider, ':', 1) = ANY(%(accounts)s)
              AND created_at <= (SELECT darkroom_now()) - make_interval(secs => %(settled)s)
              AND (cost_asked_at IS NULL
                   OR (cost_asked_at <= (SELECT darkroom_now()) - INTERVAL '1 hour'
                       AND created_at > (SELECT darkroom_now()) - INTERVAL '1 day'))
            ORDER BY cost_asked_at NULLS FIRST, id LIMIT %(limit)s
            """,
            {"accounts": accounts, "settled": settled_seconds, "limit": limit},
        )
        return await cursor.fetchall()


async def record_cost(tx: Connection, attempt_id: int, credits_used: float | None) -> None:
    """What an attempt took, read afterwards; None: asked, and nobody said. The first answer stands."""
    await tx.execute(
        "UPDATE task_attempts SET credits = %s, cost_asked_at = darkroom_now() "
        "WHERE id = %s AND credits IS NULL",
        [credits_used, attempt_id],
    )
