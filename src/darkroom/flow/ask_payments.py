"""Payments nobody told us about are asked about: a lost notice costs time, never money.

What the provider answers goes through the same inbox as its notices.
"""

from typing import Final

from darkroom.core.inbox import store_message, was_acted_on
from darkroom.core.payments import (
    PaymentClaim,
    ask_again_later,
    claim_silent_payments,
    mark_expired,
)
from darkroom.core.refunds import lock_payment_money
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.receive import asked_id, fact_payload
from darkroom.flow.rounds import work_on_each
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError
from darkroom.ports.payments import PaidState, PaymentFact, PaymentProviderUnavailableError

log = get_logger("flow")

MOVES_MADE: Final = ("payment: pending -> expired",)


async def ask_silent_payments(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many payments were claimed. A crash leaves them due again."""
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        payments = await claim_silent_payments(
            tx,
            limit=limits.batch,
            lease_seconds=limits.lease_seconds,
            old_after_seconds=limits.payment_expire_seconds,
        )

    async def ask(payment: PaymentClaim) -> None:
        await _ask(darkroom, payment)

    if payments:
        await work_on_each("ask", darkroom.leases, "payment", payments, ask)
    return len(payments)


async def _store(tx: Connection, payment: PaymentClaim, fact: PaymentFact) -> bool:
    """Whether the answer may still end the payment. One that was acted on and left it pending never will.

    Another amount, another page: a person has the difference, and the order is over like one that nobody paid.
    """
    external_id = asked_id(payment.id, fact)
    await store_message(
        tx,
        source=payment.provider,
        external_id=external_id,
        kind="payment",
        payload=fact_payload(fact),
    )
    return not await was_acted_on(tx, source=payment.provider, external_id=external_id)


async def _ask(darkroom: Darkroom, payment: PaymentClaim) -> None:
    provider = darkroom.payments.get(payment.provider)
    fact: PaymentFact | None = None
    answered = False
    if provider is not None:
        await checkpoint("ask.before_call")
        try:
            fact = await provider.ask(payment.id, payment.provider_payment_id)
            answered = True
        except TransactionOpenError:
            raise
        except Exception as error:
            # An error of theirs, or an odd answer, says nothing about the money (bugbook E2): never expire
            # on it.
            if not isinstance(error, PaymentProviderUnavailableError):
                log.exception("asking about a payment raised", payment_id=payment.id)
            answered = False
        await checkpoint("ask.after_call")
    decided = fact is not None and fact.state is not PaidState.WAITING
    pause = backoff_seconds(
        payment.attempts,
        base_seconds=darkroom.limits.payment_ask_first_seconds,
        cap_seconds=darkroom.limits.payment_ask_cap_seconds,
    )
    async with darkroom.database.transaction() as tx:
        # Before the message, as whoever takes notices does.
        await lock_payment_money(tx, payment.id)
        ends_it = decided and fact is not None and await _store(tx, payment, fact)
        if answered and not ends_it and payment.is_old:
            await mark_expired(tx, payment)
        else:
            await ask_again_later(tx, payment, pause_seconds=pause)
        await checkpoint("ask.before_commit")
    if decided:
        await darkroom.doorbell.wake()
