"""Is the object store the one that this database's photos are in? Asked before a process works.

Two machines with a folder each, or a copied setting with another bucket, look well from both sides: photos are
stored where the other one does not look, and erased where they are not.

The store bears its own id beside the database's. Of many stores that are marked at once the database takes one:
whoever marked another one does not start.
"""

import asyncio
from enum import Enum
from typing import Final
from uuid import UUID, uuid4

from darkroom.core.store_mark import StoreMark, note_store, read_store_mark
from darkroom.db.database import Database
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.storage import (
    ObjectConflictError,
    ObjectMissingError,
    ObjectStore,
    ObjectTooLargeError,
    StorageUnavailableError,
)

log = get_logger("flow")

MARK_KEY: Final = "marks/database"
LOOK_SECONDS: Final = 3.0
"""A store answers in a tenth of a second. One that hangs is away, and a cold start must not wait for it."""
_MARK_BYTES_MAX: Final = 128
"""Two UUIDs, a space and a line's end are 74."""
_FOREIGN: Final = (
    "this object store is not the one that the database's photos are in: look at DARKROOM_STORAGE_URL or "
    "DARKROOM_DATA_DIR; a new one on purpose: `darkroom adopt-store`"
)


class ForeignStoreError(Exception):
    """The store is not the one that this database's photos are in. The text is one line for the operator."""


class StoreIs(Enum):
    """What the store bears."""

    OURS = "ours"
    UNKNOWN = "unknown"
    """No mark or one of this database's, and no store was noted yet."""
    FOREIGN = "foreign"
    """Another database's mark, or another store than was noted."""


async def look_at_store(database: Database, store: ObjectStore) -> StoreIs:
    """Whose store it is. Changes nothing.

    Raises:
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    async with database.connection() as tx:
        mark = await read_store_mark(tx)
    there = await _read_mark(store)
    if there is None:
        return StoreIs.UNKNOWN if mark.store_id is None else StoreIs.FOREIGN
    if there.database_id != mark.database_id:
        return StoreIs.FOREIGN
    if mark.store_id is None:
        return StoreIs.UNKNOWN
    return StoreIs.OURS if there.store_id == mark.store_id else StoreIs.FOREIGN


async def recognize_store(darkroom: Darkroom) -> None:
    """Let a process work only with the store that is known; the first one of all marks it.

    A store that does not answer is believed: it is away for a while, and orders wait for it. Harmless at once
    and any number of times; a crash leaves a mark that the next start notes.

    Raises:
        ForeignStoreError: it is another one.
        DatabaseUnavailableError: the database does not answer.
    """
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            found = await look_at_store(darkroom.database, darkroom.store)
            if found is StoreIs.UNKNOWN:
                await _mark(darkroom)
    except (StorageUnavailableError, TimeoutError) as error:
        log.warning("the object store was not looked at", error=str(error) or "no answer in time")
        return
    if found is StoreIs.FOREIGN:
        raise ForeignStoreError(_FOREIGN)


async def adopt_store(darkroom: Darkroom) -> None:
    """An operator says that this store is the one from now on, whatever it bears. Harmless twice.

    Raises:
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    if await look_at_store(darkroom.database, darkroom.store) is not StoreIs.OURS:
        await darkroom.store.delete(MARK_KEY)
        await _mark(darkroom, instead=True)


async def _mark(darkroom: Darkroom, *, instead: bool = False) -> None:
    """Write a mark unless one stands there, and note the store that it names. Raises ForeignStoreError."""
    async with darkroom.database.connection() as tx:
        mark = await read_store_mark(tx)
    fresh = StoreMark(mark.database_id, uuid4())
    await checkpoint("store.before_mark")
    try:
        await darkroom.store.put_once(MARK_KEY, _content_of(fresh), "text/plain")
        there: StoreMark | None = fresh
    except ObjectConflictError:
        there = await _read_mark(darkroom.store)
    await checkpoint("store.marked")
    if there is None or there.store_id is None or there.database_id != mark.database_id:
        raise ForeignStoreError(_FOREIGN)
    async with darkroom.database.connection() as tx:
        noted = await note_store(tx, there.store_id, instead=instead)
    await checkpoint("store.noted")
    if noted != there:
        raise ForeignStoreError(_FOREIGN)


async def _read_mark(store: ObjectStore) -> StoreMark | None:
    """What it bears; None: nothing. What nobody can read is another database's."""
    try:
        content = await store.get(MARK_KEY, most_bytes=_MARK_BYTES_MAX)
        database_id, store_id = (UUID(part) for part in content.decode().split())
    except ObjectMissingError:
        return None
    except (ObjectTooLargeError, ValueError):
        return StoreMark(uuid4(), None)
    return StoreMark(database_id, store_id)


def _content_of(mark: StoreMark) -> bytes:
    return f"{mark.database_id} {mark.store_id}\n".encode()
