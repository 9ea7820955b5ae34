"""What a person does about money back: give more of it, ask again after a no, or pay by hand and say so."""

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid4

from darkroom.core.inbox import store_message
from darkroom.core.payments import find_payment_there
from darkroom.core.refund_list import (
    RefundView,
    find_refund,
    list_open_refunds,
    read_money_left,
)
from darkroom.core.refunds import (
    find_refund_by_request,
    lock_payment_money,
    request_failed_again,
    request_goodwill,
    request_unused,
)
from darkroom.core.settlements import settle_by_hand
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import RequestRefusedError, not_found
from darkroom.flow.receive import money_back_payload
from darkroom.flow.tell_customer import tell_about_refunds
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.payments import MoneyBackNotice, RefundForms

log = get_logger("flow")

MOVES_MADE: Final = (
    "payment: succeeded -> refunding",
    "payment: refunding -> refunded",
    "payment: succeeded -> partially_refunded",
    "payment: succeeded -> refunded",
    "payment: partially_refunded -> refunded",
    "refund: new -> requested",
    "refund: failed -> requested",
    "refund: failed -> succeeded",
)
LIST_MAX: Final = 200
"""A page a person still reads; what is not on it comes when those above are done."""


@dataclass(frozen=True, slots=True)
class GoodwillRequest:
    """An operator's wish. `amount_minor` None: all that is left of the payment.

    The same `request_id` again is the same refund.
    """

    payment_id: int
    amount_minor: int | None
    note: str
    request_id: UUID


async def read_open_refunds(darkroom: Darkroom) -> list[RefundView]:
    """What is owed and not back yet; what waits for a person is first. More than LIST_MAX: there are more."""
    async with darkroom.database.connection() as tx:
        return await list_open_refunds(tx, limit=LIST_MAX + 1)


def _reason_in(note: str) -> str:
    if not note.strip():
        raise RequestRefusedError(400, "NOTE_NEEDED", "Say why: it stands in the books")
    return note.strip()


async def pay_back(darkroom: Darkroom, request: GoodwillRequest) -> RefundView:
    """Owe a customer money for no other reason than that an operator says so (bugbook D11).

    Photos it pays for that are delivered are gifts from then on. Never more than is left of the price:
    the amount is refused, not cut.

    Raises:
        RequestRefusedError: no such payment was paid; more than is left; a provider without parts; no note.
    """
    request = replace(request, note=_reason_in(request.note))

    async def write(tx: Connection) -> int:
        await lock_payment_money(tx, request.payment_id)
        known = await find_refund_by_request(tx, request.request_id)
        return known if known is not None else await _write(darkroom, tx, request)

    async def read_back(tx: Connection) -> int | None:
        return await find_refund_by_request(tx, request.request_id)

    refund_id = await darkroom.database.settle(write, read_back=read_back)
    await checkpoint("payback.after_commit")
    await darkroom.doorbell.ring()
    return await _view(darkroom, refund_id)


async def _write(darkroom: Darkroom, tx: Connection, request: GoodwillRequest) -> int:
    money = await read_money_left(tx, request.payment_id)
    if money is None:
        raise not_found("payment")
    amount = money.left_minor if request.amount_minor is None else request.amount_minor
    if not 0 < amount <= money.left_minor:
        raise RequestRefusedError(
            409,
            "MORE_THAN_IS_LEFT",
            f"{money.left_minor} minor units of this payment are left to pay back",
            leftMinor=money.left_minor,
        )
    provider = darkroom.payments.get(money.provider)
    parts = provider is None or provider.refund_forms is not RefundForms.WHOLE
    if not parts and amount != money.price_minor:
        raise RequestRefusedError(
            409, "NO_PARTS", f"{money.provider} pays back the whole price or nothing"
        )
    if money.generation_consumed:
        refund_id = await request_goodwill(
            tx,
            request.payment_id,
            most_minor=amount,
            reason="operator",
            request_id=request.request_id,
            note=request.note,
        )
    elif amount != money.left_minor:
        raise RequestRefusedError(
            409, "UNUSED_GOES_BACK_WHOLE", "An unused payment goes back whole"
        )
    else:
        refund_id = await request_unused(
            tx,
            request.payment_id,
            reason="operator",
            request_id=request.request_id,
            note=request.note,
        )
    if refund_id is None:
        raise RequestRefusedError(409, "NOTHING_LEFT", "Nothing of this payment can go back")
    await checkpoint("payback.before_commit")
    return refund_id


async def ask_refund_again(darkroom: Darkroom, refund_id: int) -> RefundView:
    """Send a refused refund once more: the same row, a new key. Harmless twice.

    Raises:
        RequestRefusedError: no such refund.
    """
    async with darkroom.database.connection() as tx:
        again = await request_failed_again(tx, refund_id)
    log.info("refund asked again", refund_id=refund_id, again=again)
    await darkroom.doorbell.ring()
    return await _view(darkroom, refund_id)


async def note_paid_by_hand(darkroom: Darkroom, refund_id: int, *, note: str) -> RefundView:
    """A person paid what was refused, some other way, and says which. Harmless twice.

    Raises:
        RequestRefusedError: no such refund; 409 NOT_REFUSED when the provider may still pay it; no note.
    """
    note = _reason_in(note)
    refund = await _view(darkroom, refund_id)
    async with darkroom.database.transaction() as tx:
        await lock_payment_money(tx, refund.payment_id)
        if await settle_by_hand(tx, refund_id, note=note) is not None:
            await tell_about_refunds(darkroom, tx, [refund_id])
        await checkpoint("payback.by_hand_before_commit")
    refund = await _view(darkroom, refund_id)
    if refund.status != "succeeded":
        raise RequestRefusedError(
            409,
            "NOT_REFUSED",
            f"refund {refund_id} is {refund.status}: only a refused one is paid by hand",
        )
    return refund


async def look_again(darkroom: Darkroom, payment_id: int) -> None:
    """Have the provider's books of one payment read anew, as if it had sent a notice: what a difference wants.

    Nothing is believed that those books do not say. Money that came and that we did not know of starts its
    order or goes back; money that went back settles our rows. Harmless any number of times.

    Raises:
        RequestRefusedError: no such payment; its provider is not configured.
    """
    async with darkroom.database.connection() as tx:
        there = await find_payment_there(tx, payment_id)
    if there is None:
        raise not_found("payment")
    provider_name, theirs = there
    if provider_name not in darkroom.payments:
        raise RequestRefusedError(
            409, "PROVIDER_OFF", f"provider {provider_name} is not configured"
        )
    async with darkroom.database.connection() as tx:
        await store_message(
            tx,
            source=provider_name,
            external_id=f"look-{payment_id}-{uuid4()}",
            kind="money_back",
            payload=money_back_payload(MoneyBackNotice(payment_id, theirs or "")),
        )
    await checkpoint("payback.look_stored")
    await darkroom.doorbell.ring()


async def _view(darkroom: Darkroom, refund_id: int) -> RefundView:
    async with darkroom.database.connection() as tx:
        refund = await find_refund(tx, refund_id)
    if refund is None:
        raise not_found("refund")
    return refund
