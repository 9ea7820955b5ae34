"""A customer takes back an avatar or a selfie. Tombstones: the books and the counts stay as they were."""

from darkroom.core.avatars import bury_avatar
from darkroom.core.requests import lock_user
from darkroom.core.selfies import bury_selfie
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.kit.checkpoint import checkpoint


async def remove_avatar(darkroom: Darkroom, *, user_id: int, avatar_id: int) -> None:
    """Delete an avatar that nothing paid for needs any more. Harmless twice.

    Decided behind the user's lock, in the order of locks of a generation's start: of a start and a
    deletion at once, the second sees the first. A crash leaves the avatar as it was, or deleted.

    Raises:
        RequestRefusedError: 404; 409 AVATAR_BUSY while a set of it is made, money of it goes back, or
            an order names it that is paid or may still be paid.
        RowBusyError, DatabaseUnavailableError: ask again.
    """

    async def bury(tx: Connection) -> str:
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        outcome = await bury_avatar(tx, user_id=user_id, avatar_id=avatar_id)
        await checkpoint("remove.before_commit")
        return outcome

    async def read_back(tx: Connection) -> None:
        """Nothing to look for: burying twice says "deleted" twice."""
        del tx

    outcome = await darkroom.database.settle(bury, read_back=read_back)
    await checkpoint("remove.after_commit")
    if outcome == "missing":
        raise not_found("avatar")
    if outcome == "busy":
        raise RequestRefusedError(
            409, "AVATAR_BUSY", "Photos of this avatar are paid for and not settled yet"
        )


async def remove_selfie(
    darkroom: Darkroom, *, user_id: int, avatar_id: int, selfie_id: int
) -> None:
    """Delete one selfie; sets that were started with it are made to their end. Harmless twice.

    Raises:
        RequestRefusedError: 404.
        DatabaseUnavailableError: ask again.
    """
    async with darkroom.database.connection() as tx:
        buried = await bury_selfie(tx, user_id=user_id, avatar_id=avatar_id, selfie_id=selfie_id)
    if not buried:
        raise not_found("reference")
