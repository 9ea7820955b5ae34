"""Selfies of an avatar: rows that point at bytes which are stored already."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from darkroom.core.funnel import note_uploaded
from darkroom.db.database import Connection


@dataclass(frozen=True, slots=True)
class NewSelfie:
    """A selfie whose bytes are stored. `upload_sha256` is of the file it was made from."""

    object_key: str
    sha256: str
    upload_sha256: str
    size_bytes: int
    content_type: str
    width: int
    height: int
    dhash: int
    verdict: dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeptSelfie:
    """A selfie that counts, and what was found about it."""

    id: int
    verdict: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SelfieView:
    """A selfie as its owner sees it."""

    id: int
    avatar_id: int
    object_key: str
    sha256: str
    content_type: str
    size_bytes: int
    width: int
    height: int
    verdict: dict[str, Any]
    created_at: datetime


async def find_locale(tx: Connection, *, user_id: int, avatar_id: int) -> str | None:
    """The language of the owner of this live avatar; None when it isn't this user's."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT u.locale FROM avatars a JOIN users u ON u.id = a.user_id "
            "WHERE a.id = %s AND a.user_id = %s AND a.deleted_at IS NULL",
            [avatar_id, user_id],
        )
        return await cursor.fetchone()


async def count_upload(tx: Connection, *, user_id: int, most: int, window_seconds: float) -> bool:
    """Note one more upload of this user, behind the user's lock. False: there were too many, none noted."""
    noted = await tx.execute(
        """
        INSERT INTO upload_requests (user_id)
        SELECT %(user_id)s
        WHERE %(most)s > (
            SELECT count(*) FROM upload_requests u WHERE u.user_id = %(user_id)s
            AND u.created_at > (SELECT darkroom_now()) - make_interval(secs => %(window)s))
        """,
        {"user_id": user_id, "most": most, "window": window_seconds},
    )
    return noted.rowcount == 1


async def sweep_uploads(tx: Connection, *, older_than_seconds: float, limit: int) -> int:
    """Forget uploads that no window counts any more, at most `limit` a round."""
    swept = await tx.execute(
        "DELETE FROM upload_requests WHERE id IN (SELECT id FROM upload_requests "
        "WHERE created_at < (SELECT darkroom_now()) - make_interval(secs => %s) "
        "ORDER BY created_at LIMIT %s)",
        [older_than_seconds, limit],
    )
    return swept.rowcount


async def find_owner(tx: Connection, avatar_id: int) -> int | None:
    """Whose live avatar this is."""
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT user_id FROM avatars WHERE id = %s AND deleted_at IS NULL", [avatar_id]
        )
        return await cursor.fetchone()


async def find_selfie_by_upload(
    tx: Connection, *, avatar_id: int, upload_sha256: str
) -> KeptSelfie | None:
    """The live selfie that this very file became before."""
    async with tx.cursor(row_factory=class_row(KeptSelfie)) as cursor:
        await cursor.execute(
            "SELECT id, verdict FROM reference_photos "
            "WHERE avatar_id = %s AND upload_sha256 = %s AND deleted_at IS NULL ORDER BY id LIMIT 1",
            [avatar_id, upload_sha256],
        )
        return await cursor.fetchone()


async def find_generation(tx: Connection, *, avatar_id: int, sha256: str) -> int | None:
    """How often a selfie with these bytes began to be erased; None: the avatar is gone, or its owner left.

    Part of the object's key. Behind the user's lock it cannot change, and erasing that began never ends
    otherwise: an object under the key of this number is not one that somebody is deleting.
    """
    async with tx.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            """
            SELECT (SELECT count(*) FROM reference_photos r WHERE r.avatar_id = a.id
                    AND r.sha256 = %(sha256)s AND r.erasing_at IS NOT NULL)
            FROM avatars a JOIN users u ON u.id = a.user_id
            WHERE a.id = %(avatar_id)s AND a.deleted_at IS NULL AND u.forget_at IS NULL
            """,
            {"avatar_id": avatar_id, "sha256": sha256},
        )
        return await cursor.fetchone()


async def keep_selfie(
    tx: Connection, *, avatar_id: int, selfie: NewSelfie, most: int, like_bits: int
) -> KeptSelfie | None:
    """Remember a stored selfie. The same file, or the same picture, again is the same selfie.

    None: the avatar has `most` live ones. A deleted selfie sent again lives again, from now on, unless it
    is being erased: then this is another one, under another key. One that differs in at most `like_bits`
    of its 64 bits from another live one gets the warning NEAR_DUPLICATE. Call it behind the user's lock:
    only there does the count still hold when the row is written.
    """
    known = await _find_live(tx, avatar_id=avatar_id, selfie=selfie)
    if known is not None:
        return known
    async with tx.cursor(row_factory=class_row(KeptSelfie)) as cursor:
        await cursor.execute(
            """
            WITH live AS (
                SELECT r.dhash FROM reference_photos r
                WHERE r.avatar_id = %(avatar_id)s AND r.deleted_at IS NULL
            ), judged AS (
                SELECT CASE WHEN EXISTS (
                        SELECT FROM live l
                        WHERE bit_count((l.dhash # %(dhash)s)::BIT(64)) <= %(like_bits)s)
                    THEN jsonb_set(%(verdict)s::JSONB, '{warnings}',
                                   %(verdict)s::JSONB -> 'warnings' || '["NEAR_DUPLICATE"]')
                    ELSE %(verdict)s::JSONB END AS verdict
            )
            INSERT INTO reference_photos
                (avatar_id, object_key, sha256, upload_sha256, size_bytes, content_type,
                 width, height, dhash, verdict)
            SELECT %(avatar_id)s, %(object_key)s, %(sha256)s, %(upload_sha256)s, %(size_bytes)s,
                   %(content_type)s, %(width)s, %(height)s, %(dhash)s, judged.verdict
            FROM judged
            WHERE (SELECT count(*) FROM live) < %(most)s
            ON CONFLICT (avatar_id, sha256) WHERE erasing_at IS NULL DO UPDATE
            SET deleted_at = NULL, created_at = darkroom_now(), upload_sha256 = EXCLUDED.upload_sha256,
                dhash = EXCLUDED.dhash, verdict = EXCLUDED.verdict
            RETURNING id, verdict
            """,
            {
                "avatar_id": avatar_id,
                "object_key": selfie.object_key,
                "sha256": selfie.sha256,
                "upload_sha256": selfie.upload_sha256,
                "size_bytes": selfie.size_bytes,
                "content_type": selfie.content_type,
                "width": selfie.width,
                "height": selfie.height,
                "dhash": selfie.dhash,
                "verdict": Jsonb(selfie.verdict),
                "most": most,
                "like_bits": like_bits,
            },
        )
        kept = await cursor.fetchone()
    if kept is not None:
        await note_uploaded(tx, avatar_id)
    return kept


async def _find_live(tx: Connection, *, avatar_id: int, selfie: NewSelfie) -> KeptSelfie | None:
    async with tx.cursor(row_factory=class_row(KeptSelfie)) as cursor:
        await cursor.execute(
            "SELECT id, verdict FROM reference_photos "
            "WHERE avatar_id = %s AND deleted_at IS NULL AND (sha256 = %s OR upload_sha256 = %s) "
            "ORDER BY sha256 = %s DESC, id LIMIT 1",
            [avatar_id, selfie.sha256, selfie.upload_sha256, selfie.sha256],
        )
        return await cursor.fetchone()


_VIEW = """
    SELECT r.id, r.avatar_id, r.object_key, r.sha256, r.content_type, r.size_bytes, r.width,
           r.height, r.verdict, r.created_at
    FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id
    WHERE a.id = %(avatar_id)s AND a.user_id = %(user_id)s
      AND a.deleted_at IS NULL AND r.deleted_at IS NULL
      AND (%(selfie_id)s::BIGINT IS NULL OR r.id = %(selfie_id)s)
    ORDER BY r.id
"""


async def list_selfies(
    tx: Connection, *, user_id: int, avatar_id: int, selfie_id: int | None = None
) -> list[SelfieView]:
    """The live selfies of a live avatar of this user, oldest first; with `selfie_id` that one alone."""
    async with tx.cursor(row_factory=class_row(SelfieView)) as cursor:
        await cursor.execute(
            _VIEW, {"avatar_id": avatar_id, "user_id": user_id, "selfie_id": selfie_id}
        )
        return await cursor.fetchall()


async def bury_selfie(tx: Connection, *, user_id: int, avatar_id: int, selfie_id: int) -> bool:
    """Put a tombstone on a selfie. False: no such selfie of this user's avatar. Harmless twice.

    The bytes stay as long as a set that was started with it is being made; then they are erased.
    """
    buried = await tx.execute(
        "UPDATE reference_photos r SET deleted_at = coalesce(r.deleted_at, darkroom_now()) "
        "FROM avatars a WHERE r.id = %s AND r.avatar_id = a.id AND a.id = %s AND a.user_id = %s",
        [selfie_id, avatar_id, user_id],
    )
    return buried.rowcount == 1
