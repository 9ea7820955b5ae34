"""Is the object store the one that this database's photos are in? Asked before a process works, and meanwhile.

Two machines with a folder each, a copied setting with another bucket, a copied database with its original's
bucket look well from all sides: photos are stored where nobody looks, and erased where they are not, or where
they are somebody else's.

The store bears its own id beside the database's. Of many stores that are marked at once the database takes one:
whoever marked another one does not start.
"""

import asyncio
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid4

from darkroom.core.store_mark import (
    StoreMark,
    StoreNote,
    note_server,
    note_store,
    note_store_instead,
    read_store_note,
)
from darkroom.db.database import Database
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.store_watch import StoreIs
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
_NOBODY: Final = UUID(int=0)
"""Whose a mark is that nobody can read."""
_LOOK_AT: Final = "look at DARKROOM_STORAGE_URL or DARKROOM_DATA_DIR; "


class ForeignStoreError(Exception):
    """The store is not the one that this database's photos are in. The text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class StoreLook:
    """What a look at a store said.

    Attributes:
        note: what the database says.
        bears: the store's mark; None: it has none.
    """

    found: StoreIs
    note: StoreNote
    bears: StoreMark | None

    @property
    def refusal(self) -> str:
        """Why nobody works with a foreign store, and what an operator can do about it: one line."""
        not_ours = "this object store is not the one that the database's photos are in: "
        match self.found:
            case StoreIs.UNMARKED:
                reason = f"{not_ours}it bears no mark"
                way = "a new or emptied one on purpose: `darkroom adopt-store`"
            case StoreIs.ANOTHER:
                reason = f"{not_ours}it bears this database's mark, but another store was noted"
                way = "this one on purpose: `darkroom adopt-store`"
            case StoreIs.STRANGE:
                whose = _NOBODY if self.bears is None else self.bears.database_id
                reason = f"{not_ours}it belongs to another database, {whose}"
                way = (
                    "if nobody works with that one any more, its photos are yours to take over by "
                    f"`darkroom adopt-store --from-database {whose}`"
                )
            case StoreIs.COPIED:
                reason = (
                    "this database is a copy, and this object store belongs to the original: "
                    "its server or its place there is another than was noted"
                )
                way = "if it was moved, and the old one is stopped for good: `darkroom adopt-store`"
            case StoreIs.OURS | StoreIs.UNKNOWN:
                return "this object store was not marked yet: start Darkroom with it once"
        return f"{reason}; {_LOOK_AT}{way}"


async def look_at_store(database: Database, store: ObjectStore) -> StoreLook:
    """Whose store it is. Changes nothing.

    Raises:
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    async with database.connection() as tx:
        note = await read_store_note(tx)
    return _judge(note, await _read_mark(store))


def _judge(note: StoreNote, bears: StoreMark | None) -> StoreLook:
    known = note.store_id
    if bears is None:
        found = StoreIs.UNKNOWN if known is None else StoreIs.UNMARKED
    elif bears.database_id not in (note.database_id, note.own_id):
        found = StoreIs.STRANGE
    elif known is None:
        found = StoreIs.UNKNOWN
    elif bears != StoreMark(note.database_id, known):
        found = StoreIs.ANOTHER
    else:
        found = StoreIs.COPIED if note.is_copied else StoreIs.OURS
    return StoreLook(found, note, bears)


async def recognize_store(darkroom: Darkroom) -> None:
    """Let a process work only with the store that is known; the first one of all marks it.

    A store that does not answer is believed: it is away for a while, and orders wait for it. Harmless at once
    and any number of times; a crash leaves a mark that the next start notes.

    Raises:
        ForeignStoreError: it is another one.
        DatabaseUnavailableError: the database does not answer.
    """
    look = await look_and_mark(darkroom)
    if look is None:
        return
    if look.note.here is None:
        log.warning("a copy of this database cannot be told: pg_control_system may not be called")
    if look.found.is_foreign:
        raise ForeignStoreError(look.refusal)


async def look_and_mark(darkroom: Darkroom) -> StoreLook | None:
    """Look, mark a store that is the first one, and let the process know. None: it did not answer in time.

    Raises DatabaseUnavailableError.
    """
    look = None
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            look = await look_at_store(darkroom.database, darkroom.store)
            if look.found is StoreIs.UNKNOWN:
                look = await _mark(darkroom, look.note)
    except (StorageUnavailableError, TimeoutError) as error:
        log.warning("the object store was not looked at", error=str(error) or "no answer in time")
    if look is not None and look.found is StoreIs.OURS:
        await _complete(darkroom, look.note)
    darkroom.store_watch.learn(None if look is None else look.found)
    return look


async def _complete(darkroom: Darkroom, note: StoreNote) -> None:
    """A note of an older version does not say where the database is."""
    if note.server is None and note.here is not None:
        async with darkroom.database.connection() as tx:
            await note_server(tx, note.here)
        await checkpoint("store.completed")


async def adopt_store(darkroom: Darkroom, *, from_database: UUID | None = None) -> None:
    """An operator says that this store is the one from now on, and no other with its mark. Harmless twice.

    Marked anew in any case: where a store was copied with its mark, the other one is known no more. Another
    database's is taken only from the one that is named: its shop may be at work with it. A copied database
    gets an id of its own, so that its original finds the store strange. A crash in between leaves a store that
    is unmarked or another one, and the same again goes on.

    Raises:
        ForeignStoreError: it is another database's.
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    look = await look_at_store(darkroom.database, darkroom.store)
    if look.found is StoreIs.STRANGE and (
        look.bears is None or look.bears.database_id != from_database
    ):
        raise ForeignStoreError(look.refusal)
    await darkroom.store.delete(MARK_KEY)
    look = await _mark(darkroom, look.note, instead=True)
    if look.found is not StoreIs.OURS:
        raise ForeignStoreError(look.refusal)
    darkroom.store_watch.learn(StoreIs.OURS)


async def _mark(darkroom: Darkroom, note: StoreNote, *, instead: bool = False) -> StoreLook:
    """Write a mark unless one stands there, note the store that it names, and say whose it is then."""
    fresh = StoreMark(note.own_id, uuid4())
    await checkpoint("store.before_mark")
    try:
        await darkroom.store.put_once(MARK_KEY, _content_of(fresh), "text/plain")
        there: StoreMark | None = fresh
    except ObjectConflictError:
        there = await _read_mark(darkroom.store)
    await checkpoint("store.marked")
    if there is None or there.database_id != fresh.database_id:
        return _judge(note, there)
    async with darkroom.database.connection() as tx:
        if instead:
            noted = await note_store_instead(tx, there, here=note.here)
        else:
            noted = await note_store(tx, there.store_id, here=note.here)
    await checkpoint("store.noted")
    return _judge(noted, there)


async def _read_mark(store: ObjectStore) -> StoreMark | None:
    """What it bears; None: nothing. What nobody can read is nobody's: no database of ours."""
    try:
        content = await store.get(MARK_KEY, most_bytes=_MARK_BYTES_MAX)
        database_id, store_id = (UUID(part) for part in content.decode().split())
    except ObjectMissingError:
        return None
    except (ObjectTooLargeError, ValueError):
        return StoreMark(_NOBODY, _NOBODY)
    return StoreMark(database_id, store_id)


def _content_of(mark: StoreMark) -> bytes:
    return f"{mark.database_id} {mark.store_id}\n".encode()
