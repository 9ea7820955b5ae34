"""Once a day each provider's list is looked at, by whoever takes the day: a constraint says who."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection

RETAKE_SECONDS: Final = 3600
"""A run reads its list in minutes: who began an hour ago and did not end is not at it any more."""
UNREAD_DAYS: Final[LiteralString] = """
(today.day - coalesce(
    (SELECT max(read.day) FROM reconciliations read
     WHERE read.provider = %(provider)s AND read.finished_at IS NOT NULL),
    (SELECT min(tried.day) FROM reconciliations tried WHERE tried.provider = %(provider)s),
    today.day))::INTEGER"""
"""Days since the last one whose list was read to its end; where none was, since the first that was begun."""
CLAIM_DAY: Final = (
    """
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
RETURNING r.id, r.started_at, """
    + UNREAD_DAYS.replace("today.day", "r.day")
    + " AS unread_days"
)


@dataclass(frozen=True, slots=True)
class DayClaim:
    """Today's look at a provider's list is this worker's.

    Attributes:
        started_at: the fence.
        unread_days: since the last day whose list was read to its end: one, if that was yesterday.
    """

    id: int
    started_at: datetime
    unread_days: int


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


async def read_unread_days(tx: Connection, *, provider: str) -> int:
    """Days since a provider's list was last read to its end: 0 is today. Read only."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT "
            + UNREAD_DAYS
            + " FROM (SELECT (darkroom_now() AT TIME ZONE 'UTC')::DATE AS day) today",
            {"provider": provider},
        )
        return int(await cursor.fetchone() or 0)
