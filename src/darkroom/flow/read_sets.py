"""Lists for a customer's own pages. Each has a limit; nothing here changes anything."""

from darkroom.core.payments import PaymentView, list_payments, view_payment
from darkroom.core.sets import (
    CatalogView,
    RefundView,
    SetView,
    list_refunds_of,
    list_sets,
    view_catalog,
)
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import not_found


async def read_sets(
    darkroom: Darkroom, *, user_id: int, before_id: int | None, limit: int
) -> list[SetView]:
    """A page of the user's sets, newest first; those of a deleted avatar are among the payments alone."""
    async with darkroom.database.connection() as tx:
        return await list_sets(tx, user_id=user_id, before_id=before_id, limit=limit)


async def read_payments(
    darkroom: Darkroom, *, user_id: int, before_id: int | None, limit: int
) -> list[PaymentView]:
    """A page of the user's payments, newest first: every one, also free sets and photos made again."""
    async with darkroom.database.connection() as tx:
        return await list_payments(tx, user_id=user_id, before_id=before_id, limit=limit)


async def read_refunds_of(darkroom: Darkroom, *, user_id: int, payment_id: int) -> list[RefundView]:
    """What of a payment is being paid back, or is back, oldest first. Raises RequestRefusedError 404."""
    async with darkroom.database.connection() as tx:
        if await view_payment(tx, user_id=user_id, payment_id=payment_id) is None:
            raise not_found("payment")
        return await list_refunds_of(tx, payment_id=payment_id)


async def read_catalog(darkroom: Darkroom) -> CatalogView:
    """What is sold now: sizes with their prices in minor units, and styles."""
    async with darkroom.database.connection() as tx:
        return await view_catalog(tx)
