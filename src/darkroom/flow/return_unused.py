"""Money that buys nothing is reminded of, and goes back by itself: after how long, its policy says."""

from collections.abc import Awaitable
from typing import Final

from darkroom.core.customer_messages import NewMessage, insert_message
from darkroom.core.refunds import lock_payment_money, request_goodwill, request_unused
from darkroom.core.unused import (
    UnusedPayment,
    close_compensation,
    list_forgotten,
    list_idle_compensations,
    list_unreminded,
)
from darkroom.db.database import DatabaseRefusedError, RowBusyError
from darkroom.flow.customer_texts import unused_reminder_text
from darkroom.flow.darkroom import Darkroom
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.money import Money

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: succeeded -> refunding",
    "payment: succeeded -> refunded",
    "refund: new -> requested",
)


async def return_unused_money(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many payments it reminded of or asked back.

    Safe at any time, any number of times, by anyone: each is a transaction of its own, guarded by status.
    """
    limit = darkroom.limits.batch
    async with darkroom.database.connection() as tx:
        unreminded = await list_unreminded(tx, limit=limit)
        forgotten = await list_forgotten(tx, limit=limit)
        idle = await list_idle_compensations(tx, limit=limit)
    for payment in unreminded:
        await _one(_remind(darkroom, payment))
    for payment_id in forgotten:
        await _one(_return(darkroom, payment_id))
    for grant_id, payment_id in idle:
        await _one(_return_compensated(darkroom, grant_id, payment_id))
    if forgotten or idle:
        await darkroom.doorbell.wake()
    return len(unreminded) + len(forgotten) + len(idle)


async def _one(work: Awaitable[None]) -> None:
    """One payment that is busy or refused must not keep those behind it waiting."""
    try:
        await work
    except (RowBusyError, DatabaseRefusedError):
        log.exception("unused payment passed over")


async def _return(darkroom: Darkroom, payment_id: int) -> None:
    async with darkroom.database.transaction() as tx:
        # Asked for in the statement itself: a set that starts at this moment has the money, or we do.
        refund_id = await request_unused(tx, payment_id, reason="unused")
        await checkpoint("unused.before_commit")
    log.info("unused money goes back", payment_id=payment_id, refund_id=refund_id)


async def _return_compensated(darkroom: Darkroom, grant_id: int, payment_id: int) -> None:
    async with darkroom.database.transaction() as tx:
        await lock_payment_money(tx, payment_id)
        if await close_compensation(tx, grant_id):
            await request_goodwill(tx, payment_id, most_minor=2**62, reason="compensation_failed")
        await checkpoint("unused.compensation_before_commit")


async def _remind(darkroom: Darkroom, payment: UnusedPayment) -> None:
    text = unused_reminder_text(
        Money(payment.amount_minor, payment.currency),
        payment_id=payment.id,
        photo_count=payment.photo_count,
        days_left=payment.days_left,
    )
    async with darkroom.database.connection() as tx:
        await insert_message(
            tx,
            NewMessage(
                user_id=payment.user_id,
                kind="unused_reminder",
                subject_id=payment.id,
                payment_id=payment.id,
                text_ru=text.ru,
                text_en=text.en,
            ),
            to_chat=darkroom.chat_enabled,
        )
