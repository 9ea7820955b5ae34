"""The sandbox way to pay, against its bank over loopback."""

import asyncio
import contextlib
import sqlite3
import ssl
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.edges.serve import listen_on_free_port
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    NoticeRefusedError,
    PaidState,
    PaymentFact,
    PaymentProviderUnavailableError,
    PaymentRefusedError,
    PaymentRequest,
)
from darkroom.twin.bank import SandboxBank
from darkroom.twin.loopback import loopback

SECRET = "shared"


@dataclass
class Street:
    """The bank, its merchant's client, and the merchant's letter box."""

    bank: SandboxBank
    client: SandboxPayments
    letters: asyncio.Queue[tuple[dict[str, str], bytes]]
    shop_url: str
    bank_url: str


@pytest.fixture
async def street(tmp_path: Path) -> AsyncGenerator[Street]:
    letters: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
    refusals = ["not now"]

    async def take(request: Request) -> PlainTextResponse:
        if refusals:
            return PlainTextResponse(refusals.pop(), 500)
        letters.put_nowait((dict(request.headers), await request.body()))
        return PlainTextResponse("OK")

    bank = SandboxBank(secret=SECRET, file=tmp_path / "bank.sqlite", public_url="http://bank")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(bank.running())
        bank_url = await stack.enter_async_context(loopback(bank.app))
        shop = Starlette(routes=[Route("/notify", take, methods=["POST"])])
        shop_url = await stack.enter_async_context(loopback(shop))
        client = SandboxPayments(base_url=bank_url, secret=SECRET)
        yield Street(bank, client, letters, shop_url, bank_url)
        await client.close()


def request_of(street: Street, payment_id: int = 7) -> PaymentRequest:
    return PaymentRequest(
        payment_id=payment_id,
        key=f"{payment_id}-1",
        price=Money(49900, "RUB"),
        title="7 AI photos",
        return_url=f"{street.shop_url}/back",
        notify_url=f"{street.shop_url}/notify",
    )


async def test_a_notice_costs_no_reading_of_certificates(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stopped the whole process for 30 ms, and for 90 more when the garbage of many went."""
    read: list[str] = []
    real = ssl.SSLContext.load_verify_locations

    def load(
        self: ssl.SSLContext,
        cafile: str | None = None,
        capath: str | None = None,
        cadata: str | None = None,
    ) -> None:
        read.append("certificates")
        real(self, cafile, capath, cadata)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load)
    payment = await street.client.create(request_of(street))
    street.bank.decide(payment.url.rpartition("/")[2], "paid")
    async with asyncio.timeout(10):
        await street.letters.get()
    assert read == []


async def test_the_same_key_is_the_same_payment(street: Street) -> None:
    answers = await asyncio.gather(*(street.client.create(request_of(street)) for _ in range(5)))
    assert len({answer.provider_payment_id for answer in answers}) == 1
    assert len(street.bank.payments()) == 1


async def test_paying_sends_a_signed_notice_until_it_is_answered_ok(street: Street) -> None:
    checkout = await street.client.create(request_of(street))
    path = checkout.url.removeprefix("http://bank")
    async with httpx.AsyncClient(base_url=street.bank_url) as browser:
        page = await browser.get(path)
        assert "499.00" in page.text
        pressed = await asyncio.gather(*(browser.post(f"{path}/pay") for _ in range(3)))
        await browser.post(f"{path}/decline")
    assert {answer.status_code for answer in pressed} == {303}
    headers, body = await street.letters.get()
    notice = street.client.verify(headers, body)
    assert isinstance(notice.fact, PaymentFact)
    assert notice.fact.state is PaidState.PAID
    assert (notice.fact.payment_id, notice.fact.price) == (7, Money(49900, "RUB"))
    assert street.letters.empty()
    assert len(street.bank.events()) == 1


async def test_asking_tells_the_same_as_the_notice(street: Street) -> None:
    assert await street.client.ask(7, None) is None
    checkout = await street.client.create(request_of(street))
    waiting = await street.client.ask(7, checkout.provider_payment_id)
    assert waiting is not None
    assert waiting.state is PaidState.WAITING
    street.bank.decide(checkout.provider_payment_id, "canceled")
    asked = await street.client.ask(7, None)
    assert asked is not None
    assert asked.state is PaidState.CANCELED


async def test_a_notice_that_was_touched_or_is_stale_is_refused(street: Street) -> None:
    """bugbook E5 and its neighbours: signature over the raw bytes, freshness both ways."""
    checkout = await street.client.create(request_of(street))
    street.bank.decide(checkout.provider_payment_id, "paid")
    _, headers, body = street.bank.notice(street.bank.events()[0])
    lower = {name.lower(): value for name, value in headers.items()}
    assert isinstance(street.client.verify(lower, body).fact, PaymentFact)
    refused: list[tuple[dict[str, str], bytes]] = [
        (lower, body.replace(b"49900", b"1")),
        ({}, body),
        ({"sandbox-signature": ""}, body),
        ({"sandbox-signature": "t=x,v1=y"}, body),
        ({"sandbox-signature": lower["sandbox-signature"].replace("v1=", "v1=é")}, body),
    ]
    for given_headers, given_body in refused:
        with pytest.raises(NoticeRefusedError):
            street.client.verify(given_headers, given_body)
    for minutes in (-6, 6):
        moment = datetime.now(UTC) + timedelta(minutes=minutes)
        later = SandboxPayments(
            base_url="http://x", secret=SECRET, clock=lambda moment=moment: moment
        )
        with pytest.raises(NoticeRefusedError, match="stale"):
            later.verify(lower, body)
        await later.close()


async def test_a_wrong_secret_is_a_definite_no_and_a_dead_bank_is_none(street: Street) -> None:
    stranger = SandboxPayments(base_url=street.bank_url, secret="wrong")
    with pytest.raises(PaymentRefusedError):
        await stranger.create(request_of(street))
    await stranger.close()
    listening = listen_on_free_port()
    nobody = SandboxPayments(
        base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", secret=SECRET
    )
    listening.close()
    with pytest.raises(PaymentProviderUnavailableError):
        await nobody.create(request_of(street))
    await nobody.close()


@pytest.mark.parametrize("answer", ["{}", "[]", "null", "x", '{"id": "p"}', '{"status": "ok"}'])
async def test_an_odd_answer_is_no_answer(answer: str) -> None:
    """Who knows what it did: the same key finds out. It was a KeyError, and a 500."""

    async def odd(_request: Request) -> PlainTextResponse:
        return PlainTextResponse(answer)

    app = Starlette(routes=[Route("/{path:path}", odd, methods=["GET", "POST"])])
    async with loopback(app) as address:
        client = SandboxPayments(base_url=address, secret=SECRET)
        request = PaymentRequest(1, "1-1", Money(1, "RUB"), "t", "http://x", "http://x")
        with pytest.raises(PaymentProviderUnavailableError):
            await client.create(request)
        with pytest.raises(PaymentProviderUnavailableError):
            await client.ask(1, "p")
        await client.close()


async def test_the_banks_books_survive_its_restart(tmp_path: Path) -> None:
    file = tmp_path / "bank.sqlite"
    first = SandboxBank(secret=SECRET, file=file, public_url="http://bank")
    async with (
        first.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=first.app), base_url="http://bank"
        ) as client,
    ):
        await client.post(
            "/v1/payments",
            headers={"Authorization": f"Bearer {SECRET}", "Idempotency-Key": "1-1"},
            json={
                "order_id": 1,
                "amount_minor": 100,
                "currency": "RUB",
                "title": "t",
                "return_url": "http://127.0.0.1/",
                "notify_url": "http://127.0.0.1:1/",
            },
        )
    second = SandboxBank(secret=SECRET, file=file, public_url="http://bank")
    async with second.running():
        assert [payment["order_id"] for payment in second.payments()] == [1]


async def test_the_address_of_a_receipt_reaches_the_bank(street: Street) -> None:
    """In the payment's own resource, and never as a word that is not there."""
    plain = await street.client.create(request_of(street, 7))
    with_receipt = await street.client.create(
        replace(request_of(street, 8), receipt_email="ann@example.com")
    )
    async with httpx.AsyncClient(base_url=street.bank_url, trust_env=False) as client:
        for checkout, email in ((plain, None), (with_receipt, "ann@example.com")):
            shown = await client.get(
                f"/v1/payments/{checkout.provider_payment_id}",
                headers={"Authorization": f"Bearer {SECRET}"},
            )
            assert shown.json()["receipt_email"] == email
    assert not street.client.receipt_email_needed
    insists = SandboxPayments(base_url=street.bank_url, secret=SECRET, receipts=True)
    assert insists.receipt_email_needed
    await insists.close()


async def test_books_from_before_there_were_receipts_are_opened(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite"
    SandboxBank(secret=SECRET, file=file, public_url="http://bank").books.close()
    with contextlib.closing(sqlite3.connect(file)) as old:
        old.execute("ALTER TABLE payments DROP COLUMN receipt_email")
    bank = SandboxBank(secret=SECRET, file=file, public_url="http://bank")
    assert bank.payments() == []
    row = bank.books.open_payment(
        "1-1",
        {
            "order_id": 1,
            "amount_minor": 1,
            "currency": "RUB",
            "title": "",
            "return_url": "",
            "notify_url": "",
            "receipt_email": "ann@example.com",
        },
    )
    assert row["receipt_email"] == "ann@example.com"
    bank.books.close()
