"""A provider's picture becomes our photo: fetched, decoded, hashed, stored, and only then counted.

The bytes are in our storage before the row exists. Photo, task, job and chat row commit together.
A small picture for the gallery is made on the way; a photo never fails by it, and waits 5 s at most
for it to be stored.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final

from darkroom.core.people import references_of_jobs
from darkroom.core.photos import (
    StoredPicture,
    StoredThumbnail,
    keep_late_photo,
    store_photos,
)
from darkroom.core.tasks import TaskClaim, claim_storing, release
from darkroom.db.database import DatabaseRefusedError, DatabaseUnavailableError
from darkroom.flow.darkroom import Darkroom, request_of
from darkroom.flow.poll_tasks import try_again_or_fail
from darkroom.flow.rounds import work_on_each
from darkroom.flow.tell_watchers import tell_watchers
from darkroom.flow.watch_store import may_put
from darkroom.flow.write_together import WriteTogether
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError
from darkroom.ports.generation import (
    BadResultError,
    GenerationRequest,
    LinkDeadError,
    ProviderUnavailableError,
)
from darkroom.ports.pictures import DecoderHangsError, Developed
from darkroom.ports.storage import ObjectConflictError, StorageUnavailableError

log = get_logger("flow")

THUMBNAIL_SECONDS: Final = 5
"""Storing one takes 50 ms; a photo waits this much for it at most, half a lease."""

APART_AFTER: Final = 3
"""Leases of a task that ended without a word, before its picture is opened in a process of its own, so
that what kills its decoder takes no fourth. One or two are deploys and crashes, whose work is to go on within
ten seconds, and starting a process may take that long."""

LAST_TRIES: Final = 5
"""A pause takes at most this part of what a link has left, so from the last five minutes on, where it begins to
matter, more than ten tries fit before its death."""

Stored = tuple[TaskClaim, StoredPicture]

MOVES_MADE: Final = (
    "task: storing -> completed",
    "task: storing -> queued",
    "task: storing -> failed",
    "delivery: new -> pending",
)


async def collect_due_photos(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many tasks were claimed.

    A crash anywhere leaves the task `storing`; the put is write-once under a key that carries the hash,
    so doing it again changes nothing. Into a store that is known to be another one nothing is put: a photo
    would be delivered from where nobody looks.
    """
    limits = darkroom.limits
    if not await may_put(darkroom):
        return 0
    async with darkroom.database.connection() as tx:
        tasks = await claim_storing(
            tx,
            limit=limits.batch,
            lease_seconds=limits.lease_seconds,
            dying_seconds=limits.links_alarm_seconds,
        )
    if not tasks:
        return 0
    if len(tasks) == limits.batch:
        await darkroom.doorbell.wake("collect")
    await checkpoint("collect.claimed")
    async with darkroom.database.connection() as tx:
        references = await references_of_jobs(tx, sorted({task.job_id for task in tasks}))

    async def write(stored: Sequence[Stored]) -> Sequence[None]:
        return await _write_stored(darkroom, stored)

    async with WriteTogether(write) as together:

        async def collect(task: TaskClaim) -> None:
            await _collect(darkroom, task, request_of(task, references[task.job_id]), together)

        await work_on_each("collect", darkroom.leases, "task", tasks, collect)
    return len(tasks)


async def _write_stored(darkroom: Darkroom, stored: Sequence[Stored]) -> Sequence[None]:
    async with darkroom.database.transaction() as tx:
        photo_ids = await store_photos(tx, stored, to_chat=darkroom.chat_enabled)
        for task, picture in stored:
            if task.id not in photo_ids and await keep_late_photo(tx, task, picture):
                log.warning("photo came after its task had failed", task_id=task.id)
        await checkpoint("collect.before_commit")
    await checkpoint("collect.after_commit")
    await tell_watchers(darkroom, [task.job_id for task, _ in stored])
    return [None] * len(stored)


async def _collect(
    darkroom: Darkroom,
    task: TaskClaim,
    request: GenerationRequest,
    together: WriteTogether[Stored, None],
) -> None:
    try:
        picture = await _fetch_and_store(darkroom, task, request)
    except LinkDeadError:
        await _give_up_result(darkroom, task, code="LINK_DEAD", text="the result's link died")
        return
    except BadResultError as error:
        if task.bad_results + 1 >= darkroom.limits.bad_results_max:
            await _give_up_result(darkroom, task, code="BAD_RESULT", text=str(error))
        else:
            await _try_later(darkroom, task, error=str(error), bad_result=True)
        return
    except DecoderHangsError as error:
        # Tried again as it was, it would hold another thread each time.
        log.warning("opened apart the next time", task_id=task.id)
        await _try_later(darkroom, task, error=str(error), lapses_min=APART_AFTER)
        return
    except (ProviderUnavailableError, StorageUnavailableError, ObjectConflictError) as error:
        if isinstance(error, ObjectConflictError):
            log.exception("the store holds other bytes under this key", task_id=task.id)
        await _try_later(darkroom, task, error=str(error))
        return
    except (TransactionOpenError, DatabaseUnavailableError):
        raise
    except Exception as error:
        # A broken adapter is no reason to buy another generation: the picture is still there.
        log.exception("fetch or put raised", provider=task.provider, task_id=task.id)
        await _try_later(darkroom, task, error=type(error).__name__)
        return
    await checkpoint("collect.stored")
    try:
        await together((task, picture))
    except DatabaseRefusedError as error:
        # The photo is safe in storage. This raises `attempts` and the alarm; it buys nothing (DESIGN 2).
        log.exception("photo row refused", task_id=task.id)
        await _try_later(darkroom, task, error=str(error))


async def _fetch_and_store(
    darkroom: Darkroom, task: TaskClaim, request: GenerationRequest
) -> StoredPicture:
    provider = darkroom.generation.get(task.provider)
    if provider is None or task.kie_task_id is None or task.result_url is None:
        raise ProviderUnavailableError(f"provider {task.provider} is off")
    await checkpoint("collect.before_fetch")
    data = await provider.fetch(request, task.kie_task_id, task.result_url)
    await checkpoint("collect.after_fetch")
    # Each of the dead may have died of it.
    suspect = task.lapses >= APART_AFTER
    developed = await (darkroom.develop_apart if suspect else darkroom.develop)(data)
    facts = developed.facts
    sha256 = hashlib.sha256(data).hexdigest()
    place = f"{task.avatar_id}/{task.style_id}/{task.job_id}/{task.prompt_index}"
    key = f"generated/{place}-{sha256[:16]}.{facts.extension}"
    await checkpoint("collect.before_put")
    thumbnail = await _store_both(darkroom, key, data, developed, place)
    return StoredPicture(
        object_key=key,
        sha256=sha256,
        size_bytes=len(data),
        content_type=facts.content_type,
        width=facts.width,
        height=facts.height,
        thumbnail=thumbnail,
    )


async def _store_both(
    darkroom: Darkroom, key: str, data: bytes, developed: Developed, place: str
) -> StoredThumbnail | None:
    """At once: a bucket answers both in the time of one, a disk keeps both in one wait. As `put_once`."""
    put, thumbnail = await asyncio.gather(
        darkroom.store.put_once(key, data, developed.facts.content_type),
        _store_thumbnail(darkroom, developed, place),
        return_exceptions=True,
    )
    if isinstance(put, BaseException):
        raise put
    if isinstance(thumbnail, BaseException):
        raise thumbnail
    return thumbnail


async def _store_thumbnail(
    darkroom: Darkroom, developed: Developed, place: str
) -> StoredThumbnail | None:
    """The photo's small picture, stored; None when that did not work, and then the photo is shown in full.

    Not worth a retry of the step: the photo is safe already, and its customer waits. The key carries the
    hash of the thumbnail itself: another build of the encoder makes another object, never a conflict.
    """
    small = developed.thumbnail
    if small is None:
        log.warning("photo has no thumbnail", place=place, error=developed.trouble)
        return None
    sha256 = hashlib.sha256(small.data).hexdigest()
    key = f"thumbnails/{place}-{sha256[:16]}.{small.extension}"
    await checkpoint("collect.before_thumbnail")
    try:
        async with asyncio.timeout(THUMBNAIL_SECONDS):
            await darkroom.store.put_once(key, small.data, small.content_type)
    except TransactionOpenError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, the photo itself is fine
        log.warning("photo has no thumbnail", place=place, error=type(error).__name__)
        return None
    return StoredThumbnail(key, sha256, len(small.data), small.content_type)


async def _give_up_result(darkroom: Darkroom, task: TaskClaim, *, code: str, text: str) -> None:
    async with darkroom.database.transaction() as tx:
        await try_again_or_fail(
            darkroom, tx, task, source="storing", code=code, text=text, final=False
        )


async def _try_later(
    darkroom: Darkroom,
    task: TaskClaim,
    *,
    error: str,
    bad_result: bool = False,
    lapses_min: int = 0,
) -> None:
    limits = darkroom.limits
    pause = backoff_seconds(
        task.attempts,
        base_seconds=limits.retry_base_seconds,
        cap_seconds=limits.retry_cap_seconds,
    )
    if task.result_left_seconds is not None and task.result_left_seconds > 0:
        # Never past the link's death: each pause leaves most of what is left.
        share = task.result_left_seconds / LAST_TRIES
        pause = min(pause, max(share, limits.retry_base_seconds))
    async with darkroom.database.transaction() as tx:
        await release(
            tx,
            task,
            pause_seconds=pause,
            error=error,
            hold_doorbells=True,
            bad_result=bad_result,
            lapses_min=lapses_min,
        )
