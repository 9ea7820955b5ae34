"""Once a day each provider's list is looked at, by whoever takes the day: a constraint says who."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

RETAKE_SECONDS: Final = 3600
"""A run reads its list in minutes: who began an hour ago and did not end is not at it any more."""
MISSED_DAYS_MAX: Final = 92
"""How far back a day without a look is made up for: a quarter, which banks still list."""
CLAIM_DAY: Final = """
INSERT INTO reconciliations AS r (provider, day)
SELECT %(provider)s, today.day
FROM (SELECT (darkroom_now() AT TIME ZONE 'UTC')::DATE AS day) today
-- Done: nothing is written, not even a lock.
WHERE NOT EXISTS (SELECT FROM reconciliations done WHERE done.provider = %(provider)s
                  AND done.day = today.day AND (done.finished_at IS NOT NULL
                  OR done.started_at > darkroom_now() - make_interval(secs => %(retake)s)))
ON CONFLICT (provider, day) DO UPDATE SET started_at = darkroom_now()
WHERE r.finished_at IS NULL
  AND r.started_at <= darkroom_now() - make_interval(secs => %(retake)s)
RETURNING r.id, r.started_at
"""


@dataclass(frozen=True, slots=True)
class DayClaim:
    """Today's look at a provider's list is this worker's. `started_at` is the fence."""

    id: int
    started_at: datetime


async def claim_day(tx: Connection, *, provider: str) -> DayClaim | None:
    """Take today's look; None: somebody has it, or it is done. A crash gives it free after RETAKE_SECONDS."""
    async with tx.cursor(row_factory=class_row(DayClaim)) as cursor:
        await cursor.execute(CLAIM_DAY, {"provider": provider, "retake": RETAKE_SECONDS})
        return await cursor.fetchone()


async def finish_day(tx: Connection, claim: DayClaim, *, lines: int, found: int) -> bool:
    """Today's look is done. False: it was taken by somebody else meanwhile, who will say so."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "UPDATE reconciliations SET finished_at = darkroom_now(), lines = %s, found = %s "
            "WHERE id = %s AND started_at = %s AND finished_at IS NULL RETURNING id",
            [lines, found, claim.id, claim.started_at],
        )
        return await cursor.fetchone() is not None


async def list_missed_days(tx: Connection, *, provider: str) -> list[int]:
    """How many days ago each day before today was whose list was not read to its end, the latest first.

    Since the first day that was tried at all, and MISSED_DAYS_MAX at most. Read only.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT ago FROM (SELECT (darkroom_now() AT TIME ZONE 'UTC')::DATE AS day) today
            CROSS JOIN generate_series(1, %(most)s) ago
            WHERE today.day - ago >= (SELECT min(day) FROM reconciliations WHERE provider = %(provider)s)
              AND NOT EXISTS (SELECT FROM reconciliations read WHERE read.provider = %(provider)s
                              AND read.day = today.day - ago AND read.finished_at IS NOT NULL)
            ORDER BY ago
            """,
            {"provider": provider, "most": MISSED_DAYS_MAX},
        )
        return [int(ago) for ago in await cursor.fetchall()]


async def finish_missed_days(
    tx: Connection, *, provider: str, from_ago: int, to_ago: int, lines: int, found: int
) -> None:
    """The days from so many to so many days ago were made up for by one look. Harmless twice."""
    await tx.execute(
        """
        INSERT INTO reconciliations AS r (provider, day, finished_at, lines, found)
        SELECT %(provider)s, (darkroom_now() AT TIME ZONE 'UTC')::DATE - ago, darkroom_now(),
               %(lines)s, %(found)s
        FROM generate_series(%(from)s::INTEGER, %(to)s::INTEGER) ago
        ON CONFLICT (provider, day) DO UPDATE
        SET finished_at = EXCLUDED.finished_at, lines = EXCLUDED.lines, found = EXCLUDED.found
        WHERE r.finished_at IS NULL
        """,
        {"provider": provider, "from": from_ago, "to": to_ago, "lines": lines, "found": found},
    )
