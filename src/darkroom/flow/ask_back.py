"""A customer asks an unused payment back. Money that has its set is the policy's matter."""

from typing import Final

from darkroom.core.payments import PaymentView, view_payment
from darkroom.core.refunds import request_unused
from darkroom.core.requests import lock_user
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found, payment_consumed
from darkroom.kit.checkpoint import checkpoint

MOVES_MADE: Final = (
    "payment: succeeded -> refunding",
    "refund: new -> requested",
)


async def ask_back(darkroom: Darkroom, *, user_id: int, payment_id: int) -> PaymentView:
    """Take an unused payment out of use and owe it back, in one transaction. Harmless twice.

    Of this and a set that starts at the same moment one has the money, decided behind the user's lock.

    Raises:
        RequestRefusedError: 404 not theirs; 402 PAYMENT_CONSUMED with the job that has it; 409 NOT_PAID.
        RowBusyError, DatabaseUnavailableError: ask again.
    """

    async def ask(tx: Connection) -> PaymentView | None:
        await lock_user(tx, user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
        if await view_payment(tx, user_id=user_id, payment_id=payment_id) is not None:
            await request_unused(tx, payment_id, reason="asked_back")
        await checkpoint("askback.before_commit")
        return await view_payment(tx, user_id=user_id, payment_id=payment_id)

    async def read_back(_tx: Connection) -> None:
        """Nothing to look for: asking twice finds nothing unused the second time."""

    payment = await darkroom.database.settle(ask, read_back=read_back)
    await checkpoint("askback.after_commit")
    if payment is None:
        raise not_found("payment")
    if payment.generation_consumed:
        raise payment_consumed(payment.job_id)
    if payment.status not in ("refunding", "refunded"):
        raise RequestRefusedError(409, "NOT_PAID", "There is no money of this payment to return")
    await darkroom.doorbell.ring()
    return payment
