"""Stored photos: the row, its task and its job move together or not at all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.rows import class_row

from darkroom.core.tasks import TaskClaim
from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class StoredThumbnail:
    """The small picture that lies beside a photo."""

    object_key: str
    sha256: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """Bytes that lie in our storage, hashed and decoded."""

    object_key: str
    sha256: str
    size_bytes: int
    content_type: str
    width: int
    height: int
    thumbnail: StoredThumbnail | None = None


LOCK_JOBS: Final = (
    "SELECT FROM generation_jobs WHERE id = ANY(%(jobs)s) ORDER BY id FOR NO KEY UPDATE"
)

STORE_PHOTOS: Final = """
WITH stored AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(stored)s::JSONB) AS stored (
        task_id BIGINT, claim BIGINT, object_key TEXT, sha256 TEXT, size_bytes BIGINT,
        content_type TEXT, width INTEGER, height INTEGER, thumbnail_key TEXT, thumbnail_sha256 TEXT,
        thumbnail_bytes BIGINT, thumbnail_type TEXT)
), completed AS (
    UPDATE kie_tasks t
    SET status = 'completed', attempts = 0, last_error = NULL, lease_until = NULL,
        status_since = darkroom_now(), updated_at = darkroom_now()
    FROM stored s
    WHERE t.id = s.task_id AND t.claim = s.claim AND t.status = 'storing'
    RETURNING t.id, t.job_id, t.avatar_id, t.style_id, t.prompt, t.attempt_id
), photo AS (
    INSERT INTO generated_photos
        (job_id, task_id, attempt_id, avatar_id, style_id, prompt,
         object_key, sha256, size_bytes, content_type, width, height,
         thumbnail_key, thumbnail_sha256, thumbnail_bytes, thumbnail_type)
    SELECT c.job_id, c.id, c.attempt_id, c.avatar_id, c.style_id, c.prompt,
           s.object_key, s.sha256, s.size_bytes, s.content_type, s.width, s.height,
           s.thumbnail_key, s.thumbnail_sha256, s.thumbnail_bytes, s.thumbnail_type
    FROM completed c JOIN stored s ON s.task_id = c.id
    RETURNING id, job_id, task_id
), counted AS (
    UPDATE generation_jobs j
    SET completed_photos = j.completed_photos + made.photos, updated_at = darkroom_now(),
        due_at = CASE WHEN EXISTS (
            SELECT FROM kie_tasks t
            WHERE t.job_id = j.id AND t.status IN ('queued', 'submitting', 'unknown', 'pending', 'storing')
              AND t.id NOT IN (SELECT id FROM completed))
            THEN j.due_at ELSE darkroom_now() END
    FROM (SELECT job_id, count(*) AS photos FROM photo GROUP BY job_id) made
    WHERE j.id = made.job_id
    RETURNING j.id, j.user_id
), chat AS (
    INSERT INTO telegram_message_queue (user_id, chat_id, job_id, photo_id)
    SELECT u.id, u.telegram_user_id, photo.job_id, photo.id
    FROM photo JOIN counted ON counted.id = photo.job_id JOIN users u ON u.id = counted.user_id
    WHERE %(to_chat)s AND u.telegram_user_id IS NOT NULL
)
SELECT task_id, id FROM photo
"""


async def store_photos(
    tx: Connection, stored: Sequence[tuple[TaskClaim, StoredPicture]], *, to_chat: bool
) -> dict[int, int]:
    """Storing -> completed, with photos' rows, jobs' counts and the chat's rows, in one transaction.

    Returns the photos' ids by task; a task that is not ours any more is missing there, and nothing of it was
    changed. A job becomes due when none of its tasks is open. A crash before the commit leaves the tasks
    `storing`; the bytes are found again by their hash.
    """
    # The lock order: jobs before tasks, each by id; the job's lock also makes its counts exact.
    await tx.execute(LOCK_JOBS, {"jobs": sorted({task.job_id for task, _ in stored})})
    rows = [
        {"task_id": task.id, "claim": task.claim, **_columns_of(picture)}
        for task, picture in stored
    ]
    async with tx.cursor() as cursor:
        await cursor.execute(STORE_PHOTOS, {"stored": json.dumps(rows), "to_chat": to_chat})
        return {int(task_id): int(photo_id) for task_id, photo_id in await cursor.fetchall()}


def _columns_of(picture: StoredPicture) -> dict[str, str | int | None]:
    small = picture.thumbnail
    return {
        "object_key": picture.object_key,
        "sha256": picture.sha256,
        "size_bytes": picture.size_bytes,
        "content_type": picture.content_type,
        "width": picture.width,
        "height": picture.height,
        "thumbnail_key": None if small is None else small.object_key,
        "thumbnail_sha256": None if small is None else small.sha256,
        "thumbnail_bytes": None if small is None else small.size_bytes,
        "thumbnail_type": None if small is None else small.content_type,
    }


async def keep_late_photo(tx: Connection, task: TaskClaim, picture: StoredPicture) -> bool:
    """Keep a picture whose task had failed before it came. Harmless twice; never shown as delivered.

    Of an avatar that was gone through meanwhile it goes at once: its worker may have stood still for an hour.
    """
    kept = await tx.execute(
        """
        INSERT INTO late_photos
            (task_id, attempt_id, object_key, sha256, size_bytes, content_type, erasing_at)
        SELECT t.id, %(attempt_id)s, %(object_key)s, %(sha256)s, %(size_bytes)s, %(content_type)s,
               CASE WHEN a.emptied_at IS NOT NULL THEN darkroom_now() END
        FROM kie_tasks t JOIN avatars a ON a.id = t.avatar_id
        WHERE t.id = %(task_id)s AND t.status = 'failed'
        ON CONFLICT (attempt_id) DO NOTHING
        """,
        {
            "task_id": task.id,
            "attempt_id": task.attempt_id,
            "object_key": picture.object_key,
            "sha256": picture.sha256,
            "size_bytes": picture.size_bytes,
            "content_type": picture.content_type,
        },
    )
    return kept.rowcount == 1


@dataclass(frozen=True, slots=True)
class PhotoView:
    """A photo as its owner sees it. The thumbnail's columns are all there or all None.

    Attributes:
        redo_job_id, redo_status: the set of one photo that makes this one again, and how it is with it (the
            status of a job); None: nobody asked for it.
    """

    id: int
    job_id: int
    style_id: str
    prompt_index: int
    image_url: str
    object_key: str
    sha256: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    thumbnail_key: str | None
    thumbnail_sha256: str | None
    thumbnail_bytes: int | None
    thumbnail_type: str | None
    avatar_name: str
    created_at: datetime
    is_favorite: bool
    redo_job_id: int | None
    redo_status: str | None


_SHOWN: Final = """
SELECT p.id, p.job_id, p.style_id, t.prompt_index, p.image_url, p.object_key, p.sha256,
       p.content_type, p.size_bytes, p.width, p.height,
       p.thumbnail_key, p.thumbnail_sha256, p.thumbnail_bytes, p.thumbnail_type,
       a.name AS avatar_name, p.created_at, p.favorite_at IS NOT NULL AS is_favorite,
       again.id AS redo_job_id, again.status AS redo_status
FROM generated_photos p
JOIN kie_tasks t ON t.id = p.task_id
JOIN avatars a ON a.id = p.avatar_id
JOIN users u ON u.id = a.user_id
-- At most one of each: a photo is made again once, by one job.
LEFT JOIN payments redo ON redo.redoes_photo_id = p.id
LEFT JOIN generation_jobs again ON again.payment_id = redo.id
WHERE p.deleted_at IS NULL AND a.deleted_at IS NULL AND u.forget_at IS NULL
"""
"""Every way to a photo begins here: a tombstone on it or on its avatar, or that its owner left, hides it from
all of them, and `late_photos` is on no way at all."""


async def list_photos(
    tx: Connection, *, user_id: int, avatar_id: int, before_id: int | None, limit: int
) -> list[PhotoView]:
    """An avatar's photos, newest first, below `before_id`; none of another user's avatar."""
    async with tx.cursor(row_factory=class_row(PhotoView)) as cursor:
        await cursor.execute(
            _SHOWN
            + """
            AND p.avatar_id = %(avatar_id)s AND a.user_id = %(user_id)s
            AND (%(before_id)s::BIGINT IS NULL OR p.id < %(before_id)s)
            ORDER BY p.id DESC LIMIT %(limit)s
            """,
            {"user_id": user_id, "avatar_id": avatar_id, "before_id": before_id, "limit": limit},
        )
        return await cursor.fetchall()


async def list_photos_of_jobs(tx: Connection, job_ids: list[int]) -> list[PhotoView]:
    """The photos of these jobs, in the order in which they were stored.

    A photo's row is written behind its job's lock (`store_photos`), so within a job ids become visible in
    their order: whoever has seen one id has seen all below it. A job has at most 100 photos.
    """
    async with tx.cursor(row_factory=class_row(PhotoView)) as cursor:
        await cursor.execute(_SHOWN + "AND p.job_id = ANY(%s) ORDER BY p.id", [job_ids])
        return await cursor.fetchall()


async def list_photos_of_job(tx: Connection, *, user_id: int, job_id: int) -> list[PhotoView]:
    """The photos of one job of this user, in the order of the set; none of anybody else's."""
    async with tx.cursor(row_factory=class_row(PhotoView)) as cursor:
        await cursor.execute(
            _SHOWN + "AND p.job_id = %s AND a.user_id = %s ORDER BY t.prompt_index",
            [job_id, user_id],
        )
        return await cursor.fetchall()


async def find_photo(tx: Connection, *, user_id: int, photo_id: int) -> PhotoView | None:
    """One photo of this user; None for anybody else's, and for deleted ones."""
    async with tx.cursor(row_factory=class_row(PhotoView)) as cursor:
        await cursor.execute(_SHOWN + "AND p.id = %s AND a.user_id = %s", [photo_id, user_id])
        return await cursor.fetchone()


async def list_favorites(
    tx: Connection, *, user_id: int, before_id: int | None, limit: int
) -> list[PhotoView]:
    """The photos that this user marked, of all avatars, newest photo first, below `before_id`."""
    async with tx.cursor(row_factory=class_row(PhotoView)) as cursor:
        await cursor.execute(
            _SHOWN
            + """
            AND a.user_id = %(user_id)s AND p.favorite_at IS NOT NULL
            AND (%(before_id)s::BIGINT IS NULL OR p.id < %(before_id)s)
            ORDER BY p.id DESC LIMIT %(limit)s
            """,
            {"user_id": user_id, "before_id": before_id, "limit": limit},
        )
        return await cursor.fetchall()


async def set_favorite(tx: Connection, *, user_id: int, photo_id: int, favorite: bool) -> None:
    """Mark a photo of this user, or take the mark away. Harmless twice; nobody else's and no hidden one."""
    await tx.execute(
        """
        UPDATE generated_photos p
        SET favorite_at = CASE WHEN %(favorite)s THEN darkroom_now() END
        FROM avatars a JOIN users u ON u.id = a.user_id
        WHERE p.id = %(photo_id)s AND a.id = p.avatar_id AND a.user_id = %(user_id)s
          AND p.deleted_at IS NULL AND a.deleted_at IS NULL AND u.forget_at IS NULL
          AND (p.favorite_at IS NOT NULL) <> %(favorite)s
        """,
        {"user_id": user_id, "photo_id": photo_id, "favorite": favorite},
    )


async def list_lost_photos(tx: Connection, job_id: int) -> frozenset[int]:
    """Which photos of a job the last look did not find in the store as they were put there."""
    rows = await (
        await tx.execute(
            "SELECT id FROM generated_photos WHERE job_id = %s "
            "AND bytes_finding IN ('missing', 'other_size', 'other_bytes', 'unreadable')",
            [job_id],
        )
    ).fetchall()
    return frozenset(row[0] for row in rows)
