"""Money back through the sandbox adapter, against its bank over loopback: what every provider must keep."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.edges.serve import listen_on_free_port
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    LedgerLine,
    MoneyBackNotice,
    PaymentFact,
    PaymentMoney,
    PaymentProviderUnavailableError,
    RefundAlready,
    RefundCall,
    RefundDone,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
    RefundState,
    RefundUnderWay,
)
from darkroom.twin import bank as bank_module
from darkroom.twin.loopback import loopback
from tests.contracts.test_sandbox import SECRET, Street, request_of, street

__all__ = ["street"]
PRICE = Money(49_900, "RUB")


async def _paid(street: Street, payment_id: int = 7) -> str:
    """A payment that the bank has money of; its id there."""
    checkout = await street.client.create(request_of(street, payment_id))
    street.bank.decide(checkout.provider_payment_id, "paid")
    await street.letters.get()
    return checkout.provider_payment_id


def _call(theirs: str, minor: int, key: str = "1-1") -> RefundCall:
    return RefundCall(
        payment_id=7,
        provider_payment_id=theirs,
        key=key,
        amount=Money(minor, "RUB"),
        price=PRICE,
        returned_minor=0,
        title="1 AI photo",
        photo_count=1,
        payer_telegram_id=None,
    )


def _money(theirs: str) -> PaymentMoney:
    return PaymentMoney(7, theirs, PRICE, 0, None, None)


def test_it_says_what_it_can_do(street: Street) -> None:
    assert street.client.refund_forms is RefundForms.PARTIAL
    assert street.client.refund_key_seconds == street.bank.habits.key_seconds


async def test_the_same_key_is_the_same_refund_however_often_and_at_once(street: Street) -> None:
    theirs = await _paid(street)
    answers = await asyncio.gather(*(street.client.refund(_call(theirs, 7129)) for _ in range(5)))
    assert {type(answer) for answer in answers} == {RefundDone}
    assert len(set(answers)) == 1
    (fact,) = await street.client.read_refunds(_money(theirs))
    assert (fact.key, fact.amount, fact.state) == ("1-1", Money(7129, "RUB"), RefundState.DONE)
    assert street.bank.paid_back() == {7: 7129}


async def test_a_key_past_its_life_is_another_refund_there(street: Street) -> None:
    """Why the flow reads before it sends again (external-apis 5)."""
    theirs = await _paid(street)
    await street.client.refund(_call(theirs, 100))
    street.bank.books.age_keys(street.bank.habits.key_seconds + 1)
    await street.client.refund(_call(theirs, 100))
    assert street.bank.paid_back() == {7: 200}


async def test_the_same_key_with_another_amount_is_refused(street: Street) -> None:
    theirs = await _paid(street)
    await street.client.refund(_call(theirs, 100))
    answer = await street.client.refund(_call(theirs, 101))
    assert isinstance(answer, RefundRefused)
    assert not answer.later
    assert street.bank.paid_back() == {7: 100}


async def test_never_more_than_came_in(street: Street) -> None:
    theirs = await _paid(street)
    too_much = await street.client.refund(_call(theirs, PRICE.amount_minor + 1))
    assert isinstance(too_much, RefundRefused)
    assert isinstance(await street.client.refund(_call(theirs, 49_900, "2-1")), RefundDone)
    assert isinstance(await street.client.refund(_call(theirs, 1, "3-1")), RefundAlready)
    assert street.bank.paid_back() == {7: PRICE.amount_minor}


async def test_what_was_never_paid_is_a_definite_no(street: Street) -> None:
    checkout = await street.client.create(request_of(street))
    for theirs in (checkout.provider_payment_id, "pay-of-nobody"):
        assert isinstance(await street.client.refund(_call(theirs, 1)), RefundRefused)
        assert await street.client.read_refunds(_money(theirs)) == ()


async def test_a_lost_answer_is_no_answer_and_its_books_know(street: Street) -> None:
    theirs = await _paid(street)
    street.bank.habits.silent_share = 1
    assert isinstance(await street.client.refund(_call(theirs, 100)), RefundNoAnswer)
    (fact,) = await street.client.read_refunds(_money(theirs))
    assert fact.state is RefundState.DONE


async def test_a_refusal_for_good_and_a_not_now_are_told_apart(street: Street) -> None:
    theirs = await _paid(street)
    street.bank.habits.busy_share = 1
    busy = await street.client.refund(_call(theirs, 100))
    assert isinstance(busy, RefundRefused)
    assert busy.later
    street.bank.habits.busy_share = 0
    street.bank.habits.refused_share = 1
    refused = await street.client.refund(_call(theirs, 100))
    assert isinstance(refused, RefundRefused)
    assert (refused.later, refused.code) == (False, "account_closed")
    (fact,) = await street.client.read_refunds(_money(theirs))
    assert fact.state is RefundState.REFUSED
    assert street.bank.paid_back() == {}


@pytest.mark.parametrize(
    ("end", "state"), [("done", RefundState.DONE), ("refused", RefundState.REFUSED)]
)
async def test_one_that_is_under_way_ends_later_and_is_told(
    street: Street, end: str, state: RefundState
) -> None:
    theirs = await _paid(street)
    street.bank.habits.slow_share = 1
    assert isinstance(await street.client.refund(_call(theirs, 100)), RefundUnderWay)
    (fact,) = await street.client.read_refunds(_money(theirs))
    assert fact.state is RefundState.UNDER_WAY
    assert street.bank.finish_refunds(end) == 1
    (fact,) = await street.client.read_refunds(_money(theirs))
    assert fact.state is state
    notice = street.client.verify(*await street.letters.get())
    assert isinstance(notice.fact, MoneyBackNotice if end == "done" else PaymentFact)


async def test_what_somebody_at_the_bank_gives_back_is_told_and_has_no_key(street: Street) -> None:
    theirs = await _paid(street)
    street.bank.refund_outside(theirs, 500)
    notice = street.client.verify(*await street.letters.get())
    assert notice.fact == MoneyBackNotice(7, theirs)
    street.bank.refund_outside(theirs, 600, is_chargeback=True)
    facts = await street.client.read_refunds(_money(theirs))
    assert [(fact.key, fact.is_chargeback) for fact in facts] == [(None, False), (None, True)]
    assert len({fact.provider_refund_id for fact in facts}) == 2


async def test_the_banks_own_list_comes_in_pages_and_in_order(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "MOVES_MAX", 2)
    began = datetime.now(UTC) - timedelta(seconds=1)
    for number in (1, 2, 3):
        await _paid(street, number)
    theirs = street.bank.payments()[0]["id"]
    await street.client.refund(_call(theirs, 100))
    later = datetime.now(UTC) + timedelta(seconds=1)
    cursor: str | None = None
    lines: list[LedgerLine] = []
    for _ in range(10):
        page = await street.client.read_ledger(began, later, cursor)
        assert len(page.lines) <= 2
        lines += page.lines
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [line.payment_id for line in lines] == [1, 2, 3, 1]
    assert [line.provider_refund_id is None for line in lines] == [True, True, True, False]
    assert lines[-1].amount == Money(100, "RUB")
    assert all(began <= line.moved_at <= later for line in lines)
    assert (await street.client.read_ledger(began, began, None)).lines == ()


async def test_a_dead_bank_says_nothing_about_the_money() -> None:
    listening = listen_on_free_port()
    nobody = SandboxPayments(
        base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", secret=SECRET
    )
    listening.close()
    now = datetime.now(UTC)
    assert isinstance(await nobody.refund(_call("pay", 1)), RefundNoAnswer)
    with pytest.raises(PaymentProviderUnavailableError):
        await nobody.read_refunds(_money("pay"))
    with pytest.raises(PaymentProviderUnavailableError):
        await nobody.read_ledger(now, now, None)
    await nobody.close()


@pytest.mark.parametrize("answer", ["{}", "[]", "null", "x", '{"refunds": [{}]}', '{"refunds": 1}'])
async def test_an_odd_answer_is_no_answer(answer: str) -> None:
    async def odd(request: Request) -> PlainTextResponse:
        return PlainTextResponse(answer, 201 if request.method == "POST" else 200)

    app = Starlette(routes=[Route("/{path:path}", odd, methods=["GET", "POST"])])
    async with loopback(app) as address:
        client = SandboxPayments(base_url=address, secret=SECRET)
        now = datetime.now(UTC)
        assert isinstance(await client.refund(_call("pay", 1)), RefundNoAnswer)
        with pytest.raises(PaymentProviderUnavailableError):
            await client.read_refunds(_money("pay"))
        with pytest.raises(PaymentProviderUnavailableError):
            await client.read_ledger(now, now, None)
        await client.close()


async def test_a_wrong_secret_is_our_mistake_and_not_a_refusal_of_the_refund(
    street: Street,
) -> None:
    theirs = await _paid(street)
    stranger = SandboxPayments(base_url=street.bank_url, secret="wrong")
    answer = await stranger.refund(_call(theirs, 100))
    assert isinstance(answer, RefundRefused)
    assert answer.later, "a key that is wrong today must not send every refund to a person"
    await stranger.close()
