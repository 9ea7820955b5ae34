"""What an owner may see. Somebody else's row is not found, like one that never was."""

from darkroom.core.customer_messages import MessageView, list_messages
from darkroom.core.payments import PaymentView, view_payment
from darkroom.core.people import ensure_user, owns_avatar
from darkroom.core.photos import PhotoView, list_photos
from darkroom.core.progress import Progress, read_progress
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found


async def read_job(darkroom: Darkroom, *, user_id: int, job_id: int) -> Progress:
    """One job of this user, with its photos so far and the time left. Raises RequestRefusedError 404."""
    async with darkroom.database.transaction() as tx:
        found = await read_progress(tx, [job_id], user_id=user_id)
    if job_id not in found:
        raise not_found("job")
    return found[job_id]


async def read_payment(darkroom: Darkroom, *, user_id: int, payment_id: int) -> PaymentView:
    """One payment of this user. Raises RequestRefusedError 404."""
    async with darkroom.database.connection() as tx:
        payment = await view_payment(tx, user_id=user_id, payment_id=payment_id)
    if payment is None:
        raise not_found("payment")
    return payment


async def read_photos(
    darkroom: Darkroom, *, user_id: int, avatar_id: int, before_id: int | None, limit: int
) -> list[PhotoView]:
    """A page of an avatar's photos, newest first. Raises RequestRefusedError 404."""
    async with darkroom.database.connection() as tx:
        if not await owns_avatar(tx, user_id=user_id, avatar_id=avatar_id):
            raise not_found("avatar")
        return await list_photos(
            tx, user_id=user_id, avatar_id=avatar_id, before_id=before_id, limit=limit
        )


async def read_messages(
    darkroom: Darkroom, *, user_id: int, before_id: int | None, limit: int
) -> list[MessageView]:
    """A page of what this user was told, newest first."""
    async with darkroom.database.connection() as tx:
        return await list_messages(tx, user_id=user_id, before_id=before_id, limit=limit)


async def know_user(darkroom: Darkroom, telegram_user_id: int) -> int:
    """Our id of a person whose identity was proven; the row is made at first sight."""
    async with darkroom.database.connection() as tx:
        return await ensure_user(tx, telegram_user_id)
