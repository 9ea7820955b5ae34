"""A developer's order: a user, an avatar with a selfie, and a free set to spend, by the ids they name."""

from dataclasses import dataclass
from uuid import uuid4

from darkroom.core.people import ensure_user, place_avatar
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found
from darkroom.flow.grant_photos import grant_photos


@dataclass(frozen=True, slots=True)
class DevOrder:
    """What was made."""

    user_id: int
    avatar_id: int
    payment_id: int | None


async def place_dev_order(
    darkroom: Darkroom, *, telegram_user_id: int, avatar_id: int, tier_id: str | None, selfie: bytes
) -> DevOrder:
    """Make the rows that a developer's `POST /api/generate` needs. `tier_id` None: nothing to spend.

    Raises:
        RequestRefusedError: the avatar is somebody else's, or there is no such tier.
    """
    async with darkroom.database.transaction() as tx:
        user_id = await ensure_user(tx, telegram_user_id)
        if not await place_avatar(
            tx, avatar_id=avatar_id, user_id=user_id, name=f"Avatar {avatar_id}"
        ):
            raise not_found("avatar")
    await add_selfie(darkroom, avatar_id=avatar_id, data=selfie)
    payment_id = None
    if tier_id is not None:
        payment_id = await grant_photos(
            darkroom, user_id=user_id, tier_id=tier_id, request_id=uuid4()
        )
    return DevOrder(user_id=user_id, avatar_id=avatar_id, payment_id=payment_id)
