"""How far the orders are, by questions of the rehearsal's own."""

from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row

from darkroom.db.database import Database

STANDING: Final = """
SELECT (SELECT count(*) FROM kie_tasks) AS photos_paid,
       (SELECT count(*) FROM generated_photos) AS photos,
       (SELECT count(*) FROM kie_tasks WHERE status = 'failed') AS photos_failed,
       (SELECT count(*) FROM generation_jobs WHERE status IN ('completed', 'partial', 'failed')) AS sets_ended,
       (SELECT count(*) FROM generation_jobs WHERE status IN ('pending', 'processing'))
       + (SELECT count(*) FROM refunds WHERE status IN ('requested', 'sending', 'unknown'))
       + (SELECT count(*) FROM inbox WHERE processed_at IS NULL) AS open_rows,
       (SELECT count(*) FROM task_attempts) AS attempts,
       (SELECT count(*) FROM task_attempts WHERE adopted) AS adopted,
       (SELECT count(*) FROM kie_tasks WHERE status = 'unknown') AS unknown
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """Counts of rows."""

    photos_paid: int = 0
    photos: int = 0
    photos_failed: int = 0
    sets_ended: int = 0
    open_rows: int = 0
    attempts: int = 0
    adopted: int = 0
    unknown: int = 0


async def read_standing(database: Database) -> Standing:
    """One look. Raises DatabaseUnavailableError."""
    async with (
        database.connection() as connection,
        connection.cursor(row_factory=class_row(Standing)) as cursor,
    ):
        await cursor.execute(STANDING)
        found = await cursor.fetchone()
    return found or Standing()
