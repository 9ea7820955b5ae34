"""What our rows say about the bucket: whose bytes to look at, how far a walk came, and who needs a key.

Who points at an object: a photo (its picture, its thumbnail), a late photo, a selfie, each until its bytes are
erased. A row that is marked to be erased still points: deleting is the eraser's, and it has the mark.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, LiteralString

from psycopg.rows import class_row, dict_row, scalar_row

from darkroom.core.dead_letters import REPLAYABLE
from darkroom.db.database import Connection

WalkName = Literal["check", "sweep"]
Finding = Literal["missing", "other_size", "other_bytes", "not_a_picture", "unreadable"]


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk that this worker has taken. `claim` is the fence."""

    name: WalkName
    folder: str
    after_key: str
    claim: int


async def take_walk(tx: Connection, name: WalkName, *, hold_seconds: float) -> Walk | None:
    """Take a walk that is due; None: it is not, or somebody has it. After `hold_seconds` it is free again."""
    async with tx.cursor(row_factory=class_row(Walk)) as cursor:
        await cursor.execute(
            "UPDATE bucket_walks SET claim = claim + 1, "
            "due_at = darkroom_now() + make_interval(secs => %s) "
            "WHERE name = %s AND due_at <= darkroom_now() RETURNING name, folder, after_key, claim",
            [hold_seconds, name],
        )
        return await cursor.fetchone()


async def leave_walk(
    tx: Connection, walk: Walk, *, folder: str = "", after_key: str = "", pause_seconds: float
) -> bool:
    """Say how far the walk came, and when it goes on. False: somebody else has it since."""
    moved = await tx.execute(
        "UPDATE bucket_walks SET folder = %s, after_key = %s, "
        "due_at = darkroom_now() + make_interval(secs => %s) WHERE name = %s AND claim = %s",
        [folder, after_key, pause_seconds, walk.name, walk.claim],
    )
    return moved.rowcount == 1


@dataclass(frozen=True, slots=True)
class PhotoBytes:
    """What a photo's object must be."""

    id: int
    object_key: str
    sha256: str
    size_bytes: int


async def list_photos_to_check(
    tx: Connection, *, before: datetime | None, limit: int
) -> list[PhotoBytes]:
    """Photos whose bytes were looked at longest ago, never yet first; with `before` none looked at since."""
    async with tx.cursor(row_factory=class_row(PhotoBytes)) as cursor:
        await cursor.execute(
            "SELECT id, object_key, sha256, size_bytes FROM generated_photos "
            "WHERE erasing_at IS NULL AND (%(before)s::TIMESTAMPTZ IS NULL "
            "OR bytes_checked_at IS NULL OR bytes_checked_at < %(before)s) "
            "ORDER BY bytes_checked_at NULLS FIRST, id LIMIT %(limit)s",
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def note_checks(tx: Connection, checked: dict[int, Finding | None]) -> None:
    """Write down what the bytes of photos were found to be. Not for those whose bytes are being deleted.

    Rows are locked in their order: two who note at once do not wait for each other in a circle.
    """
    await tx.execute(
        """
        WITH seen AS (
            SELECT * FROM unnest(%(ids)s::BIGINT[], %(findings)s::TEXT[]) AS seen (id, finding)
        ), locked AS (
            SELECT p.id FROM generated_photos p JOIN seen ON seen.id = p.id
            ORDER BY p.id FOR NO KEY UPDATE OF p
        )
        UPDATE generated_photos p SET bytes_checked_at = darkroom_now(), bytes_finding = seen.finding
        FROM locked JOIN seen ON seen.id = locked.id
        WHERE p.id = locked.id AND p.erasing_at IS NULL
        """,
        {"ids": list(checked), "findings": list(checked.values())},
    )


_FOUND: Final[LiteralString] = "p.bytes_finding IS NOT NULL AND p.erasing_at IS NULL"


async def count_findings(tx: Connection) -> int:
    """Photos whose stored bytes were not what they must be when they were last looked at."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT count(*) FROM generated_photos p WHERE " + _FOUND)
        return int(await cursor.fetchone() or 0)


async def list_findings(tx: Connection, *, limit: int) -> list[dict[str, Any]]:
    """The first of those, as an operator needs them."""
    async with tx.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "SELECT p.id AS photo_id, p.bytes_finding AS finding, p.job_id, j.payment_id, "
            "p.object_key, p.bytes_checked_at AS checked_at FROM generated_photos p "
            "JOIN generation_jobs j ON j.id = p.job_id WHERE " + _FOUND + " ORDER BY p.id LIMIT %s",
            [limit],
        )
        return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Checked:
    """How much of the bucket was looked at: photos there are, and since when all of them were looked at.

    Attributes:
        asked_at: now, as our rows count it.
    """

    asked_at: datetime
    photos: int
    never: int
    oldest_check_at: datetime | None


async def summarise_checks(tx: Connection) -> Checked:
    """The state of the rolling check."""
    async with tx.cursor(row_factory=class_row(Checked)) as cursor:
        await cursor.execute(
            "SELECT darkroom_now() AS asked_at, count(*) AS photos, "
            "count(*) FILTER (WHERE bytes_checked_at IS NULL) AS never, "
            "min(bytes_checked_at) AS oldest_check_at FROM generated_photos WHERE erasing_at IS NULL"
        )
        found = await cursor.fetchone()
        assert found is not None  # noqa: S101 - without groups it is one row
        return found


@dataclass(frozen=True, slots=True)
class TaskObject:
    """An object under a task's key: a picture or a thumbnail."""

    key: str
    modified_at: datetime
    avatar_id: int
    style_id: str
    job_id: int
    prompt_index: int


_POINTED_AT: Final[LiteralString] = """
EXISTS (SELECT FROM generated_photos p WHERE p.object_key = k.key AND p.erased_at IS NULL)
OR EXISTS (SELECT FROM generated_photos p WHERE p.thumbnail_key = k.key AND p.erased_at IS NULL)
OR EXISTS (SELECT FROM late_photos l WHERE l.object_key = k.key AND l.erased_at IS NULL)
OR EXISTS (SELECT FROM reference_photos r WHERE r.object_key = k.key AND r.erased_at IS NULL)
"""
_OLD: Final[LiteralString] = (
    "k.modified_at <= (SELECT darkroom_now()) - make_interval(secs => %(old)s)"
)
_OF_ITS_TASK: Final[LiteralString] = """
t.avatar_id = k.avatar_id AND t.style_id = k.style_id
AND k.modified_at >= t.created_at - INTERVAL '1 hour'
"""
"""Its task made it, and not another one of that number: a restored database gives numbers out again, and each
shop begins at 1. What was put before its row was there is another row's; two clocks never differ by an hour."""
_OF_ITS_AVATAR: Final[LiteralString] = "k.modified_at >= a.created_at - INTERVAL '1 hour'"
"""As above: nothing else in a selfie's key is given out by the database."""
_ENDED: Final[LiteralString] = (
    """
t.status_since <= (SELECT darkroom_now()) - make_interval(secs => %(old)s)
AND (t.status = 'completed' OR (t.status = 'failed' AND NOT EXISTS (
    SELECT FROM generation_dead_letter_queue d
    WHERE d.task_id = t.id AND d.replayed_at IS NULL AND """
    + REPLAYABLE
    + ")))"
)
"""Completed is for ever, and such a task gets no second row. A failed one may be made again while its money
stays, and would find what an earlier try had put, as old as it is: that is kept as long."""


async def list_unneeded_of_tasks(
    tx: Connection, objects: list[TaskObject], *, old_seconds: float
) -> list[str]:
    """Keys among these that no row points at, old, of tasks that ended as long ago and never go on.

    A key of a task that we do not know, or of another avatar, style or time than that task's, is not ours to
    judge: perhaps the database is an old copy.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT k.key FROM unnest(%(keys)s::TEXT[], %(modified)s::TIMESTAMPTZ[],
                                     %(avatars)s::BIGINT[], %(styles)s::TEXT[],
                                     %(jobs)s::BIGINT[], %(indexes)s::INTEGER[])
                AS k (key, modified_at, avatar_id, style_id, job_id, prompt_index)
            JOIN kie_tasks t ON t.job_id = k.job_id AND t.prompt_index = k.prompt_index
            WHERE """
            + _OF_ITS_TASK
            + " AND "
            + _OLD
            + " AND "
            + _ENDED
            + " AND NOT ("
            + _POINTED_AT
            + ") ORDER BY k.key",
            {
                "keys": [one.key for one in objects],
                "modified": [one.modified_at for one in objects],
                "avatars": [one.avatar_id for one in objects],
                "styles": [one.style_id for one in objects],
                "jobs": [one.job_id for one in objects],
                "indexes": [one.prompt_index for one in objects],
                "old": old_seconds,
            },
        )
        return [str(key) for key in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class SelfieObject:
    """An object under a selfie's key. `generation` as `selfies.find_generation` counts it."""

    key: str
    modified_at: datetime
    size_bytes: int
    avatar_id: int
    sha256: str
    generation: int


@dataclass(frozen=True, slots=True)
class LooseSelfie:
    """A selfie's object that no row points at.

    Attributes:
        is_nobodys: no row can ever have this key again: its avatar is gone, or an upload of the same
            bytes gets another key. Otherwise the same file may be on its way in at this moment.
    """

    key: str
    user_id: int
    is_nobodys: bool


async def list_loose_selfies(
    tx: Connection, objects: list[SelfieObject], *, old_seconds: float
) -> list[LooseSelfie]:
    """Old objects among these that no selfie points at, of avatars that we know and that were there before."""
    async with tx.cursor(row_factory=class_row(LooseSelfie)) as cursor:
        await cursor.execute(
            """
            SELECT k.key, a.user_id,
                   a.deleted_at IS NOT NULL OR k.generation < (
                       SELECT count(*) FROM reference_photos r WHERE r.avatar_id = a.id
                       AND r.sha256 = k.sha256 AND r.erasing_at IS NOT NULL) AS is_nobodys
            FROM unnest(%(keys)s::TEXT[], %(modified)s::TIMESTAMPTZ[], %(avatars)s::BIGINT[],
                        %(hashes)s::TEXT[], %(generations)s::INTEGER[])
                AS k (key, modified_at, avatar_id, sha256, generation)
            JOIN avatars a ON a.id = k.avatar_id
            WHERE """
            + _OF_ITS_AVATAR
            + " AND "
            + _OLD
            + " AND NOT ("
            + _POINTED_AT
            + ") ORDER BY k.key",
            {
                "keys": [one.key for one in objects],
                "modified": [one.modified_at for one in objects],
                "avatars": [one.avatar_id for one in objects],
                "hashes": [one.sha256 for one in objects],
                "generations": [one.generation for one in objects],
                "old": old_seconds,
            },
        )
        return await cursor.fetchall()


async def give_to_eraser(tx: Connection, selfie: SelfieObject) -> bool:
    """A loose selfie's object gets a row that is being erased. Call it behind the user's lock.

    From here on an upload of the same bytes gets another key, also one that has put them already and not
    kept its row yet: that is decided behind the same lock (`selfies.find_generation`). False: a row has the
    key meanwhile. Nothing of the picture was looked at, so its sides are unknown: 1 by 1.
    """
    given = await tx.execute(
        """
        INSERT INTO reference_photos (avatar_id, object_key, sha256, size_bytes, content_type, width, height,
                                      deleted_at, erasing_at)
        SELECT %(avatar_id)s, %(key)s, %(sha256)s, %(size)s, 'application/octet-stream', 1, 1,
               darkroom_now(), darkroom_now()
        WHERE NOT EXISTS (SELECT FROM reference_photos r WHERE r.object_key = %(key)s)
          AND %(generation)s = (SELECT count(*) FROM reference_photos r
              WHERE r.avatar_id = %(avatar_id)s AND r.sha256 = %(sha256)s AND r.erasing_at IS NOT NULL)
        """,
        {
            "avatar_id": selfie.avatar_id,
            "key": selfie.key,
            "sha256": selfie.sha256,
            "size": max(selfie.size_bytes, 1),
            "generation": selfie.generation,
        },
    )
    return given.rowcount == 1


async def list_old(
    tx: Connection, objects: list[tuple[str, datetime]], *, old_seconds: float
) -> list[str]:
    """The keys among these of objects that are old."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT k.key FROM unnest(%(keys)s::TEXT[], %(modified)s::TIMESTAMPTZ[]) "
            "AS k (key, modified_at) WHERE " + _OLD + " ORDER BY k.key",
            {
                "keys": [key for key, _ in objects],
                "modified": [moment for _, moment in objects],
                "old": old_seconds,
            },
        )
        return [str(key) for key in await cursor.fetchall()]
