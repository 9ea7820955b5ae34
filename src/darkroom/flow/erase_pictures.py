"""Bytes go: of every picture that is marked to go, and then the row says that they are gone."""

from darkroom.core.erasing import Erasable, list_erasable, mark_erased
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.watch_store import may_delete
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.storage import StorageUnavailableError

log = get_logger("flow")


async def erase_pictures(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many pictures are gone.

    The mark was committed before, and a marked row never lives again: deleting its objects once more, after a
    crash or by two workers at once, changes nothing. A store that does not answer is asked again next time,
    and one that is not known to be ours is not asked: deleting succeeds where nothing is.
    """
    if not await may_delete(darkroom):
        return 0
    async with darkroom.database.connection() as tx:
        marked = await list_erasable(tx, limit=darkroom.limits.batch)
    return sum([await _erase(darkroom, picture) for picture in marked])


async def _erase(darkroom: Darkroom, picture: Erasable) -> bool:
    await checkpoint("erase.before_delete")
    try:
        for key in picture.keys:
            await darkroom.store.delete(key)
    except StorageUnavailableError as error:
        log.warning("picture not erased yet", kind=picture.kind, row=picture.id, error=str(error))
        return False
    await checkpoint("erase.deleted")
    async with darkroom.database.connection() as tx:
        await mark_erased(tx, picture)
    return True
