"""What outside messages said is acted on: money first.

A payment that succeeded and carries an order starts its job in the same transaction, so that nothing
depends on a browser coming back.
"""

from typing import Any, Final
from uuid import UUID, uuid5

from darkroom.core.attempts import adopt, find_by_provider_task
from darkroom.core.inbox import (
    InboxMessage,
    claim_messages,
    close_message,
    hold_message,
    postpone_message,
)
from darkroom.core.jobs import StartedJob, StartRequest, start_job
from darkroom.core.payments import PaymentOrder, lock_payment, mark_canceled, mark_succeeded
from darkroom.core.tasks import ring_task
from darkroom.db.database import Connection, DatabaseRefusedError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.rounds import work_on_each
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.generation import ProviderUnavailableError
from darkroom.ports.payments import PaidState

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: pending -> succeeded",
    "payment: pending -> canceled",
    "payment: canceled -> succeeded",
    "payment: expired -> succeeded",
)

ORDER_NAMESPACE: Final = UUID("6f6c7b2e-4d83-4f0b-9a57-0d1f4b8e2c11")
"""An order's job has one request id, whoever starts it and however often."""


async def take_due_notices(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many messages were claimed. A crash leaves them due again."""
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        messages = await claim_messages(tx, limit=limits.batch, lease_seconds=limits.lease_seconds)
    if not messages:
        return 0
    await checkpoint("notice.claimed")

    async def take(message: InboxMessage) -> None:
        try:
            if message.kind == "payment":
                await _take_payment(darkroom, message)
            else:
                await _take_callback(darkroom, message)
        except (DatabaseRefusedError, ProviderUnavailableError) as error:
            log.exception("message postponed", message_id=message.id)
            await _postpone(darkroom, message, str(error))

    await work_on_each("notice", darkroom.leases, "message", messages, take)
    return len(messages)


async def _postpone(darkroom: Darkroom, message: InboxMessage, error: str) -> None:
    pause = backoff_seconds(
        message.attempts,
        base_seconds=darkroom.limits.retry_base_seconds,
        cap_seconds=darkroom.limits.retry_cap_seconds,
    )
    async with darkroom.database.connection() as tx:
        await postpone_message(tx, message, error=error, pause_seconds=pause)


async def _take_payment(darkroom: Darkroom, message: InboxMessage) -> None:
    started: StartedJob | None = None
    async with darkroom.database.transaction() as tx:
        # Payer and payment first: the lock order. The message is ours by lease; its row comes last.
        payment = await lock_payment(
            tx, payment_id=int(message.payload["payment_id"]), provider=message.source
        )
        if not await hold_message(tx, message):
            return
        outcome = _refuse_fact(payment, message.payload)
        if payment is not None and outcome is None:
            outcome, started = await _apply_fact(darkroom, tx, payment, message.payload)
        await close_message(tx, message, outcome=outcome or "unknown_payment")
        await checkpoint("notice.before_commit")
    await checkpoint("notice.after_commit")
    if started is not None:
        await darkroom.doorbell.ring(started.id)


def _refuse_fact(payment: PaymentOrder | None, fact: dict[str, Any]) -> str | None:
    """A notice that does not fit what we know changes nothing and is left for a person to read."""
    if payment is None:
        outcome = "unknown_payment"
    elif (payment.amount_minor, payment.currency) != (fact["amount_minor"], fact["currency"]):
        outcome = "price_mismatch"
    elif payment.provider_payment_id not in (None, fact["provider_payment_id"]):
        outcome = "other_payment"
    else:
        return None
    log.error("payment notice does not fit", outcome=outcome, payment_id=fact["payment_id"])
    return outcome


async def _apply_fact(
    darkroom: Darkroom, tx: Connection, payment: PaymentOrder, fact: dict[str, Any]
) -> tuple[str, StartedJob | None]:
    state = PaidState(fact["state"])
    if state is PaidState.WAITING:
        return "waiting", None
    if state is PaidState.CANCELED:
        return ("canceled" if await mark_canceled(tx, payment.id) else "no_change"), None
    paid = await mark_succeeded(
        tx, payment.id, provider_payment_id=str(fact["provider_payment_id"])
    )
    if not paid:
        return "no_change", None
    started = await start_paid_order(darkroom, tx, payment)
    if payment.order_avatar_id is not None and started is None:
        # The avatar or its selfies are gone. The money is unused and the customer can choose again.
        log.warning("paid order could not start", payment_id=payment.id)
        return "paid_not_started", None
    return "paid", started


async def start_paid_order(
    darkroom: Darkroom, tx: Connection, payment: PaymentOrder
) -> StartedJob | None:
    """Start the job of an order whose money is there, in the caller's transaction."""
    if payment.order_avatar_id is None or payment.order_style_id is None:
        return None
    return await start_job(
        tx,
        StartRequest(
            user_id=payment.user_id,
            avatar_id=payment.order_avatar_id,
            style_id=payment.order_style_id,
            payment_id=payment.id,
            request_id=uuid5(ORDER_NAMESPACE, str(payment.id)),
            provider=darkroom.new_tasks_go_to,
        ),
        lock_timeout_ms=darkroom.limits.lock_timeout_ms,
    )


async def _take_callback(darkroom: Darkroom, message: InboxMessage) -> None:
    """Read at the source whose task it is, bind it if its creation's answer was lost, and ring."""
    provider_name = str(message.payload["provider"])
    provider_task_id = str(message.payload["provider_task_id"])
    provider = darkroom.generation.get(provider_name)
    if provider is None:
        raise ProviderUnavailableError(f"provider {provider_name} is off")
    async with darkroom.database.connection() as tx:
        known = await find_by_provider_task(
            tx, provider=provider_name, provider_task_id=provider_task_id
        )
    adoption = None if known is not None else await provider.whose(provider_task_id)
    if known is None and adoption is None and message.attempts < darkroom.limits.callback_tries_max:
        # A provider may call back before its own records know the task (external-apis 1.3).
        raise ProviderUnavailableError("not known there yet")
    await checkpoint("notice.callback_read")
    async with darkroom.database.transaction() as tx:
        if not await hold_message(tx, message):
            return
        if known is None and adoption is not None and adoption.token is not None:
            known = await adopt(
                tx,
                provider=provider_name,
                token=adoption.token,
                provider_task_id=adoption.provider_task_id,
            )
        if known is None:
            await close_message(tx, message, outcome="not_ours")
            return
        await ring_task(tx, known.task_id)
        await close_message(tx, message, outcome="rung" if adoption is None else "adopted")
    await darkroom.doorbell.ring(known.job_id)
