"""When the next row of a working step is due: how long whoever has no worker may look away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg.rows import scalar_row

from darkroom.core.budget import DAY_CREDITS
from darkroom.db.database import Connection

NEXT_DUE: Final = (
    """
WITH queued AS (
    SELECT t.provider, min(t.due_at) AS due_at FROM kie_tasks t
    WHERE t.status = 'queued' GROUP BY t.provider
), offered AS (
    -- Who is not configured offers nothing, however due its photos are.
    SELECT q.due_at, way.account, way.model_key, way.price
    FROM queued q JOIN unnest(
        %(providers)s::TEXT[], %(accounts)s::TEXT[], %(model_keys)s::TEXT[], %(prices)s::NUMERIC[]
    ) AS way (provider, account, model_key, price) USING (provider)
)
SELECT extract(epoch FROM min(at) - darkroom_now())::FLOAT8 FROM (
    SELECT greatest(o.due_at, b.paused_until, m.paused_until,
        -- A full window has a place again when its oldest creation leaves it.
        (SELECT a.created_at + make_interval(secs => b.window_seconds) FROM task_attempts a
         WHERE split_part(a.provider, ':', 1) = b.provider AND b.window_requests IS NOT NULL
           AND a.created_at > (SELECT darkroom_now()) - make_interval(secs => b.window_seconds)
         ORDER BY a.created_at DESC OFFSET greatest(b.window_requests - 1, 0) LIMIT 1),
        CASE WHEN b.day_credits_max - ("""
    + DAY_CREDITS
    + """) < o.price
             THEN (date_trunc('day', darkroom_now() AT TIME ZONE 'UTC') + INTERVAL '1 day')
                  AT TIME ZONE 'UTC' END) AS at
    FROM offered o
    LEFT JOIN provider_budgets b ON b.provider = o.account
    LEFT JOIN provider_budgets m ON m.provider = o.model_key
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM kie_tasks
    WHERE status IN ('unknown', 'pending', 'storing')
    UNION ALL SELECT lease_until FROM kie_tasks WHERE status = 'submitting'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM generation_jobs
    WHERE status IN ('pending', 'processing')
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM inbox
    WHERE processed_at IS NULL
    -- Of a bank that is configured, and of one payment one at a time, as they are claimed.
    UNION ALL SELECT greatest(r.due_at, coalesce(r.lease_until, r.due_at)) FROM refunds r
    WHERE r.status IN ('requested', 'unknown')
      AND (SELECT p.provider FROM payments p WHERE p.id = r.payment_id) = ANY(%(banks)s)
      AND NOT (r.status = 'requested' AND EXISTS (SELECT FROM refunds o
               WHERE o.payment_id = r.payment_id AND o.id <> r.id AND (o.status IN ('sending', 'unknown')
                     OR (o.status = 'requested' AND o.id < r.id))))
    UNION ALL SELECT lease_until FROM refunds WHERE status = 'sending'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM mail_outbox
    WHERE status = 'pending' AND %(sends_mail)s
) waiting WHERE isfinite(at)
"""
)
"""A leased row is somebody's until its lease ends. What is pending at a bank is looked for by `sweep`."""


@dataclass(frozen=True, slots=True)
class Way:
    """A configured provider: whose queue and budget it is, which model's pauses hold, what one photo costs."""

    provider: str
    account: str
    model_key: str
    price_credits: float | None


async def next_due_seconds(
    tx: Connection, ways: Sequence[Way], *, banks: Sequence[str], sends_mail: bool = False
) -> float | None:
    """Seconds until something can be done, 0 or less when it can already; None: nothing is open. Read only.

    Queued photos can be offered when their provider's pause, window and day allow; refunds where their bank is
    one of `banks`, letters where there is somebody who carries them.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            NEXT_DUE,
            {
                "providers": [way.provider for way in ways],
                "accounts": [way.account for way in ways],
                "model_keys": [way.model_key for way in ways],
                "banks": list(banks),
                "sends_mail": sends_mail,
                "prices": [way.price_credits for way in ways],
            },
        )
        found: float | None = await cursor.fetchone()
        return found
