"""What outside messages said is acted on: money first.

A payment that succeeded and carries an order starts its job in the same transaction, so that nothing
depends on a browser coming back. Money that went back is read in the provider's books, and settles our rows.
"""

from typing import Any, Final
from uuid import UUID, uuid5

from darkroom.core.attempts import adopt, find_by_provider_task
from darkroom.core.differences import DifferenceKind, note_difference
from darkroom.core.inbox import (
    InboxMessage,
    MessageGoneError,
    claim_messages,
    close_message,
    hold_message,
    postpone_message,
    store_message,
)
from darkroom.core.jobs import StartedJob, StartRequest, start_job
from darkroom.core.payments import (
    PaymentOrder,
    find_payment_money,
    insert_duplicate,
    lock_payment,
    mark_canceled,
    mark_succeeded,
)
from darkroom.core.refunds import request_unused
from darkroom.core.settlements import RefundInFlightError, apply_facts
from darkroom.core.tasks import ring_task
from darkroom.db.database import Connection, DatabaseRefusedError
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.receive import asked_id, fact_payload
from darkroom.flow.rounds import work_on_each
from darkroom.flow.take_queue_failure import take_queue_failure
from darkroom.flow.tell_customer import tell_about_refunds
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.generation import ProviderUnavailableError
from darkroom.ports.payments import PaidState, PaymentFact, PaymentProviderUnavailableError

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: pending -> succeeded",
    "payment: pending -> canceled",
    "payment: canceled -> succeeded",
    "payment: expired -> succeeded",
    "payment: new -> succeeded",
    "payment: succeeded -> refunding",
    "payment: refunding -> refunded",
    "payment: succeeded -> partially_refunded",
    "payment: succeeded -> refunded",
    "payment: partially_refunded -> refunded",
    "refund: new -> requested",
    "refund: requested -> succeeded",
    "refund: failed -> succeeded",
    "refund: unknown -> succeeded",
    "refund: unknown -> failed",
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
    if len(messages) == limits.batch:
        await darkroom.doorbell.wake("notice")
    await checkpoint("notice.claimed")

    async def take(message: InboxMessage) -> None:
        try:
            match message.kind:
                case "payment":
                    await _take_payment(darkroom, message)
                case "money_back":
                    await _take_money_back(darkroom, message)
                case "queue_failure":
                    await take_queue_failure(darkroom, message)
                case _:
                    await _take_callback(darkroom, message)
        except MessageGoneError:
            log.warning("message is somebody else's by now", message_id=message.id)
        except (
            DatabaseRefusedError,
            ProviderUnavailableError,
            PaymentProviderUnavailableError,
            RefundInFlightError,
        ) as error:
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
        # Payer and payment first: the lock order. The message is ours by lease; its row comes last, and where
        # somebody else has it by then, all of this is undone.
        payment = await lock_payment(
            tx, payment_id=int(message.payload["payment_id"]), provider=message.source
        )
        outcome = await _refuse_fact(tx, payment, message)
        if payment is not None and outcome is None:
            outcome, started = await _apply_fact(darkroom, tx, payment, message.payload)
        await close_message(tx, message, outcome=outcome or "unknown_payment")
        await checkpoint("notice.before_commit")
    await checkpoint("notice.after_commit")
    if started is not None:
        await darkroom.doorbell.wake("submit")


async def _refuse_fact(
    tx: Connection, payment: PaymentOrder | None, message: InboxMessage
) -> str | None:
    """A notice that does not fit what we know changes nothing; where it tells of money, a person is told."""
    fact = message.payload
    kind: DifferenceKind
    if payment is None:
        kind = "unknown_payment"
    elif (payment.amount_minor, payment.currency) != (fact["amount_minor"], fact["currency"]):
        kind = "price_mismatch"
    else:
        return None
    log.error("payment notice does not fit", outcome=kind, payment_id=fact["payment_id"])
    if PaidState(fact["state"]) is PaidState.PAID:
        await note_difference(
            tx,
            provider=message.source,
            kind=kind,
            subject=str(fact["provider_payment_id"]),
            payment_id=None if payment is None else payment.id,
            ours_minor=None if payment is None else payment.amount_minor,
            theirs_minor=int(fact["amount_minor"]),
            currency=str(fact["currency"]),
        )
    return kind


async def _apply_fact(
    darkroom: Darkroom, tx: Connection, payment: PaymentOrder, fact: dict[str, Any]
) -> tuple[str, StartedJob | None]:
    state = PaidState(fact["state"])
    theirs = str(fact["provider_payment_id"])
    is_another = payment.provider_payment_id not in (None, theirs)
    if state is PaidState.WAITING:
        return "waiting", None
    if state is PaidState.CANCELED:
        # Of another page than the one that counts it says nothing: the customer left that one.
        canceled = not is_another and await mark_canceled(tx, payment.id)
        return "canceled" if canceled else "no_change", None
    if await mark_succeeded(tx, payment.id, provider_payment_id=theirs):
        return await _use_new_money(darkroom, tx, payment)
    return await _take_second_money(tx, payment, theirs) if is_another else "no_change", None


async def _use_new_money(
    darkroom: Darkroom, tx: Connection, payment: PaymentOrder
) -> tuple[str, StartedJob | None]:
    """The order starts; money of a customer who left goes back, and late money where its policy says so."""
    is_late = payment.status in ("canceled", "expired") and payment.late_money == "refund"
    if payment.payer_left or is_late:
        await request_unused(tx, payment.id, reason="late")
        log.warning("money came late and goes back", payment_id=payment.id)
        return "paid_late_goes_back", None
    started = await start_paid_order(darkroom, tx, payment)
    if payment.order_avatar_id is not None and started is None:
        # The avatar or its selfies are gone. The money is unused and the customer can choose again.
        log.warning("paid order could not start", payment_id=payment.id)
        return "paid_not_started", None
    return "paid", started


async def _take_second_money(tx: Connection, payment: PaymentOrder, theirs: str) -> str:
    """The same order was paid by another payment of the provider: that one goes back whole, once."""
    duplicate_id = await insert_duplicate(tx, payment.id, provider_payment_id=theirs)
    if duplicate_id is None:
        return "no_change"
    await request_unused(tx, duplicate_id, reason="duplicate")
    log.warning("order paid twice", payment_id=payment.id, duplicate_id=duplicate_id)
    return "paid_twice_goes_back"


async def _take_money_back(darkroom: Darkroom, message: InboxMessage) -> None:
    """Money went back at the provider, by us or by somebody else: its books settle our rows.

    Raises:
        PaymentProviderUnavailableError, RefundInFlightError: not now.
    """
    payment_id = int(message.payload["payment_id"])
    theirs = str(message.payload["provider_payment_id"])
    provider = darkroom.payments.get(message.source)
    if provider is None:
        raise PaymentProviderUnavailableError(f"provider {message.source} is off")
    async with darkroom.database.connection() as tx:
        known = await find_payment_money(
            tx, payment_id=payment_id, provider=message.source, provider_payment_id=theirs
        )
    paid = None
    if known is None:
        # Perhaps its own notice is still on its way, or lost: money that went back had come in before.
        paid = await provider.ask(payment_id, theirs or None)
    facts = () if known is None else await provider.read_refunds(known)
    await checkpoint("notice.books_read")
    async with darkroom.database.transaction() as tx:
        await lock_payment(
            tx,
            payment_id=payment_id if known is None else known.payment_id,
            provider=message.source,
        )
        if not await hold_message(tx, message):
            return
        if known is None and paid is not None and paid.state is PaidState.PAID:
            await store_message(
                tx,
                source=message.source,
                external_id=asked_id(payment_id, paid),
                kind="payment",
                payload=fact_payload(paid),
            )
        elif known is not None:
            settled = await apply_facts(tx, known.payment_id, facts, idle_refund_id=None)
            await tell_about_refunds(darkroom, tx, settled.ids)
        if known is None and message.attempts < _looks(darkroom, paid):
            pause = darkroom.limits.retry_base_seconds
            await postpone_message(tx, message, error="not paid by us yet", pause_seconds=pause)
        else:
            outcome = "unknown_payment" if known is None else "settled"
            await close_message(tx, message, outcome=outcome)
        await checkpoint("notice.money_back_before_commit")
    await darkroom.doorbell.wake("notice", "refund", "outcome", "finish")


def _looks(darkroom: Darkroom, paid: PaymentFact | None) -> int:
    """How often such a notice is looked at. Where the money had come, its own message is on its way to us."""
    most = darkroom.limits.callback_tries_max
    return 10 * most if paid is not None and paid.state is PaidState.PAID else most


async def start_paid_order(
    darkroom: Darkroom, tx: Connection, payment: PaymentOrder
) -> StartedJob | None:
    """Start the job of an order whose money is there, in the transaction that locked payer and payment."""
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
        lock_timeout_ms=None,
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
            tx, account=provider_name, provider_task_id=provider_task_id
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
                account=provider_name,
                token=adoption.token,
                provider_task_id=adoption.provider_task_id,
            )
        if known is None:
            await close_message(tx, message, outcome="not_ours")
            return
        await ring_task(tx, known.task_id)
        await close_message(tx, message, outcome="rung" if adoption is None else "adopted")
    await darkroom.doorbell.wake("poll", "settle", "collect")
