"""A customer orders a set and is sent to pay.

The row is committed before the provider is called, and the call's key is made of the row's id: a crash
between the two leaves a pending payment that the same request, or our own question, finds again.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from darkroom.core.catalog import check_eligibility
from darkroom.core.consents import insert_consent
from darkroom.core.payments import (
    NewPayment,
    PaymentView,
    count_recent_payments,
    find_payment_by_request,
    insert_payment,
    mark_canceled,
    record_checkout,
    view_payment,
)
from darkroom.core.people import owns_avatar
from darkroom.core.requests import find_request, lock_user, remember_request
from darkroom.db.database import Connection
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.errors import (
    RequestRefusedError,
    checked_email,
    key_reused,
    not_found,
    refuse_without_selfies,
)
from darkroom.flow.ways_to_pay import STARS, providers_inside_telegram
from darkroom.kit.checkpoint import checkpoint
from darkroom.kit.log import get_logger
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    PaymentProvider,
    PaymentProviderUnavailableError,
    PaymentRefusedError,
    PaymentRequest,
)

log = get_logger("flow")

READ_BACK_LOCK_MS: Final = 10_000
"""How long our own commit may still take after its connection was lost."""
MOVES_MADE: Final = ("payment: new -> pending", "payment: pending -> canceled")


@dataclass(frozen=True, slots=True)
class Consent:
    """What the buyer agreed to: read from the seller's brand, never from a request's body."""

    terms_sha256: str
    locale: str


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What is bought. With an avatar and a style the set starts by itself when the money is there.

    Attributes:
        receipt_email: where the receipt goes; some ways to pay take no payment without one.
        consent: stored beside the payment, in its transaction. No part of `sha256`: a page that is sent again
            after the terms have changed finds its payment, and the consent of the first time.
        inside_telegram: sold on a page that Telegram shows, where digital goods are sold for Stars only. No
            part of `sha256` either. `POST /api/payments` leaves it False also for callers who come with init
            data (`Authorization: tma`): there are clients of it that offer other ways to pay.
    """

    user_id: int
    tier_id: str
    provider: str | None
    avatar_id: int | None
    style_id: str | None
    idempotency_key: str | None
    request_id: UUID
    receipt_email: str | None = None
    consent: Consent | None = None
    inside_telegram: bool = False

    def sha256(self) -> str:
        """What an idempotency key is bound to."""
        bought = [self.tier_id, self.provider, self.avatar_id, self.style_id]
        # Only where there is one: a key from before there were receipts is still the same order's.
        if self.receipt_email is not None:
            bought.append(self.receipt_email)
        return hashlib.sha256(json.dumps(bought).encode()).hexdigest()


async def order_photos(darkroom: Darkroom, request: OrderRequest) -> PaymentView:
    """Make the payment and register it at its provider. The same key again gives the same payment.

    Raises:
        RequestRefusedError: 400, 403 STARS_ONLY, 404, 409, 429, 503 PAYMENTS_OFF, or 502 when the provider
            gives no answer (the payment stays pending; the same request may be sent again).
        RowBusyError, DatabaseUnavailableError: ask again.
    """
    provider = _choose_provider(darkroom, request.provider, inside_telegram=request.inside_telegram)
    request = _with_receipt(provider, request)
    await _refuse_impossible_order(darkroom, request)

    async def place(tx: Connection) -> int:
        return await _place(darkroom, tx, request, provider)

    async def read_back(tx: Connection) -> int | None:
        # Behind the lock: a commit whose acknowledgement was lost may still be under way.
        await lock_user(tx, request.user_id, lock_timeout_ms=READ_BACK_LOCK_MS)
        return await find_payment_by_request(tx, request.request_id)

    payment_id = await darkroom.database.settle(place, read_back=read_back)
    await checkpoint("order.placed")
    if request.inside_telegram:
        await _refuse_other_money(darkroom, user_id=request.user_id, payment_id=payment_id)
    return await _register(darkroom, user_id=request.user_id, payment_id=payment_id)


def _choose_provider(
    darkroom: Darkroom, name: str | None, *, inside_telegram: bool = False
) -> PaymentProvider:
    offered = providers_inside_telegram(darkroom) if inside_telegram else darkroom.payments
    if not darkroom.payments or (name is None and not offered):
        raise RequestRefusedError(503, "PAYMENTS_OFF", "Payments are not open yet")
    if name is None:
        return next(iter(offered.values()))
    provider = darkroom.payments.get(name)
    if provider is None:
        raise RequestRefusedError(400, "UNKNOWN_PROVIDER", "No such way to pay")
    if name not in offered:
        raise _stars_only()
    return provider


def _with_receipt(provider: PaymentProvider, request: OrderRequest) -> OrderRequest:
    """The order with its address in the one form we keep, if it has one."""
    if request.receipt_email is not None:
        return replace(request, receipt_email=checked_email(request.receipt_email))
    if provider.receipt_email_needed:
        raise RequestRefusedError(
            400, "RECEIPT_EMAIL_NEEDED", "This way to pay needs an e-mail address for the receipt"
        )
    return request


def _stars_only() -> RequestRefusedError:
    return RequestRefusedError(403, "STARS_ONLY", "Inside Telegram sets are sold for Stars only")


async def _refuse_other_money(darkroom: Darkroom, *, user_id: int, payment_id: int) -> None:
    """The same key as an order from outside found that order's payment: its page is not shown in here."""
    payment = await _view(darkroom, user_id=user_id, payment_id=payment_id)
    if payment.currency != STARS:
        raise _stars_only()


async def _refuse_impossible_order(darkroom: Darkroom, request: OrderRequest) -> None:
    if (request.avatar_id is None) != (request.style_id is None):
        raise RequestRefusedError(
            400, "INCOMPLETE_ORDER", "An order names an avatar and a style, or neither"
        )
    if request.avatar_id is None or request.style_id is None:
        return
    async with darkroom.database.connection() as tx:
        eligibility = await check_eligibility(
            tx,
            user_id=request.user_id,
            avatar_id=request.avatar_id,
            style_id=request.style_id,
            payment_id=None,
        )
    if not eligibility.avatar_is_theirs:
        raise not_found("avatar")
    if not eligibility.style_is_active:
        raise not_found("style")
    refuse_without_selfies(
        eligibility.selfies, eligibility.good_selfies, needs_good=darkroom.needs_good_selfie
    )


async def _place(
    darkroom: Darkroom, tx: Connection, request: OrderRequest, provider: PaymentProvider
) -> int:
    await lock_user(tx, request.user_id, lock_timeout_ms=darkroom.limits.lock_timeout_ms)
    if request.idempotency_key is not None:
        known = await find_request(
            tx, user_id=request.user_id, scope="payment", key=request.idempotency_key
        )
        if known is not None:
            if known.request_sha256 != request.sha256():
                raise key_reused()
            return known.row_id
    await _refuse_too_many(darkroom, tx, request.user_id)
    if request.avatar_id is not None and not await owns_avatar(
        tx, user_id=request.user_id, avatar_id=request.avatar_id
    ):
        raise not_found("avatar")  # deleted since we looked; behind the lock it stays what it is
    payment_id = await insert_payment(
        tx,
        NewPayment(
            user_id=request.user_id,
            provider=provider.name,
            tier_id=request.tier_id,
            currency=provider.currency,
            request_id=request.request_id,
            order_avatar_id=request.avatar_id,
            order_style_id=request.style_id,
            receipt_email=request.receipt_email,
        ),
        first_ask_seconds=darkroom.limits.payment_ask_first_seconds,
    )
    if payment_id is None:
        raise not_found("tier")
    if request.consent is not None:
        await insert_consent(
            tx,
            payment_id=payment_id,
            terms_sha256=request.consent.terms_sha256,
            locale=request.consent.locale,
        )
    if request.idempotency_key is not None:
        await remember_request(
            tx,
            user_id=request.user_id,
            scope="payment",
            key=request.idempotency_key,
            request_sha256=request.sha256(),
            row_id=payment_id,
        )
    await checkpoint("order.before_commit")
    return payment_id


async def _refuse_too_many(darkroom: Darkroom, tx: Connection, user_id: int) -> None:
    """Behind the user's lock, so that parallel requests count each other (bugbook A26, E12)."""
    limits = darkroom.limits
    opened = await count_recent_payments(
        tx, user_id=user_id, window_seconds=limits.payments_window_seconds
    )
    if opened >= limits.payments_max:
        raise RequestRefusedError(
            429,
            "TOO_MANY_PAYMENTS",
            "Too many orders were opened; please try again in a few minutes",
        )


async def open_checkout(darkroom: Darkroom, *, user_id: int, payment_id: int) -> PaymentView:
    """Register a payment that waits and has no page to pay at yet; any other is only read.

    Its provider is called with the first call's key: one payment, however often. Raises as `order_photos`.
    """
    return await _register(darkroom, user_id=user_id, payment_id=payment_id)


async def _register(darkroom: Darkroom, *, user_id: int, payment_id: int) -> PaymentView:
    payment = await _view(darkroom, user_id=user_id, payment_id=payment_id)
    if payment.checkout_url is not None or payment.status != "pending":
        return payment
    # The payment's own provider, whatever today's default is: its notices look for it there.
    provider = _choose_provider(darkroom, payment.provider)
    call = PaymentRequest(
        payment_id=payment_id,
        key=f"{payment_id}-1",
        price=Money(payment.amount_minor, payment.currency),
        title=f"{payment.photo_count} AI photos",
        return_url=f"{darkroom.base_url}/payments/{payment_id}",
        notify_url=f"{darkroom.base_url}/api/webhooks/payments/{provider.name}",
        receipt_email=payment.receipt_email,
    )
    try:
        checkout = await provider.create(call)
    except PaymentRefusedError as error:
        log.exception("payment refused by its provider", payment_id=payment_id)
        async with darkroom.database.connection() as tx:
            await mark_canceled(tx, payment_id)
        raise RequestRefusedError(
            502, "PAYMENT_REFUSED", "The payment could not be opened", paymentId=payment_id
        ) from error
    except PaymentProviderUnavailableError as error:
        raise RequestRefusedError(
            502,
            "PAYMENT_PROVIDER_UNAVAILABLE",
            "The payment provider did not answer, please try again",
            paymentId=payment_id,
        ) from error
    await checkpoint("order.registered")
    async with darkroom.database.connection() as tx:
        await record_checkout(
            tx,
            payment_id,
            provider_payment_id=checkout.provider_payment_id,
            checkout_url=checkout.url,
        )
    await checkpoint("order.recorded")
    return await _view(darkroom, user_id=user_id, payment_id=payment_id)


async def _view(darkroom: Darkroom, *, user_id: int, payment_id: int) -> PaymentView:
    async with darkroom.database.connection() as tx:
        payment = await view_payment(tx, user_id=user_id, payment_id=payment_id)
    if payment is None:
        raise not_found("payment")
    return payment
