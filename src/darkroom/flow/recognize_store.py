"""Is the object store the one that this database's photos are in? Asked before a process works.

Two machines with a folder each, or a copied setting with another bucket, look well from both sides: photos are
stored where the other one does not look, and erased where they are not.
"""

from enum import Enum
from typing import Final

from darkroom.core.store_mark import StoreMark, note_store_mark, read_store_mark
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
_MARK_BYTES_MAX: Final = 64
"""A UUID and a line's end are 37."""


class ForeignStoreError(Exception):
    """The store is not the one that this database's photos are in. The text is one line for the operator."""


class StoreIs(Enum):
    """What the store bears."""

    OURS = "ours"
    UNMARKED = "unmarked"
    """No mark, and none was ever written."""
    FOREIGN = "foreign"
    """Another database's mark, or none where ours has been."""


async def look_at_store(database: Database, store: ObjectStore) -> StoreIs:
    """Whose store it is. Changes nothing.

    Raises:
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    async with database.connection() as tx:
        mark = await read_store_mark(tx)
    try:
        there = await store.get(MARK_KEY, most_bytes=_MARK_BYTES_MAX)
    except ObjectMissingError:
        return StoreIs.FOREIGN if mark.is_written else StoreIs.UNMARKED
    except ObjectTooLargeError:
        return StoreIs.FOREIGN
    return StoreIs.OURS if there == _content_of(mark) else StoreIs.FOREIGN


async def recognize_store(darkroom: Darkroom) -> None:
    """Let a process work only with the store that it knows; the first one of all marks it.

    A store that does not answer is believed: it is away for a while, and orders wait for it. Harmless at once
    and any number of times; a crash leaves a mark that the next start notes.

    Raises:
        ForeignStoreError: it is another one.
        DatabaseUnavailableError: the database does not answer.
    """
    try:
        found = await look_at_store(darkroom.database, darkroom.store)
        if found is StoreIs.UNMARKED:
            await _mark(darkroom)
        elif found is StoreIs.FOREIGN:
            raise ForeignStoreError(
                "this object store is not the one that the database's photos are in: look at "
                "DARKROOM_STORAGE_URL or DARKROOM_DATA_DIR; a new one on purpose: `darkroom adopt-store`"
            )
    except StorageUnavailableError as error:
        log.warning("the object store was not looked at", error=str(error))
        return
    async with darkroom.database.connection() as tx:
        await note_store_mark(tx)


async def adopt_store(darkroom: Darkroom) -> None:
    """An operator says that this store is the one from now on, whatever it bears. Harmless twice.

    Raises:
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    if await look_at_store(darkroom.database, darkroom.store) is not StoreIs.OURS:
        await darkroom.store.delete(MARK_KEY)
        await _mark(darkroom)
    async with darkroom.database.connection() as tx:
        await note_store_mark(tx)


async def _mark(darkroom: Darkroom) -> None:
    async with darkroom.database.connection() as tx:
        mark = await read_store_mark(tx)
    await checkpoint("store.before_mark")
    try:
        await darkroom.store.put_once(MARK_KEY, _content_of(mark), "text/plain")
    except ObjectConflictError as error:
        raise ForeignStoreError("another database has just marked this object store") from error
    await checkpoint("store.marked")


def _content_of(mark: StoreMark) -> bytes:
    return f"{mark.id}\n".encode()
