"""A deleted avatar takes its photos along, as its customer was told: "with all photos"."""

from darkroom.core.erasing import DeletedAvatar, empty_avatar, list_avatars_to_empty
from darkroom.core.requests import lock_anybody
from darkroom.db.database import RowBusyError
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger

log = get_logger("flow")


async def empty_avatars(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many avatars it marked all photos of; their bytes are the eraser's.

    They were hidden when the avatar was deleted (`remove_avatar`). An avatar is a transaction of its own,
    behind its customer's lock: a crash leaves it as it was, or marked. Safe at any time, any number of times,
    by anyone.
    """
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        avatars = await list_avatars_to_empty(
            tx, grace_seconds=limits.put_grace_seconds, limit=limits.batch
        )
    return sum([await _empty(darkroom, avatar) for avatar in avatars])


async def _empty(darkroom: Darkroom, avatar: DeletedAvatar) -> bool:
    try:
        async with darkroom.database.transaction() as tx:
            await lock_anybody(tx, avatar.user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
            emptied = await empty_avatar(tx, avatar.id)
            await checkpoint("avatars.before_commit")
    except RowBusyError:
        # One customer who is busy must not keep those behind waiting.
        log.warning("deleted avatar not emptied yet", avatar_id=avatar.id)
        return False
    return emptied
