"""The store is looked at again while a process works: it may have been away, or be another one since."""

from typing import Final

from prometheus_client import Gauge

from darkroom.flow.darkroom import Darkroom
from darkroom.flow.recognize_store import (
    ForeignStoreError,
    look_and_mark,
    look_at_store,
)
from darkroom.flow.store_watch import StoreIs
from darkroom.kit.log import get_logger

log = get_logger("flow")

STORE_FOREIGN: Final = Gauge(
    "darkroom_store_foreign",
    "1: the object store is not the one that the database's photos are in; nothing is put or deleted.",
)


async def watch_store(darkroom: Darkroom) -> int:
    """Look whose store it is; a first one is marked, as at a start. Finds no work: always 0.

    What it says is known to all steps of this process. Safe by anyone, any time.

    Raises DatabaseUnavailableError.
    """
    async with darkroom.store_watch.looking:
        await _look(darkroom)
    return 0


async def _look(darkroom: Darkroom) -> None:
    look = await look_and_mark(darkroom)
    if look is not None and look.found.is_foreign:
        log.error("nothing is put or deleted: foreign object store", reason=look.refusal)
    STORE_FOREIGN.set(darkroom.store_watch.is_foreign)


async def _look_if_due(darkroom: Darkroom) -> None:
    watch = darkroom.store_watch
    if watch.is_due:
        async with watch.looking:
            if watch.is_due:  # of many who ask at once, one looks
                await _look(darkroom)


async def may_put(darkroom: Darkroom) -> bool:
    """Whether photos may be put. Also into a store that does not answer: they wait for it by themselves.

    Raises DatabaseUnavailableError.
    """
    await _look_if_due(darkroom)
    return not darkroom.store_watch.is_foreign


async def may_delete(darkroom: Darkroom) -> bool:
    """Whether the store is known to be ours: deleting succeeds where nothing is, and where somebody else's is.

    Raises DatabaseUnavailableError.
    """
    await _look_if_due(darkroom)
    return darkroom.store_watch.found is StoreIs.OURS


async def insist_on_own_store(darkroom: Darkroom) -> None:
    """As `may_delete`, for a command that tells a person why not, and marks nothing. Shares looks as that does.

    Raises:
        ForeignStoreError: the store is not known to be ours.
        StorageUnavailableError: it does not answer.
        DatabaseUnavailableError: the database does not.
    """
    watch = darkroom.store_watch
    if watch.found is StoreIs.OURS and not watch.is_due:
        return
    look = await look_at_store(darkroom.database, darkroom.store)
    watch.learn(look.found)
    if look.found is not StoreIs.OURS:
        raise ForeignStoreError(look.refusal)
