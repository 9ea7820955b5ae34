"""Objects that nobody needs are removed: bytes that were put and never got their row.

A worker that dies between a put and its row, a photo that came twice with other bytes, an upload that was
never finished: each leaves an object. None is removed that could still get a row; how that is certain differs
by folder.

**`generated/`, `thumbnails/`** carry their task in the key, with its avatar and style: a task that is known
under others, or that began after the object was put, is not the one that made it (numbers are given out again
after a restore). It must have been `completed` or `failed` for a
day, the object must be a day old by the store's own clock, and no row may point at it. A day is no proof by
itself: a put that finds the same bytes leaves them as old as they are, so a worker may be about to write the
row of an old object. Who that could be is told by the task. Completed: no worker, the row that it has is its
only one, and `store_photos` needs `storing`. Failed: only a replay gets it there again, so an object of a task
that may still be replayed stays, and once its money goes back that cannot be undone. A task that is not
terminal keeps everything. What is left is a picture that comes a day after its task failed, from a process
that stood still as long, with the very bytes of an orphan: its row in `late_photos` is evidence, never a
delivery.

**`references/`** carry avatar, hash and generation; an object that is older than its avatar is not of it. Where
no row can have the key again (the avatar is deleted, or the generation has moved on) the object is deleted.
Otherwise the same file may be on its way in at this moment: it gets a row that is being erased, behind its
customer's lock. Whoever keeps a selfie looks there under the same lock, finds its key taken, and puts its bytes
elsewhere (`add_selfie`); the eraser deletes, as always.

**`uploads/`** hold raw files on their way in: a day after it was put, an object's address has been dead for
hours, and its own remover has been by (`upload_directly`); what is still there came by a put that took longer
than that one waits. **`proofs/`** hold what `ObjectStore.prove` could not remove.

At the walk's end goes what no list shows: files that a process was writing into a folder when it died.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from darkroom.core.bucket import (
    LooseSelfie,
    SelfieObject,
    TaskObject,
    give_to_eraser,
    leave_walk,
    list_loose_selfies,
    list_old,
    list_unneeded_of_tasks,
    take_walk,
)
from darkroom.core.requests import lock_anybody
from darkroom.db.database import RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.delete_objects import Deleting
from darkroom.flow.watch_store import may_delete
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError, StoredObject

log = get_logger("flow")

FOLDERS: Final = ("generated", "thumbnails", "references", "uploads", "proofs")
"""The walk's way. Nothing is ever removed outside of these."""
HOLD_SECONDS: Final = 3600
"""A round deletes a page of objects at most: 500 at 2 s each, which is slow, are 1000 s."""
_OF_A_TASK: Final = re.compile(
    r"(?:generated|thumbnails)/([0-9]{1,18})/([a-z0-9_-]{1,64})/([0-9]{1,18})/([0-9]{1,9})"
    r"-[0-9a-f]{16}\.[a-z0-9]+"
)
_OF_A_SELFIE: Final = re.compile(
    r"references/([0-9]{1,18})/([0-9a-f]{64})(?:-([0-9]{1,9}))?\.[a-z0-9]+"
)


@dataclass(slots=True)
class _Page:
    """Objects of one round, by what their keys say. Keys that say nothing of ours are left alone."""

    of_tasks: list[TaskObject] = field(default_factory=list[TaskObject])
    selfies: dict[str, SelfieObject] = field(default_factory=dict[str, SelfieObject])
    passing: list[StoredObject] = field(default_factory=list[StoredObject])

    def add(self, objects: Sequence[StoredObject]) -> None:
        for one in objects:
            task = _OF_A_TASK.fullmatch(one.key)
            selfie = _OF_A_SELFIE.fullmatch(one.key)
            if task is not None:
                self.of_tasks.append(
                    TaskObject(
                        key=one.key,
                        modified_at=one.modified_at,
                        avatar_id=int(task[1]),
                        style_id=task[2],
                        job_id=int(task[3]),
                        prompt_index=int(task[4]),
                    )
                )
            elif selfie is not None:
                self.selfies[one.key] = SelfieObject(
                    key=one.key,
                    modified_at=one.modified_at,
                    size_bytes=one.size_bytes,
                    avatar_id=int(selfie[1]),
                    sha256=selfie[2],
                    generation=int(selfie[3] or 0),
                )
            elif one.key.startswith(("uploads/", "proofs/")):
                self.passing.append(one)


async def sweep_bucket(darkroom: Darkroom) -> int:
    """One bounded round of the walk, one at a time for all processes. Returns how many objects go.

    Looks at a page of the bucket, remembers how far it came, and begins anew at the end. A crash leaves
    unneeded objects; the walk comes by again. Deleting twice is harmless: what is deleted has no row and can
    get none. A store that lists nothing is asked again from the same place; what it does not delete is passed
    over until the walk comes by again. One that is not known to be ours is not walked: what nobody needs
    here may be another shop's photos.
    """
    limits = darkroom.limits
    if not await may_delete(darkroom):
        return 0
    async with darkroom.database.connection() as tx:
        walk = await take_walk(tx, "sweep", hold_seconds=HOLD_SECONDS)
    if walk is None:
        return 0
    folder, after, swept, pause = walk.folder, walk.after_key, 0, limits.bucket_sweep_seconds
    try:
        page, folder, after = await _next_page(darkroom, walk.folder, walk.after_key)
        swept = await _sweep(darkroom, page)
        if not folder:
            pause = limits.bucket_sweep_pause_seconds
            swept += await _remove_unfinished(darkroom)
    except StorageUnavailableError as error:
        folder, after = walk.folder, walk.after_key
        log.warning("bucket not swept", error=str(error))
    await checkpoint("bucket.swept")
    async with darkroom.database.connection() as tx:
        await leave_walk(tx, walk, folder=folder, after_key=after, pause_seconds=pause)
    return swept


async def _next_page(darkroom: Darkroom, folder: str, after: str) -> tuple[_Page, str, str]:
    """The next objects, and where the walk goes on: the folder and the last key, or nothing at the end."""
    page, room = _Page(), darkroom.limits.bucket_page
    place = FOLDERS.index(folder) if folder in FOLDERS else 0
    for current in FOLDERS[place:]:
        objects = await darkroom.store.list_page(
            current, after=after if current == folder else "", limit=room
        )
        page.add(objects)
        if len(objects) == room:
            return page, current, objects[-1].key
        room -= len(objects)
    return page, "", ""


async def _sweep(darkroom: Darkroom, page: _Page) -> int:
    old_seconds = darkroom.limits.orphan_seconds
    async with darkroom.database.connection() as tx:
        keys = await list_unneeded_of_tasks(tx, page.of_tasks, old_seconds=old_seconds)
        loose = await list_loose_selfies(tx, list(page.selfies.values()), old_seconds=old_seconds)
        keys += await list_old(
            tx, [(one.key, one.modified_at) for one in page.passing], old_seconds=old_seconds
        )
    keys += [selfie.key for selfie in loose if selfie.is_nobodys]
    random.shuffle(keys)
    deleting, deleted = Deleting(darkroom.store, "unneeded"), 0
    for key in keys:
        await checkpoint("bucket.before_delete")
        if await deleting.delete(key):
            log.info("unneeded object deleted", object_key=key)
            deleted += 1
        if deleting.is_over:
            log.error("the store deletes nothing of this page", failed=deleting.failed)
            break
    given = [
        await _give(darkroom, selfie, page.selfies[selfie.key])
        for selfie in loose
        if not selfie.is_nobodys
    ]
    return deleted + sum(given)


async def _remove_unfinished(darkroom: Darkroom) -> int:
    """Some of each folder's; the rest when the walk is here again."""
    removed = 0
    for folder in FOLDERS:
        try:
            gone = await darkroom.store.remove_unfinished(
                folder,
                old_seconds=darkroom.limits.orphan_seconds,
                limit=darkroom.limits.bucket_page,
            )
        except StorageUnavailableError as error:
            # No part of the walk: that has come to its end, and goes on from the beginning.
            log.warning("unfinished files not removed", folder=folder, error=str(error))
            continue
        if gone:
            log.info("unfinished files removed", folder=folder, files=gone)
        removed += gone
    return removed


async def _give(darkroom: Darkroom, loose: LooseSelfie, selfie: SelfieObject) -> bool:
    try:
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, loose.user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            given = await give_to_eraser(tx, selfie)
            await checkpoint("bucket.given_to_eraser")
    except RowBusyError:
        # The customer is at it this moment; the walk comes by again.
        log.warning("unneeded selfie not erased yet", object_key=selfie.key)
        return False
    if given:
        log.info("unneeded selfie is erased", object_key=selfie.key)
    return given
