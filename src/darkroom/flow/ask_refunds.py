"""Refunds whose outcome nobody knows are asked about, until the provider's own books say it.

Only when they say that nothing happened, and nothing can be on its way any more, is it sent again.
"""

from typing import Final

from darkroom.core.refunds import (
    RefundClaim,
    ask_again_later,
    claim_unknown,
    fail_refund,
    lock_payment_money,
    move_to_requested,
    read_due_minor,
    settle_lapsed_sending,
)
from darkroom.core.settlements import RefundInFlightError, Settled, apply_facts
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.rounds import work_on_each
from darkroom.flow.send_refunds import pause_of, read_books
from darkroom.flow.tell_customer import tell_about_refunds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.payments import PaymentProvider, RefundFact, RefundState

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: refunding -> refunded",
    "payment: succeeded -> partially_refunded",
    "payment: succeeded -> refunded",
    "payment: partially_refunded -> refunded",
    "refund: sending -> unknown",
    "refund: unknown -> succeeded",
    "refund: unknown -> requested",
    "refund: unknown -> failed",
    "refund: requested -> succeeded",
    "refund: failed -> succeeded",
)
NOES: Final = frozenset({"refused", "already"})
"""Answers after which nothing of that call can be on its way any more."""
REASONS: Final = {"already": "already refunded, and not by us"}
"""What a person reads where the provider's own words say too little."""


async def ask_unknown_refunds(darkroom: Darkroom) -> int:
    """One bounded round. Returns how many refunds were looked at. A crash leaves them unknown and due."""
    limits = darkroom.limits
    async with darkroom.database.connection() as tx:
        lapsed = await settle_lapsed_sending(tx, limit=limits.batch)
    async with darkroom.database.connection() as tx:
        refunds = await claim_unknown(
            tx,
            providers=list(darkroom.payments),
            limit=limits.batch,
            lease_seconds=limits.lease_seconds,
        )

    async def ask(refund: RefundClaim) -> None:
        await _ask(darkroom, refund)

    if refunds:
        await checkpoint("outcome.claimed")
        await work_on_each("outcome", darkroom.leases, "refund", refunds, ask)
    return lapsed + len(refunds)


async def _ask(darkroom: Darkroom, refund: RefundClaim) -> None:
    provider = darkroom.payments[refund.provider]
    await checkpoint("outcome.before_call")
    facts = await read_books(provider, refund)
    await checkpoint("outcome.after_call")
    async with darkroom.database.transaction() as tx:
        await lock_payment_money(tx, refund.payment_id)
        pause = pause_of(darkroom, refund)
        if facts is None:
            await ask_again_later(tx, refund, error="no answer", pause_seconds=pause)
            return
        waits = _is_under_way(facts, refund) or _may_still_come(darkroom, provider, refund)
        idle = None if waits or _may_arrive_by_its_key(provider, refund) else refund.id
        try:
            async with tx.transaction():
                settled = await apply_facts(tx, refund.payment_id, facts, idle_refund_id=idle)
        except RefundInFlightError:
            # Somebody gave back more at the provider than is left beside this one, which may still come.
            log.warning("money back fits nowhere yet", refund_id=refund.id)
            settled = Settled()
        if refund.id not in settled.ids:
            if waits:
                await ask_again_later(tx, refund, error=None, pause_seconds=pause)
            elif refund.last_answer in NOES and (
                await read_due_minor(tx, refund.id) == refund.due_minor
            ):
                # A definite no, and its books give no other reason for it than the one it gave.
                await fail_refund(tx, refund, error=REASONS.get(refund.last_answer or ""))
                settled.failed.append(refund.id)
            else:
                await move_to_requested(
                    tx,
                    refund,
                    error="asked: it never happened",
                    # The first time at once: a customer waits.
                    pause_seconds=0 if refund.calls <= 1 else pause,
                    new_key=False,
                )
        if settled.failed:
            log.error("refund refused", refund_id=refund.id)
        await tell_about_refunds(darkroom, tx, settled.ids)
        await checkpoint("outcome.before_commit")
    await checkpoint("outcome.after_commit")


def _is_under_way(facts: tuple[RefundFact, ...], refund: RefundClaim) -> bool:
    return any(fact.key == refund.key and fact.state is RefundState.UNDER_WAY for fact in facts)


def _may_arrive_by_its_key(provider: PaymentProvider, refund: RefundClaim) -> bool:
    """With a key the same call is made again, and both are one; another wish would be paid beside it."""
    return provider.refund_key_seconds is not None and refund.last_answer not in NOES


def _may_still_come(darkroom: Darkroom, provider: PaymentProvider, refund: RefundClaim) -> bool:
    """Without a key at the provider a call that is not in its books may still be on its way there."""
    if provider.refund_key_seconds is not None or refund.called_age_seconds is None:
        return False
    return refund.called_age_seconds < darkroom.limits.refund_grace_seconds
