"""Where a buyer stands decides what they may pay with; what they agreed to is kept with the order."""

import hashlib
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from darkroom.core.evidence import read_order_record
from darkroom.edges.evidence_timeline import tell_order
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.gather_evidence import gather_evidence
from darkroom.flow.order_photos import Consent, OrderRequest, order_photos
from darkroom.flow.ways_to_pay import WayToPay, ways_to_pay
from darkroom.kit.checkpoint import checkpoints_handled_by
from tests.scripted import ScriptedBank
from tests.shop import Customer, Shop

CONSENT = Consent(hashlib.sha256(b"terms").hexdigest(), "ru")


@dataclass
class BankWithReceipts(ScriptedBank):
    """A bank that sends receipts, as the law asks for."""

    receipt_email_needed: bool = True


def sell_for(shop: Shop, *banks: ScriptedBank) -> None:
    shop.darkroom = replace(shop.darkroom, payments={bank.name: bank for bank in banks})


def wish(
    customer: Customer,
    provider: str | None = None,
    *,
    key: str | None = None,
    consent: Consent | None = None,
    inside_telegram: bool = True,
) -> OrderRequest:
    return OrderRequest(
        customer.user_id,
        "starter",
        provider,
        None,
        None,
        key,
        uuid4(),
        consent=consent,
        inside_telegram=inside_telegram,
    )


async def refused(shop: Shop, order: OrderRequest) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as caught:
        await order_photos(shop.darkroom, order)
    return caught.value.status, caught.value.code


async def test_inside_telegram_only_stars_are_offered(shop: Shop) -> None:
    sell_for(shop, BankWithReceipts(), ScriptedBank(name="stars", currency="XTR"))
    assert ways_to_pay(shop.darkroom, inside_telegram=False) == (
        WayToPay("bank", "RUB", receipt_email_needed=True),
        WayToPay("stars", "XTR", receipt_email_needed=False),
    )
    assert ways_to_pay(shop.darkroom, inside_telegram=True) == (
        WayToPay("stars", "XTR", receipt_email_needed=False),
    )


async def test_inside_telegram_other_money_is_refused_and_stars_are_the_default(
    shop: Shop,
) -> None:
    sell_for(shop, ScriptedBank(), ScriptedBank(name="stars", currency="XTR"))
    customer = await shop.customer()
    assert await refused(shop, wish(customer, "bank")) == (403, "STARS_ONLY")
    assert await refused(shop, wish(customer, "nobody")) == (400, "UNKNOWN_PROVIDER")
    assert await shop.value("SELECT count(*) FROM payments") == 0
    assert (await order_photos(shop.darkroom, wish(customer))).currency == "XTR"
    assert (await order_photos(shop.darkroom, wish(customer, "stars"))).currency == "XTR"
    outside = wish(customer, inside_telegram=False)
    assert (await order_photos(shop.darkroom, outside)).currency == "RUB"


async def test_without_stars_nothing_is_sold_inside_telegram(shop: Shop) -> None:
    customer = await shop.customer()
    assert ways_to_pay(shop.darkroom, inside_telegram=True) == ()
    assert await refused(shop, wish(customer)) == (503, "PAYMENTS_OFF")
    assert await refused(shop, wish(customer, "bank")) == (403, "STARS_ONLY")
    sell_for(shop)
    assert await refused(shop, wish(customer, "bank")) == (503, "PAYMENTS_OFF")


async def test_a_key_used_outside_does_not_bring_its_card_page_into_telegram(shop: Shop) -> None:
    """The default of the same words is another money here than there."""
    sell_for(shop, ScriptedBank(), ScriptedBank(name="stars", currency="XTR"))
    customer = await shop.customer()
    await order_photos(shop.darkroom, wish(customer, key="click", inside_telegram=False))
    assert await refused(shop, wish(customer, key="click")) == (403, "STARS_ONLY")
    assert await shop.value("SELECT count(*) FROM payments") == 1


async def test_a_consent_is_stored_with_its_order_and_shown_as_evidence(shop: Shop) -> None:
    customer = await shop.customer()
    order = wish(customer, consent=CONSENT, inside_telegram=False)
    payment = await order_photos(shop.darkroom, order)
    async with shop.database.transaction() as tx:
        record = await read_order_record(tx, payment.id)
    assert record is not None
    (row,) = record.tables["consent"]
    assert (row["terms_sha256"], row["locale"]) == (CONSENT.terms_sha256, "ru")
    told = tell_order(await gather_evidence(shop.darkroom, payment.id))
    assert "The buyer agreed to the terms (ru)" in [event.what for event in told]


async def test_an_order_and_its_consent_come_together_or_not_at_all(shop: Shop) -> None:
    customer = await shop.customer()

    async def strike(name: str) -> None:
        if name == "order.before_commit":
            assert await shop.value("SELECT count(*) FROM consents") == 0
            raise ConnectionAbortedError

    with checkpoints_handled_by(strike), pytest.raises(ConnectionAbortedError):
        await order_photos(shop.darkroom, wish(customer, consent=CONSENT, inside_telegram=False))
    assert await shop.value("SELECT count(*) FROM payments") == 0
    assert await shop.value("SELECT count(*) FROM consents") == 0


async def test_a_page_sent_again_after_the_terms_changed_finds_its_payment(shop: Shop) -> None:
    customer = await shop.customer()
    newer = Consent(hashlib.sha256(b"newer terms").hexdigest(), "en")
    first, second = [
        await order_photos(
            shop.darkroom, wish(customer, key="click", consent=consent, inside_telegram=False)
        )
        for consent in (CONSENT, newer)
    ]
    assert first.id == second.id
    rows = await shop.rows("SELECT payment_id, terms_sha256, locale FROM consents")
    assert [tuple(row.values()) for row in rows] == [(first.id, CONSENT.terms_sha256, "ru")]
