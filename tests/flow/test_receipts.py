"""Where a receipt goes: with the order, once, to whoever makes receipts, for money in and money back."""

from typing import Any, Final
from uuid import uuid4

import pytest

from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from tests.edges.serving import application_of, client_of
from tests.shop import Customer, Shop

EMAIL: Final = "ann@example.com"


def _wish(customer: Customer, email: str | None, key: str | None = None) -> OrderRequest:
    return OrderRequest(customer.user_id, "starter", "bank", None, None, key, uuid4(), email)


async def _refusal(shop: Shop, wish: OrderRequest) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as refusal:
        await order_photos(shop.darkroom, wish)
    return refusal.value.status, refusal.value.code


async def test_the_address_goes_with_the_payment_and_with_its_refund(shop: Shop) -> None:
    shop.bank.receipt_email_needed = True
    customer = await shop.customer()
    payment = await order_photos(shop.darkroom, _wish(customer, " Ann@Example.com "))
    assert payment.receipt_email == EMAIL
    assert [call.receipt_email for call in shop.bank.asked_for] == [EMAIL]
    shop.bank.pays(payment.id)
    await shop.notify(payment.id)
    await shop.drain()
    await ask_back(shop.darkroom, user_id=customer.user_id, payment_id=payment.id)
    await shop.drain()
    assert [call.receipt_email for call in shop.bank.refund_calls] == [EMAIL]


async def test_without_an_address_a_bank_that_needs_one_is_not_asked(shop: Shop) -> None:
    customer = await shop.customer()
    shop.bank.receipt_email_needed = True
    assert await _refusal(shop, _wish(customer, None)) == (400, "RECEIPT_EMAIL_NEEDED")
    for odd in ("", "ann", "ann@example.com\r\nBcc: x@example.com"):
        assert await _refusal(shop, _wish(customer, odd)) == (400, "INVALID_EMAIL")
    assert await shop.value("SELECT count(*) FROM payments") == 0
    assert shop.bank.keys == []
    shop.bank.receipt_email_needed = False
    assert (await order_photos(shop.darkroom, _wish(customer, None))).receipt_email is None


async def test_the_address_is_part_of_what_a_key_stands_for(shop: Shop) -> None:
    customer = await shop.customer()
    first = await order_photos(shop.darkroom, _wish(customer, EMAIL, "key"))
    again = await order_photos(shop.darkroom, _wish(customer, "ANN@example.com", "key"))
    assert again.id == first.id
    for other in ("bob@example.com", None):
        assert await _refusal(shop, _wish(customer, other, "key")) == (
            409,
            "IDEMPOTENCY_KEY_REUSED",
        )


def test_an_order_without_one_has_the_key_it_always_had() -> None:
    """A key that was sent before an upgrade is the same order after it."""
    wish = OrderRequest(1, "starter", "bank", None, None, "key", uuid4())
    assert wish.sha256().startswith("2337d30f")


async def test_the_door_takes_the_address(shop: Shop) -> None:
    customer = await shop.customer()
    shop.bank.receipt_email_needed = True
    wish: dict[str, Any] = {"tierId": "starter", "telegramUserId": customer.telegram_user_id}
    async with client_of(application_of(shop)) as client:
        without = await client.post("/api/payments", json=wish)
        assert (without.status_code, without.json()["error"]["code"]) == (
            400,
            "RECEIPT_EMAIL_NEEDED",
        )
        for odd in ("ann", "a\0nn@example.com", 7, [EMAIL], "a" * 300):
            answer = await client.post("/api/payments", json={**wish, "receiptEmail": odd})
            assert answer.status_code in (400, 422), odd
        placed = await client.post("/api/payments", json={**wish, "receiptEmail": EMAIL})
    assert placed.status_code == 201
    assert await shop.value("SELECT receipt_email FROM payments") == EMAIL
