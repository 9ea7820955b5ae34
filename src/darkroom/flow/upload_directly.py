"""Selfies by way of the object store, for hosting that takes no large bodies.

A customer gets an address per file, puts the files there, and names them; then they are looked at and kept as
any other. What lies in the store meanwhile is nobody's picture yet: it is removed when its address is dead,
whatever became of it, so the same files may be named twice.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from darkroom.core.direct_uploads import (
    DirectUpload,
    drop_upload,
    find_uploads,
    list_ended_uploads,
    promise_uploads,
)
from darkroom.core.selfies import find_locale
from darkroom.flow.add_selfie import Outcome, Upload, add_selfies, refuse_too_many_uploads
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.delete_objects import Deleting
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.received_file import FILE_BYTES_MAX, ReceivedFile
from darkroom.flow.watch_store import may_delete
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.clock import Clock, system_clock
from darkroom.kit.log import get_logger
from darkroom.ports.storage import NoLinksError, ObjectMissingError, StorageUnavailableError

log = get_logger("flow")

LINK_SECONDS: Final = 600
"""Eight files of 30 MB at 400 KB/s, a poor mobile uplink: as long as a form with them may take."""
GRACE_SECONDS: Final = 300
"""A put that began at the last moment has ended by then: the store itself hangs up on slower ones."""
ROUND_UPLOADS: Final = 50
"""Objects removed in a round: at 30 s each, the worst case, they fit into half an hour; usually in a second."""


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Where one file may be put, once or again, until `ends_at`."""

    id: UUID
    url: str
    ends_at: datetime


async def open_uploads(
    darkroom: Darkroom,
    *,
    user_id: int,
    avatar_id: int,
    file_names: Sequence[str],
    clock: Clock = system_clock,
) -> list[UploadLink]:
    """Addresses for so many files. A crash leaves rows, which are removed in their time.

    Raises:
        RequestRefusedError: 404; 409 NO_DIRECT_UPLOADS where photos are kept in a folder; 429.
        DatabaseUnavailableError, RowBusyError: ask again.
    """
    try:
        darkroom.store.writable_link("uploads/0", seconds=LINK_SECONDS)
    except NoLinksError as error:
        raise RequestRefusedError(
            409, "NO_DIRECT_UPLOADS", "Send the photos as multipart/form-data"
        ) from error
    async with darkroom.database.connection() as tx:
        if await find_locale(tx, user_id=user_id, avatar_id=avatar_id) is None:
            raise not_found("avatar")
    await refuse_too_many_uploads(darkroom, user_id)
    # Before the rows: an address never outlives what its row says.
    ends_at = clock() + timedelta(seconds=LINK_SECONDS)
    async with darkroom.database.transaction() as tx:
        promised = await promise_uploads(
            tx,
            user_id=user_id,
            avatar_id=avatar_id,
            file_names=file_names,
            seconds=LINK_SECONDS,
        )
    return [
        UploadLink(
            one.id, darkroom.store.writable_link(one.object_key, seconds=LINK_SECONDS), ends_at
        )
        for one in promised
    ]


async def keep_uploads(
    darkroom: Darkroom, *, user_id: int, avatar_id: int, upload_ids: Sequence[UUID]
) -> list[Outcome]:
    """Look at the files that were put, and keep the good ones, as `add_selfies` does. Harmless twice.

    Raises:
        RequestRefusedError: 404 for a file that was never promised to this customer; 409 UPLOAD_MISSING for
            one that did not arrive; and what `add_selfies` refuses.
        StorageUnavailableError, RowBusyError, DatabaseUnavailableError: ask again.
    """
    async with darkroom.database.connection() as tx:
        uploads = await find_uploads(tx, user_id=user_id, avatar_id=avatar_id, ids=upload_ids)
    if len(uploads) != len(upload_ids):
        raise not_found("upload")
    return await add_selfies(
        darkroom,
        user_id=user_id,
        avatar_id=avatar_id,
        receive=lambda: _received(darkroom, uploads),
    )


@asynccontextmanager
async def _received(
    darkroom: Darkroom, uploads: Sequence[DirectUpload]
) -> AsyncGenerator[Sequence[Upload]]:
    files: list[ReceivedFile] = []
    try:
        for upload in uploads:
            file = ReceivedFile(upload.file_name)
            files.append(file)
            await _copy(darkroom, upload, file)
        await checkpoint("upload.received")
        yield [file.as_upload() for file in files]
    finally:
        for file in files:
            file.close()


async def _copy(darkroom: Darkroom, upload: DirectUpload, file: ReceivedFile) -> None:
    """Read what was put there, up to one byte more than is allowed: a put's size cannot be limited."""
    try:
        if (await darkroom.store.describe(upload.object_key)).size_bytes == 0:
            return  # no part of nothing can be asked for
        pieces = await darkroom.store.read(upload.object_key, beyond=FILE_BYTES_MAX + 1)
        async with aclosing(pieces):
            async for piece in pieces:
                await asyncio.to_thread(file.add, piece)
    except ObjectMissingError as error:
        raise RequestRefusedError(
            409,
            "UPLOAD_MISSING",
            "A photo did not arrive; please send it again",
            uploadId=str(upload.id),
        ) from error
    except OSError as error:
        # The folder for what is on its way is full: a hosted instance has little of it.
        raise StorageUnavailableError(f"spool: {type(error).__name__}") from error


async def remove_ended_uploads(darkroom: Darkroom) -> int:
    """One bounded round: objects whose address is dead go, then their rows. Returns how many.

    A crash between the two leaves a row without an object: deleting again is harmless. Not while the store is
    not known to be ours: the row would go, and the face would stay.
    """
    if not await may_delete(darkroom):
        return 0
    async with darkroom.database.connection() as tx:
        ended = await list_ended_uploads(tx, grace_seconds=GRACE_SECONDS, limit=ROUND_UPLOADS)
    removed, deleting = 0, Deleting(darkroom.store, "uploads")
    for upload in ended:
        if deleting.is_over:
            break
        if not await deleting.delete(upload.object_key):
            continue
        await checkpoint("upload.removed")
        async with darkroom.database.connection() as tx:
            await drop_upload(tx, upload.id)
        removed += 1
    return removed
