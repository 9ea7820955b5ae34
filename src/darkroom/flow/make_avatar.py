"""A customer makes an avatar, and calls it something else."""

import hashlib
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from darkroom.core.avatars import (
    AvatarView,
    find_avatar_by_request,
    insert_avatar,
    list_avatars,
    rename_avatar,
)
from darkroom.core.requests import find_request, lock_user, remember_request
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, key_reused, not_found
from darkroom.kit.checkpoint import checkpoint

AVATARS_MAX: Final = 3
"""What customers were promised (domain facts, "Customer"); a deleted one makes room."""


@dataclass(frozen=True, slots=True)
class AvatarRequest:
    """Who wants an avatar, by which name."""

    user_id: int
    name: str
    idempotency_key: str | None
    request_id: UUID

    def sha256(self) -> str:
        """What an idempotency key is bound to."""
        return hashlib.sha256(self.name.encode()).hexdigest()


async def make_avatar(darkroom: Darkroom, request: AvatarRequest) -> AvatarView:
    """Make an avatar while the user has fewer than AVATARS_MAX. The same key again is the same avatar.

    The count is decided behind the user's lock, so that any number of requests at once make no more. A
    crash leaves nothing or the whole row; a connection lost at COMMIT is settled by reading back.

    Raises:
        RequestRefusedError: 409 AVATAR_LIMIT or IDEMPOTENCY_KEY_REUSED; 404 when the avatar that this
            key made was deleted since.
        RowBusyError, DatabaseUnavailableError: ask again.
    """

    async def make(tx: Connection) -> int:
        return await _make(darkroom, tx, request)

    async def read_back(tx: Connection) -> int | None:
        return await find_avatar_by_request(tx, request.request_id)

    avatar_id = await darkroom.database.settle(make, read_back=read_back)
    await checkpoint("avatar.after_commit")
    return await _view(darkroom, user_id=request.user_id, avatar_id=avatar_id)


async def _make(darkroom: Darkroom, tx: Connection, request: AvatarRequest) -> int:
    await lock_user(tx, request.user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
    key = request.idempotency_key
    if key is not None:
        known = await find_request(tx, user_id=request.user_id, scope="avatar", key=key)
        if known is not None:
            if known.request_sha256 != request.sha256():
                raise key_reused()
            return known.row_id
    avatar_id = await insert_avatar(
        tx,
        user_id=request.user_id,
        name=request.name,
        request_id=request.request_id,
        most=AVATARS_MAX,
    )
    if avatar_id is None:
        raise RequestRefusedError(
            409, "AVATAR_LIMIT", f"You have {AVATARS_MAX} avatars already", limit=AVATARS_MAX
        )
    if key is not None:
        await remember_request(
            tx,
            user_id=request.user_id,
            scope="avatar",
            key=key,
            request_sha256=request.sha256(),
            row_id=avatar_id,
        )
    await checkpoint("avatar.before_commit")
    return avatar_id


async def call_avatar(darkroom: Darkroom, *, user_id: int, avatar_id: int, name: str) -> AvatarView:
    """Give an avatar another name. Harmless twice. Raises RequestRefusedError 404."""
    async with darkroom.database.connection() as tx:
        renamed = await rename_avatar(tx, user_id=user_id, avatar_id=avatar_id, name=name)
    if not renamed:
        raise not_found("avatar")
    return await _view(darkroom, user_id=user_id, avatar_id=avatar_id)


async def _view(darkroom: Darkroom, *, user_id: int, avatar_id: int) -> AvatarView:
    async with darkroom.database.connection() as tx:
        found = await list_avatars(tx, user_id=user_id, avatar_id=avatar_id)
    if not found:
        raise not_found("avatar")
    return found[0]
