"""When the next row of a working step is due: how long whoever has no worker may look away."""

from typing import Final

from psycopg.rows import scalar_row

from darkroom.db.database import Connection

NEXT_DUE: Final = """
SELECT extract(epoch FROM min(at) - darkroom_now())::FLOAT8 FROM (
    SELECT greatest(due_at, coalesce(lease_until, due_at)) AS at FROM kie_tasks
    WHERE status IN ('unknown', 'pending', 'storing')
    UNION ALL SELECT greatest(t.due_at, b.paused_until) FROM kie_tasks t
    LEFT JOIN provider_budgets b ON b.provider = t.provider WHERE t.status = 'queued'
    UNION ALL SELECT lease_until FROM kie_tasks WHERE status = 'submitting'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM generation_jobs
    WHERE status IN ('pending', 'processing')
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM inbox
    WHERE processed_at IS NULL
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM refunds
    WHERE status IN ('requested', 'unknown')
    UNION ALL SELECT lease_until FROM refunds WHERE status = 'sending'
) waiting WHERE isfinite(at)
"""
"""A leased row is somebody's until its lease ends. What is pending at a bank is looked for by `sweep`."""


async def next_due_seconds(tx: Connection) -> float | None:
    """Seconds until something is due, 0 or less when it is already; None: nothing is open. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(NEXT_DUE)
        found: float | None = await cursor.fetchone()
        return found
