"""How far a set is, and how long the rest takes by what was measured. Read only, but for one doorbell."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg.rows import class_row

from darkroom.core.jobs import VIEW_JOB, JobView
from darkroom.core.photos import PhotoView, list_photos_of_jobs
from darkroom.db.database import Connection

CHANNEL: Final = "darkroom_jobs"
"""Where `ring_watchers` rings; the payload is a job's id."""
OPEN_STATUSES: Final = frozenset({"pending", "processing"})
MEASURED_PHOTOS: Final = 200
"""The newest photos that durations are taken from: eight of the largest sets. Older ones were made in
another hour, by a provider in another mood."""
MEASURED_MIN: Final = 5
"""Fewer photos of one provider than this say nothing about its next one."""
QUARTER_LATE: Final = 0.75
"""What is promised is kept three times of four; the mean is broken every second time."""

MARKS: Final = """
SELECT j.id AS job_id, j.user_id, j.status, j.completed_photos,
       (SELECT count(*) FROM kie_tasks t WHERE t.job_id = j.id AND t.status = 'failed') AS failed_photos
FROM generation_jobs j WHERE j.id = ANY(%s)
"""
DURATIONS: Final = """
SELECT a.provider, extract(epoch FROM p.created_at - a.created_at)::FLOAT8 AS seconds
FROM (SELECT attempt_id, created_at FROM generated_photos ORDER BY id DESC LIMIT %s) p
JOIN task_attempts a ON a.id = p.attempt_id
"""
OPEN_TASKS: Final = """
SELECT t.job_id, t.provider,
       CASE WHEN t.status = 'queued' OR a.id IS NULL THEN 0
            ELSE greatest(extract(epoch FROM darkroom_now() - a.created_at), 0) END::FLOAT8 AS age_seconds
FROM kie_tasks t LEFT JOIN task_attempts a ON a.id = t.attempt_id
WHERE t.job_id = ANY(%s) AND t.status IN ('queued', 'submitting', 'unknown', 'pending', 'storing')
"""


@dataclass(frozen=True, slots=True)
class JobMark:
    """What must differ for anybody to be told something: small enough to be read for every watched job."""

    job_id: int
    user_id: int
    status: str
    completed_photos: int
    failed_photos: int


async def read_marks(tx: Connection, job_ids: Sequence[int]) -> list[JobMark]:
    """The marks of these jobs, in one statement: a hundred watchers cost one look."""
    async with tx.cursor(row_factory=class_row(JobMark)) as cursor:
        await cursor.execute(MARKS, [list(job_ids)])
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A photo that is still being made.

    Attributes:
        age_seconds: since its attempt under way began; 0 when none has.
    """

    job_id: int
    provider: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The whole truth about a job: its counts, its photos so far in storing order, and the time left.

    Attributes:
        seconds_left: None where too little was measured to say.
    """

    job: JobView
    photos: tuple[PhotoView, ...] = field(repr=False)
    seconds_left: int | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come (`partial` is an end as well)."""
        return self.job.status not in OPEN_STATUSES


Durations = Mapping[str, Sequence[float]]
"""Seconds from an attempt's beginning to its stored photo, by provider."""


async def read_durations(tx: Connection) -> Durations:
    """What the newest photos took. Bounded, and from the newest end of the primary key."""
    found: dict[str, list[float]] = {}
    cursor = await tx.execute(DURATIONS, [MEASURED_PHOTOS])
    for provider, seconds in await cursor.fetchall():
        found.setdefault(provider, []).append(seconds)
    return found


async def read_progress(
    tx: Connection, job_ids: Sequence[int], *, user_id: int | None = None
) -> dict[int, Progress]:
    """The whole truth of these jobs, by id, in one snapshot: counts and photos agree.

    `tx` is a transaction in which nothing was read yet. A job that does not exist, or is not `user_id`'s
    where one is given, is left out.
    """
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    async with tx.cursor(row_factory=class_row(JobView)) as cursor:
        await cursor.execute(
            VIEW_JOB
            + "WHERE j.id = ANY(%(ids)s) AND (%(user_id)s::BIGINT IS NULL OR j.user_id = %(user_id)s)",
            {"ids": list(job_ids), "user_id": user_id},
        )
        jobs = await cursor.fetchall()
    ids = [job.id for job in jobs]
    async with tx.cursor(row_factory=class_row(OpenTask)) as cursor:
        await cursor.execute(OPEN_TASKS, [ids])
        waiting = await cursor.fetchall()
    photos = await list_photos_of_jobs(tx, ids)
    durations: Durations = await read_durations(tx) if waiting else {}
    return {
        job.id: Progress(
            job,
            tuple(photo for photo in photos if photo.job_id == job.id),
            seconds_left([task for task in waiting if task.job_id == job.id], durations),
        )
        for job in jobs
    }


def seconds_left(waiting: Sequence[OpenTask], durations: Durations) -> int | None:
    """How long until the last open photo is there, by what photos of its provider took lately.

    Only the photos that took longer than this one has already been waiting say something about it. None:
    too few were measured, or none took so long; then nobody knows, and nobody is told a number.
    """
    longest = 0.0
    for task in waiting:
        measured = durations.get(task.provider, ())
        longer = sorted(seconds for seconds in measured if seconds > task.age_seconds)
        if len(measured) < MEASURED_MIN or not longer:
            return None
        place = min(int(len(longer) * QUARTER_LATE), len(longer) - 1)
        longest = max(longest, longer[place] - task.age_seconds)
    return math.ceil(longest)


async def ring_watchers(tx: Connection, job_ids: Sequence[int]) -> None:
    """Wake whoever watches these jobs, in any process. A statement of its own, after the commit it tells of.

    A NOTIFY inside the transaction of a photo would make its commit wait for one lock of the whole server,
    with the job's row locked and the disk not yet written: every photo of every shop in single file.
    Here that lock is held for a commit that waits for no disk. Lost in a crash: the watchers look by
    themselves every few seconds.
    """
    await tx.execute(
        "WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', TRUE)) "
        "SELECT pg_notify(%s, job_id::TEXT) FROM quick, unnest(%s::BIGINT[]) AS job_id",
        [CHANNEL, list(job_ids)],
    )
