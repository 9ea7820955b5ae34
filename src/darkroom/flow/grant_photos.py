"""A free set: a payment of provider `grant`, amount 0. Nothing is owed for it, everything else holds."""

from typing import Final
from uuid import UUID

from darkroom.core.payments import find_payment_by_request, insert_grant
from darkroom.core.requests import lock_user
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found

MOVES_MADE: Final = ("payment: new -> succeeded",)


async def grant_photos(darkroom: Darkroom, *, user_id: int, tier_id: str, request_id: UUID) -> int:
    """Give a user one set. Returns the payment's id. Harmless twice with the same `request_id`.

    Raises:
        RequestRefusedError: no such tier.
        RowBusyError: ask again.
    """

    async def insert(tx: Connection) -> int:
        # Both at once: the second waits here, and finds what the first has made.
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        known = await find_payment_by_request(tx, request_id)
        if known is not None:
            return known
        payment_id = await insert_grant(tx, user_id=user_id, tier_id=tier_id, request_id=request_id)
        if payment_id is None:
            raise not_found("tier")
        return payment_id

    async def read_back(tx: Connection) -> int | None:
        return await find_payment_by_request(tx, request_id)

    return await darkroom.database.settle(insert, read_back=read_back)
