"""What an owner sees of avatars and selfies. Somebody else's is not found, like one that never was."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from darkroom.core.avatars import AvatarView, count_avatars_ever, list_avatars
from darkroom.core.selfies import SelfieView, find_locale, list_selfies
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found
from darkroom.flow.selfie_messages import Remark, remarks_of
from darkroom.ports.storage import ObjectMissingError


@dataclass(frozen=True, slots=True)
class RemarkedSelfie:
    """A selfie with its warnings in its owner's language, and when its days are over."""

    selfie: SelfieView
    warnings: tuple[Remark, ...]
    deletes_at: datetime


async def read_avatars(darkroom: Darkroom, *, user_id: int) -> list[AvatarView]:
    """The user's live avatars, oldest first."""
    async with darkroom.database.connection() as tx:
        return await list_avatars(tx, user_id=user_id)


async def read_avatars_ever(darkroom: Darkroom, *, user_id: int) -> int:
    """How many avatars the user has had, the deleted ones too."""
    async with darkroom.database.connection() as tx:
        return await count_avatars_ever(tx, user_id)


async def read_selfies(darkroom: Darkroom, *, user_id: int, avatar_id: int) -> list[RemarkedSelfie]:
    """The live selfies of an avatar, oldest first. Raises RequestRefusedError 404."""
    async with darkroom.database.connection() as tx:
        locale = await find_locale(tx, user_id=user_id, avatar_id=avatar_id)
        if locale is None:
            raise not_found("avatar")
        selfies = await list_selfies(tx, user_id=user_id, avatar_id=avatar_id)
    stays = timedelta(days=darkroom.selfie_days)
    return [
        RemarkedSelfie(
            selfie, remarks_of(selfie.verdict, locale), deletes_at=selfie.created_at + stays
        )
        for selfie in selfies
    ]


async def read_selfie_image(
    darkroom: Darkroom, *, user_id: int, avatar_id: int, selfie_id: int
) -> tuple[SelfieView, bytes]:
    """A selfie and its bytes. Raises RequestRefusedError 404, StorageUnavailableError."""
    async with darkroom.database.connection() as tx:
        found = await list_selfies(tx, user_id=user_id, avatar_id=avatar_id, selfie_id=selfie_id)
    if not found:
        raise not_found("reference")
    try:
        return found[0], await darkroom.store.get(found[0].object_key)
    except ObjectMissingError as error:
        raise not_found("reference") from error
