"""Users, avatars and their selfies."""

from dataclasses import dataclass
from typing import Final

from psycopg.rows import class_row, scalar_row

from darkroom.db.database import Connection
from darkroom.ports.generation import Reference


async def ensure_user(tx: Connection, telegram_user_id: int, *, locale: str = "ru") -> int:
    """The user with this Telegram id, created at first sight, with the funnel's first step.

    Harmless twice and at once. One statement makes both: also where no transaction is open, no crash leaves
    somebody who never opened.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM users WHERE telegram_user_id = %s", [telegram_user_id])
        known = await cursor.fetchone()
        if known is not None:
            return int(known)
        await cursor.execute(
            "WITH made AS (INSERT INTO users (telegram_user_id, locale) VALUES (%s, %s) "
            "ON CONFLICT (telegram_user_id) WHERE telegram_user_id IS NOT NULL "
            "DO UPDATE SET telegram_user_id = EXCLUDED.telegram_user_id "
            "RETURNING id), "
            "opened AS (INSERT INTO funnel_steps (user_id, step) SELECT id, 'opened' FROM made "
            "ON CONFLICT DO NOTHING) "
            "SELECT id FROM made",
            [telegram_user_id, locale],
        )
        return int(await cursor.fetchone() or 0)


async def find_user(tx: Connection, telegram_user_id: int) -> int | None:
    """The user with this Telegram id, if there is one."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT id FROM users WHERE telegram_user_id = %s", [telegram_user_id])
        return await cursor.fetchone()


async def create_user(tx: Connection) -> int:
    """Somebody of whom nothing is known yet."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("INSERT INTO users DEFAULT VALUES RETURNING id")
        return int(await cursor.fetchone() or 0)


async def write_locale(tx: Connection, *, user_id: int, locale: str) -> bool:
    """The language this user is written to in, from now on. False: no such user, or they left."""
    written = await tx.execute(
        "UPDATE users SET locale = %s WHERE id = %s AND forget_at IS NULL", [locale, user_id]
    )
    return written.rowcount == 1


async def create_avatar(tx: Connection, *, user_id: int, name: str) -> int:
    """A new avatar of this user."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "INSERT INTO avatars (user_id, name) VALUES (%s, %s) RETURNING id", [user_id, name]
        )
        return int(await cursor.fetchone() or 0)


async def place_avatar(tx: Connection, *, avatar_id: int, user_id: int, name: str) -> bool:
    """Make the avatar with exactly this id, for a developer's order. False: it is somebody else's.

    The identity sequence is moved past it, so that later avatars don't meet it.
    """
    await tx.execute(
        "INSERT INTO avatars (id, user_id, name) OVERRIDING SYSTEM VALUE VALUES (%s, %s, %s) "
        "ON CONFLICT (id) DO NOTHING",
        [avatar_id, user_id, name],
    )
    await tx.execute(
        "SELECT setval(pg_get_serial_sequence('avatars', 'id'), (SELECT max(id) FROM avatars))"
    )
    return await owns_avatar(tx, user_id=user_id, avatar_id=avatar_id)


async def owns_avatar(tx: Connection, *, user_id: int, avatar_id: int) -> bool:
    """Whether this live avatar is this user's."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT EXISTS (SELECT FROM avatars WHERE id = %s AND user_id = %s AND deleted_at IS NULL)",
            [avatar_id, user_id],
        )
        return bool(await cursor.fetchone())


@dataclass(frozen=True, slots=True)
class _JobReference:
    job_id: int
    object_key: str
    sha256: str
    content_type: str


REFERENCES_OF_JOBS: Final = """
SELECT j.id AS job_id, r.object_key, r.sha256, r.content_type
FROM generation_jobs j
JOIN reference_photos r ON r.id = ANY(j.reference_ids)
WHERE j.id = ANY(%(jobs)s)
ORDER BY j.id, r.id
"""


async def references_of_jobs(
    tx: Connection, job_ids: list[int]
) -> dict[int, tuple[Reference, ...]]:
    """The selfies each job was started with, in their order."""
    async with tx.cursor(row_factory=class_row(_JobReference)) as cursor:
        await cursor.execute(REFERENCES_OF_JOBS, {"jobs": job_ids})
        found: dict[int, tuple[Reference, ...]] = dict.fromkeys(job_ids, ())
        for row in await cursor.fetchall():
            reference = Reference(row.object_key, row.sha256, row.content_type)
            found[row.job_id] = (*found[row.job_id], reference)
        return found
