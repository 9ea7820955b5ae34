"""A customer asks to be forgotten: signed out and paid back at once, then erased. Books and counts stay."""

import random
from typing import Final

from darkroom.core.forgetting import (
    begin_forgetting,
    finish_forgetting,
    list_avatars_of,
    list_leavers_with_money,
    list_to_finish,
    list_to_wipe,
    list_unused_of,
    mark_latecomers,
    wipe,
)
from darkroom.core.people import find_user
from darkroom.core.refunds import lock_payment_money, request_goodwill, request_unused
from darkroom.core.requests import lock_anybody
from darkroom.core.unused import close_compensation
from darkroom.db.database import Connection, RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.delete_objects import Deleting
from darkroom.flow.watch_store import may_delete
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: succeeded -> refunding",
    "payment: succeeded -> refunded",
    "refund: new -> requested",
)
FOLDERS: Final = ("references", "generated", "thumbnails", "uploads")
"""What lies under an avatar's number: selfies, photos, and their small pictures."""


async def forget_me(darkroom: Darkroom, *, user_id: int) -> None:
    """Sign a customer out for good, and owe back what bought nothing. Harmless any number of times.

    One transaction behind the user's lock: of this and a set that starts at the same moment, the second sees
    the first. From its commit on nothing begins in their name, no photo of theirs is shown, and the same
    Telegram id is a new customer. A set that is being made is made to its end, and erased with the rest; what
    is left to do is `forget_leavers`'.

    Raises:
        RowBusyError, DatabaseUnavailableError: ask again.
    """

    async def begin(tx: Connection) -> bool:
        await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        begun = await begin_forgetting(tx, user_id)
        await _ask_all_back(tx, user_id)
        await checkpoint("forget.before_commit")
        return begun

    async def read_back(_tx: Connection) -> None:
        """Nothing to look for: leaving twice finds nothing to do the second time."""

    begun = await darkroom.database.settle(begin, read_back=read_back)
    await checkpoint("forget.after_commit")
    log.info("customer leaves", user_id=user_id, first_time=begun)
    await darkroom.doorbell.ring()


async def forget_telegram_user(darkroom: Darkroom, telegram_user_id: int) -> int | None:
    """As `forget_me`, for an operator whom a customer wrote to. None: no such customer, or they left before."""
    async with darkroom.database.connection() as tx:
        user_id = await find_user(tx, telegram_user_id)
    if user_id is not None:
        await forget_me(darkroom, user_id=user_id)
    return user_id


async def _ask_all_back(tx: Connection, user_id: int) -> None:
    """All that is unused goes back; for a free set that was to make photos good, what it stands for."""
    for payment_id, original_id in await list_unused_of(tx, user_id):
        if original_id is None:
            await request_unused(tx, payment_id, reason="asked_back")
            continue
        await lock_payment_money(tx, original_id)
        if await close_compensation(tx, payment_id):
            await request_goodwill(tx, original_id, most_minor=2**62, reason="compensation_failed")


async def forget_leavers(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many customers it came a step further with.

    Each step is a transaction of its own, guarded by what it needs: money that came since goes back; when
    nothing is open, names and links go and every picture is marked; when their bytes are gone and no money
    needs it, the Telegram id goes; not while the store is not known to be ours. A crash anywhere leaves the
    next round the rest. Safe by anyone, any time.
    """
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        with_money = await list_leavers_with_money(tx, limit=limits.batch)
        to_wipe = await list_to_wipe(tx, limit=limits.batch)
        latecomers = await mark_latecomers(tx)
        to_finish = await list_to_finish(
            tx, grace_seconds=limits.put_grace_seconds, limit=limits.batch
        )
    done = latecomers
    for user_id in with_money:
        done += await _return_money(darkroom, user_id)
    for user_id in to_wipe:
        done += await _wipe(darkroom, user_id)
    for user_id in to_finish if await may_delete(darkroom) else ():
        done += await _finish(darkroom, user_id)
    return done


async def _return_money(darkroom: Darkroom, user_id: int) -> bool:
    try:
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            await _ask_all_back(tx, user_id)
            await checkpoint("forget.money_before_commit")
    except RowBusyError:
        log.warning("leaver is busy", user_id=user_id)
        return False
    await darkroom.doorbell.wake()
    return True


async def _wipe(darkroom: Darkroom, user_id: int) -> bool:
    try:
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            wiped = await wipe(tx, user_id)
            await checkpoint("forget.wipe_before_commit")
    except RowBusyError:
        log.warning("leaver is busy", user_id=user_id)
        return False
    return wiped


async def _finish(darkroom: Darkroom, user_id: int) -> bool:
    """What no row names goes as well: a crash may have come between a put and its row."""
    try:
        async with darkroom.database.connection() as tx:
            avatars = await list_avatars_of(tx, user_id)
        if not all([await _empty(darkroom, avatar_id) for avatar_id in avatars]):
            log.warning("leaver not forgotten yet: objects are left", user_id=user_id)
            return False
        await checkpoint("forget.emptied")
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            finished = await finish_forgetting(
                tx, user_id, grace_seconds=darkroom.limits.put_grace_seconds
            )
            await checkpoint("forget.finish_before_commit")
    except (RowBusyError, StorageUnavailableError) as error:
        log.warning("leaver not forgotten yet", user_id=user_id, error=type(error).__name__)
        return False
    if finished:
        log.info("customer forgotten", user_id=user_id)
    return finished


async def _empty(darkroom: Darkroom, avatar_id: int) -> bool:
    """Delete all that can be deleted. False: something is left. Raises StorageUnavailableError."""
    deleting = Deleting(darkroom.store, "forget")
    for folder in FOLDERS:
        keys = await darkroom.store.list_keys(f"{folder}/{avatar_id}")
        random.shuffle(keys)
        for key in keys:
            await deleting.delete(key)
            if deleting.is_over:
                break
    return not deleting.failed
