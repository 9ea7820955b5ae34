"""What is owed back is sent: one call at a time for a payment, under a key that grows only after a no.

The attempt's row is committed before the call. An answer is a fact; one that did not come is the status
`unknown`, and `ask_refunds` goes on from there.
"""

from typing import Final

from darkroom.core.refunds import (
    RefundClaim,
    begin_attempt,
    claim_requested,
    fail_refund,
    lock_payment_money,
    move_to_requested,
    move_to_unknown,
    record_answer,
)
from darkroom.core.settlements import apply_facts
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.rounds import work_on_each
from darkroom.flow.tell_customer import tell_about_refunds
from darkroom.kit.backoff import backoff_seconds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.kit.outside import TransactionOpenError
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    PaymentMoney,
    PaymentProvider,
    PaymentProviderUnavailableError,
    RefundAlready,
    RefundAnswer,
    RefundCall,
    RefundDone,
    RefundFact,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
    RefundState,
    RefundUnderWay,
)

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: refunding -> refunded",
    "payment: succeeded -> partially_refunded",
    "payment: succeeded -> refunded",
    "payment: partially_refunded -> refunded",
    "refund: requested -> sending",
    "refund: sending -> succeeded",
    "refund: sending -> unknown",
    "refund: sending -> failed",
    "refund: sending -> requested",
    "refund: requested -> succeeded",
)
ANSWERS: Final = {
    RefundDone: "done",
    RefundUnderWay: "under_way",
    RefundAlready: "already",
    RefundRefused: "refused",
    RefundNoAnswer: "no_answer",
}


async def send_due_refunds(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many refunds were claimed.

    A crash before the call costs nothing, one after it leaves a refund that is asked about.
    """
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        refunds = await claim_requested(
            tx,
            providers=list(darkroom.payments),
            limit=limits.batch,
            lease_seconds=limits.lease_seconds,
        )
    if not refunds:
        return 0
    await checkpoint("refund.claimed")

    async def send(refund: RefundClaim) -> None:
        await _send(darkroom, refund)

    await work_on_each("refund", darkroom.leases, "refund", refunds, send)
    return len(refunds)


async def _send(darkroom: Darkroom, refund: RefundClaim) -> None:
    provider = darkroom.payments[refund.provider]
    refusal = _why_never(provider, refund)
    if refusal is not None:
        await _give_to_a_person(darkroom, refund, refusal)
        return
    if _must_be_read_first(provider, refund) and not await _is_still_owed(
        darkroom, provider, refund
    ):
        return
    async with darkroom.database.connection() as tx:
        attempt_id = await begin_attempt(tx, refund)
    if attempt_id is None:
        log.warning("refund is not ours to send any more", refund_id=refund.id)
        return
    await checkpoint("refund.before_call")
    answer = await _call(provider, refund)
    await checkpoint("refund.after_call")

    async def write(tx: Connection) -> None:
        await _write_answer(darkroom, tx, refund, attempt_id, answer)
        await checkpoint("refund.before_commit")

    async def written_twice_is_harmless(_tx: Connection) -> None:
        return None

    await darkroom.database.settle(write, read_back=written_twice_is_harmless, patient=True)
    await checkpoint("refund.after_commit")


def _why_never(provider: PaymentProvider, refund: RefundClaim) -> str | None:
    """Why no call could ever do this: then a person pays by hand, from the list (bugbook D7)."""
    if provider.refund_forms is RefundForms.NONE:
        return f"{provider.name} cannot pay back: pay by hand"
    if refund.provider_payment_id is None:
        return "the provider's id of the payment is not known"
    if provider.refund_forms is RefundForms.WHOLE and refund.due_minor != refund.price_minor:
        return f"{provider.name} pays back the whole price or nothing: pay by hand"
    return None


def _must_be_read_first(provider: PaymentProvider, refund: RefundClaim) -> bool:
    """Whether the provider's own memory may not keep this call from being made twice."""
    if provider.refund_key_seconds is None:
        return True
    # Half of its life: a clock may be wrong, and a call may wait on its way.
    return (
        refund.key_age_seconds is not None
        and refund.key_age_seconds > provider.refund_key_seconds / 2
    )


async def _is_still_owed(
    darkroom: Darkroom, provider: PaymentProvider, refund: RefundClaim
) -> bool:
    """Read the provider's books before anything is said to it. False: there is nothing to send now."""
    facts = await read_books(provider, refund)
    async with darkroom.database.transaction() as tx:
        await lock_payment_money(tx, refund.payment_id)
        if facts is None:
            await move_to_requested(
                tx,
                refund,
                error="its books could not be read",
                pause_seconds=pause_of(darkroom, refund),
                new_key=False,
            )
            return False
        settled = await apply_facts(tx, refund.payment_id, facts, idle_refund_id=refund.id)
        await tell_about_refunds(darkroom, tx, settled.ids)
        waits = any(
            fact.key == refund.key and fact.state is RefundState.UNDER_WAY for fact in facts
        )
        if waits:
            pause = pause_of(darkroom, refund)
            await move_to_unknown(tx, refund, error="under way there", pause_seconds=pause)
        await checkpoint("refund.books_read")
    return not waits and refund.id not in settled.succeeded


async def read_books(
    provider: PaymentProvider, refund: RefundClaim
) -> tuple[RefundFact, ...] | None:
    """Everything the provider says of this payment's money back; None: no answer, which says nothing."""
    if refund.provider_payment_id is None:
        return ()
    money = PaymentMoney(
        payment_id=refund.payment_id,
        provider_payment_id=refund.provider_payment_id,
        price=Money(refund.price_minor, refund.currency),
        returned_minor=refund.returned_minor,
        in_flight=None if refund.key_age_seconds is None else (refund.key, refund.due_minor),
        payer_telegram_id=refund.payer_telegram_id,
    )
    try:
        return await provider.read_refunds(money)
    except TransactionOpenError:
        raise
    except Exception as error:
        if not isinstance(error, PaymentProviderUnavailableError):
            log.exception("reading refunds raised", provider=provider.name, refund_id=refund.id)
        return None


async def _call(provider: PaymentProvider, refund: RefundClaim) -> RefundAnswer:
    photos = refund.photo_count
    try:
        return await provider.refund(
            RefundCall(
                payment_id=refund.payment_id,
                provider_payment_id=refund.provider_payment_id or "",
                key=refund.key,
                amount=Money(refund.due_minor, refund.currency),
                price=Money(refund.price_minor, refund.currency),
                returned_minor=refund.returned_minor,
                title=f"{photos} AI photos" if photos else f"order {refund.payment_id}",
                photo_count=photos,
                payer_telegram_id=refund.payer_telegram_id,
                receipt_email=refund.receipt_email,
            )
        )
    except TransactionOpenError:
        raise
    except Exception as error:
        # An adapter that broke while calling may have called: only `unknown` is honest.
        log.exception("refund raised", provider=provider.name, refund_id=refund.id)
        return RefundNoAnswer(type(error).__name__)


async def _write_answer(
    darkroom: Darkroom,
    tx: Connection,
    refund: RefundClaim,
    attempt_id: int,
    answer: RefundAnswer,
) -> None:
    await lock_payment_money(tx, refund.payment_id)
    # The last "not now" is a no: its books are read once more, and then a person looks.
    later = (
        isinstance(answer, RefundRefused)
        and answer.later
        and refund.later_answers < darkroom.limits.refund_tries_max
    )
    await record_answer(
        tx,
        attempt_id,
        answer="later" if later else ANSWERS[type(answer)],
        code=getattr(answer, "code", None),
        text=getattr(answer, "text", None),
    )
    pause = pause_of(darkroom, refund)
    match answer:
        case RefundDone(provider_refund_id, amount):
            fact = RefundFact(provider_refund_id, amount, RefundState.DONE, refund.key)
            settled = await apply_facts(tx, refund.payment_id, [fact], idle_refund_id=None)
            await tell_about_refunds(darkroom, tx, settled.succeeded)
            if refund.id not in settled.succeeded:
                # Heard of before, or less than was asked for: its books tell which.
                await move_to_unknown(tx, refund, error="done in part", pause_seconds=0)
        case RefundUnderWay():
            await move_to_unknown(tx, refund, error="under way there", pause_seconds=pause)
        case RefundAlready(code, text):
            await move_to_unknown(tx, refund, error=f"{code}: {text}", pause_seconds=0)
        case RefundNoAnswer(text):
            await move_to_unknown(
                tx, refund, error=text, pause_seconds=darkroom.limits.refund_ask_first_seconds
            )
        case RefundRefused(code, text) if later:
            await move_to_requested(
                tx, refund, error=f"{code}: {text}", pause_seconds=pause, new_key=True
            )
        case RefundRefused(code, text):
            # Perhaps because somebody gave back a part there: its books tell, before a person is called.
            await move_to_unknown(tx, refund, error=f"{code}: {text}", pause_seconds=0)


async def _give_to_a_person(darkroom: Darkroom, refund: RefundClaim, why: str) -> None:
    async with darkroom.database.transaction() as tx:
        if await fail_refund(tx, refund, error=why):
            log.error("refund needs a person", refund_id=refund.id, why=why)
            await tell_about_refunds(darkroom, tx, [refund.id])
        await checkpoint("refund.given_to_a_person")


def pause_of(darkroom: Darkroom, refund: RefundClaim) -> float:
    """The growing pause before this refund is looked at again."""
    return backoff_seconds(
        max(refund.attempts, refund.calls),
        base_seconds=darkroom.limits.refund_ask_first_seconds,
        cap_seconds=darkroom.limits.refund_ask_cap_seconds,
    )
