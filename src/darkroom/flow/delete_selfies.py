"""Selfies go: those whose days are over, as was promised with the upload, and those that were taken back."""

from darkroom.core.customer_messages import NewMessage, insert_message
from darkroom.core.erasing import (
    begin_erasing_selfies,
    bury_old_selfies,
    list_owners_of_buried_selfies,
    list_owners_of_old_selfies,
)
from darkroom.core.requests import lock_anybody
from darkroom.db.database import RowBusyError
from darkroom.flow.customer_texts import selfies_deleted_text
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")


async def delete_selfies(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many customers it deleted selfies of; their bytes are the eraser's.

    Never one that a set is being made from, nor by age one that a paid order waits for. A customer is a
    transaction of its own, behind their lock, with the message that tells of it: a crash leaves the selfies
    as they were, or deleted and told. Safe at any time, any number of times, by anyone.
    """
    limit = darkroom.limits.batch
    async with darkroom.database.connection() as tx:
        old = await list_owners_of_old_selfies(tx, days=darkroom.selfie_days, limit=limit)
        buried = await list_owners_of_buried_selfies(tx, limit=limit)
    done = 0
    for user_id in old:
        done += await _delete_old(darkroom, user_id)
    for user_id in buried:
        done += await _let_go(darkroom, user_id)
    return done


async def _delete_old(darkroom: Darkroom, user_id: int) -> bool:
    try:
        async with darkroom.database.transaction() as tx:
            left = await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            ids = await bury_old_selfies(tx, user_id=user_id, days=darkroom.selfie_days)
            if ids and not left:
                text = selfies_deleted_text(count=len(ids), days=darkroom.selfie_days)
                await insert_message(
                    tx,
                    NewMessage(
                        user_id=user_id,
                        kind="selfies_deleted",
                        subject_id=ids[0],
                        payment_id=None,
                        text_ru=text.ru,
                        text_en=text.en,
                    ),
                    to_chat=darkroom.chat_enabled,
                )
            await checkpoint("selfies.before_commit")
    except RowBusyError:
        # One customer who is busy must not keep those behind waiting.
        log.warning("old selfies not deleted yet", user_id=user_id)
        return False
    log.info("old selfies deleted", user_id=user_id, count=len(ids))
    return bool(ids)


async def _let_go(darkroom: Darkroom, user_id: int) -> bool:
    """What the customer deleted, and no set needs any more: from here on it cannot come back."""
    try:
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            count = await begin_erasing_selfies(tx, user_id)
            await checkpoint("selfies.letting_go")
    except RowBusyError:
        log.warning("deleted selfies not erased yet", user_id=user_id)
        return False
    return count > 0
