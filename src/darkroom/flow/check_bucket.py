"""The stored bytes are looked at: read whole, hashed, decoded, and held against their rows. Mends nothing."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from prometheus_client import Gauge

from darkroom.core.bucket import (
    Checked,
    Finding,
    PhotoBytes,
    count_findings,
    leave_walk,
    list_findings,
    list_photos_to_check,
    note_checks,
    summarise_checks,
    take_walk,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.watch_store import insist_on_own_store, may_delete
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.generation import BadResultError
from darkroom.ports.storage import (
    ObjectMissingError,
    ObjectTooLargeError,
    StorageUnavailableError,
)

log = get_logger("flow")

BUCKET_FINDINGS: Final = Gauge(
    "darkroom_bucket_findings",
    "Photos whose stored bytes were missing, other or not given out when they were last looked at.",
)
READS_AT_ONCE: Final = 4
"""Each holds its object, 50 MB at most, and what that decodes to, 150 MB: 800 MB at the worst, 40 as a rule."""
HOLD_SECONDS: Final = 600
"""A round reads 20 photos, four at once, each in 30 s at most, and 20 once more: 300 s; twice that."""
ROWS_MAX: Final = 200
"""Findings shown: a page that a person still reads."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Photos looked at so far, of so many at most."""

    checked: int
    of: int


@dataclass(frozen=True, slots=True)
class BucketReport:
    """What a look at the bucket said.

    Attributes:
        checked: photos that this look read.
        failure: why it broke off; None: it did not.
        findings: how many photos are not what they must be, whoever found them.
        rows: the first of those.
        photos: how many photos there are.
        never_checked: of those, how many nobody has looked at yet.
        oldest_check_at: all others were looked at since.
    """

    checked: int
    failure: str | None
    findings: int
    rows: Sequence[dict[str, Any]]
    photos: int
    never_checked: int
    oldest_check_at: datetime | None

    @property
    def clean(self) -> bool:
        """Whether it was read to its end, and no photo is known to be missing, other or unreadable."""
        return self.failure is None and self.findings == 0


def _silent(_progress: Progress) -> None:
    """Nobody watches."""


async def check_bucket(darkroom: Darkroom) -> int:
    """One bounded round of the rolling check, one at a time for all processes. Returns how many it looked at.

    Those that were looked at longest ago come first, so that every photo is seen again and again. A crash
    leaves some of them not noted: the next round, after HOLD_SECONDS, has them first. A store that answers
    nothing is no finding; a photo that it does not give out, while it gives out others, is. Of a store that
    is not known to be ours nothing is said. Safe at any time, by anyone.
    """
    if not await may_delete(darkroom):
        return 0
    async with darkroom.database.connection() as tx:
        walk = await take_walk(tx, "check", hold_seconds=HOLD_SECONDS)
    if walk is None:
        return 0
    checked, failure = await _check_batch(darkroom, before=None, limit=darkroom.limits.batch)
    if failure is not None:
        log.warning("stored photos not looked at", failure=failure)
    async with darkroom.database.connection() as tx:
        await leave_walk(tx, walk, pause_seconds=darkroom.limits.bucket_check_seconds)
    async with darkroom.database.connection() as tx:
        BUCKET_FINDINGS.set(await count_findings(tx))
    return checked


async def audit_bucket(
    darkroom: Darkroom, *, limit: int | None, report: Callable[[Progress], None] = _silent
) -> BucketReport:
    """Look at the bytes of `limit` photos, of all with None, those of the longest unseen first.

    In batches that are noted one by one: a crash, or a store that stops answering, leaves what was seen.
    Harmless beside the worker's own rounds, and by many at once.

    Raises:
        ForeignStoreError: the store is not known to be ours; nothing of it is noted.
        DatabaseUnavailableError: the database does not answer.
    """
    async with darkroom.database.connection() as tx:
        there = await summarise_checks(tx)
    most = there.photos if limit is None else min(limit, there.photos)
    checked, failure = 0, None
    while failure is None and (limit is None or checked < limit):
        left = darkroom.limits.batch if limit is None else limit - checked
        try:
            await insist_on_own_store(darkroom)
        except StorageUnavailableError as error:
            failure = str(error)
            break
        batch, failure = await _check_batch(
            darkroom, before=there.asked_at, limit=min(left, darkroom.limits.batch)
        )
        if batch == 0:
            break
        checked += batch
        report(Progress(checked, max(most, checked)))
    return await _told(darkroom, checked, failure)


async def _told(darkroom: Darkroom, checked: int, failure: str | None) -> BucketReport:
    async with darkroom.database.transaction() as tx:
        findings = await count_findings(tx)
        rows = await list_findings(tx, limit=ROWS_MAX)
        there: Checked = await summarise_checks(tx)
    return BucketReport(
        checked, failure, findings, rows, there.photos, there.never, there.oldest_check_at
    )


async def _check_batch(
    darkroom: Darkroom, *, before: datetime | None, limit: int
) -> tuple[int, str | None]:
    """How many photos were looked at, and why not all."""
    async with darkroom.database.connection() as tx:
        photos = await list_photos_to_check(tx, before=before, limit=limit)
    if not photos:
        return 0, None
    noted, failure = await _look_at_all(darkroom, photos)
    if noted and failure is not None:
        noted, failure = await _look_again(darkroom, photos, noted, failure)
    await checkpoint("bucket.looked_at")
    if noted:
        async with darkroom.database.connection() as tx:
            await note_checks(tx, noted)
    for photo in photos:
        finding = noted.get(photo.id)
        if finding is not None:
            log.error(
                "a stored photo is not what it must be",
                photo_id=photo.id,
                object_key=photo.object_key,
                finding=finding,
            )
    return len(noted), failure


async def _look_at_all(
    darkroom: Darkroom, photos: Sequence[PhotoBytes]
) -> tuple[dict[int, Finding | None], str | None]:
    """What those that the store answered about are, and why there are others."""
    at_once = asyncio.Semaphore(READS_AT_ONCE)
    noted: dict[int, Finding | None] = {}
    failures: list[str] = []

    async def look(photo: PhotoBytes) -> None:
        async with at_once:
            try:
                noted[photo.id] = await _look(darkroom, photo)
            except StorageUnavailableError as error:
                failures.append(str(error))

    await asyncio.gather(*(look(photo) for photo in photos))
    return noted, failures[0] if failures else None


async def _look_again(
    darkroom: Darkroom,
    photos: Sequence[PhotoBytes],
    noted: dict[int, Finding | None],
    failure: str,
) -> tuple[dict[int, Finding | None], str | None]:
    """Some were answered and some were not: is it these objects, or did the store go away in between?

    They are looked at once more together with one that was answered. When that one is answered again, those
    that are not are `unreadable`.
    """
    witness = next(photo for photo in photos if photo.id in noted)
    rest = [photo for photo in photos if photo.id not in noted]
    again, _ = await _look_at_all(darkroom, [*rest, witness])
    noted = noted | again
    if witness.id not in again:
        return noted, failure
    return {photo.id: noted.get(photo.id, "unreadable") for photo in photos}, None


async def _look(darkroom: Darkroom, photo: PhotoBytes) -> Finding | None:
    try:
        data = await darkroom.store.get(photo.object_key, most_bytes=photo.size_bytes)
    except ObjectMissingError:
        return "missing"
    except ObjectTooLargeError:
        return "other_size"
    if len(data) != photo.size_bytes:
        return "other_size"
    if hashlib.sha256(data).hexdigest() != photo.sha256:
        return "other_bytes"
    try:
        await darkroom.read_picture(data)
    except BadResultError:
        return "not_a_picture"
    return None
