"""Money that moves at the bank without us: it settles what is owed anyway, and nothing twice."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from darkroom.flow.ask_back import ask_back
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.pay_back import GoodwillRequest, look_again, pay_back
from darkroom.flow.replay_letters import replay_letters
from darkroom.flow.start_generation import start_generation
from darkroom.flow.take_notices import take_due_notices
from darkroom.ports.generation import Again, FailedThere, GenerationRequest, Working
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    PaidState,
    PaymentFact,
    RefundAlready,
    RefundAnswer,
    RefundCall,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
)
from tests.money.test_sending import (
    FIRST_SHARE,
    STARTER_MINOR,
    messages,
    owe_a_share,
    payment_status,
    refunds,
)
from tests.shop import Shop


async def hear(shop: Shop, payment_id: int, event: str = "back-1", times: int = 1) -> None:
    """The bank says that money of this payment moved back."""
    for _ in range(times):
        await shop.notify(payment_id, "money_back", event)


async def books(shop: Shop) -> list[tuple[str, str, int]]:
    """(reason, status, settled) of every refund."""
    return [(row["reason"], row["status"], row["settled_minor"]) for row in await refunds(shop)]


async def test_a_refund_begun_at_the_bank_is_a_refund_of_ours(shop: Shop) -> None:
    """bugbook D15, bugbook D17: partial stays partial, and what was delivered is a gift."""
    _, job = await shop.sold()
    await shop.drain()
    shop.bank.gives_back(job.payment_id, 10_000)
    await hear(shop, job.payment_id, times=3)
    await shop.drain()
    assert await books(shop) == [("outside", "succeeded", 10_000)]
    assert await payment_status(shop, job.payment_id) == "partially_refunded"
    shop.bank.gives_back(job.payment_id, STARTER_MINOR - 10_000)
    await hear(shop, job.payment_id, "back-2")
    await shop.drain()
    assert await payment_status(shop, job.payment_id) == "refunded"
    assert (await shop.job(job.id))["status"] == "completed"
    assert shop.bank.refund_calls == []


async def test_a_chargeback_in_mid_generation_makes_gifts_and_owes_nothing(shop: Shop) -> None:
    async def works(_request: GenerationRequest) -> Working:
        return Working()

    shop.provider.on_ask = works
    _, job = await shop.sold()
    await shop.step("submit")
    shop.bank.gives_back(job.payment_id, STARTER_MINOR, chargeback=True)
    await hear(shop, job.payment_id)
    await take_due_notices(shop.darkroom)
    assert await books(shop) == [("chargeback", "succeeded", STARTER_MINOR)]
    shop.provider.on_ask = None
    await shop.drain()
    assert (await shop.job(job.id))["completed_photos"] == 7
    assert await books(shop) == [("chargeback", "succeeded", STARTER_MINOR)]


async def test_after_a_chargeback_a_failed_photo_is_not_paid_twice(shop: Shop) -> None:
    async def fail_all(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "no", Again.NEVER)

    _, job = await shop.sold()
    await shop.step("submit")
    shop.bank.gives_back(job.payment_id, STARTER_MINOR - 1000, chargeback=True)
    await hear(shop, job.payment_id)
    shop.provider.on_ask = fail_all
    await shop.drain()
    assert await books(shop) == [
        ("chargeback", "succeeded", STARTER_MINOR - 1000),
        ("below_threshold", "succeeded", 1000),
    ]
    assert shop.bank.returned_minor(f"pay-{job.payment_id}") == STARTER_MINOR


async def test_what_is_owed_anyway_is_settled_and_not_sent(shop: Shop) -> None:
    """An operator was faster, in the bank's own page."""
    payment_id = await owe_a_share(shop)
    shop.bank.gives_back(payment_id, FIRST_SHARE)
    await hear(shop, payment_id)
    await take_due_notices(shop.darkroom)
    await shop.drain()
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]
    assert shop.bank.refund_calls == []


async def test_a_part_of_what_is_owed_leaves_the_rest_to_be_sent(shop: Shop) -> None:
    payment_id = await owe_a_share(shop)
    shop.bank.gives_back(payment_id, 129)
    await hear(shop, payment_id)
    await take_due_notices(shop.darkroom)
    assert await books(shop) == [("shortfall", "requested", 129)]
    await shop.drain()
    (call,) = shop.bank.refund_calls
    assert call.amount == Money(FIRST_SHARE - 129, "RUB")
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]


async def test_what_no_notice_told_is_found_when_a_person_looks(shop: Shop) -> None:
    """A difference that reconcile found: money there that we call expired, and money back that nobody told."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.advance(90_000)
    await shop.step("ask")
    assert await payment_status(shop, payment_id) == "expired"
    shop.bank.pays(payment_id)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "expired"
    for _ in range(2):
        await look_again(shop.darkroom, payment_id)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "succeeded"
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    shop.bank.gives_back(payment_id, 100)
    await look_again(shop.darkroom, payment_id)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "partially_refunded"
    with pytest.raises(RequestRefusedError):
        await look_again(shop.darkroom, 999)


async def test_more_than_is_owed_settles_it_and_gives_the_rest(shop: Shop) -> None:
    payment_id = await owe_a_share(shop)
    shop.bank.gives_back(payment_id, STARTER_MINOR)
    await hear(shop, payment_id)
    await shop.drain()
    assert await books(shop) == [
        ("shortfall", "succeeded", FIRST_SHARE),
        ("outside", "succeeded", STARTER_MINOR - FIRST_SHARE),
    ]
    assert await payment_status(shop, payment_id) == "refunded"


async def test_what_was_refused_and_then_paid_at_the_bank_is_settled(shop: Shop) -> None:
    async def refuse(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("closed", "closed")

    shop.bank.on_refund = refuse
    payment_id = await owe_a_share(shop)
    await shop.drain()
    assert await books(shop) == [("shortfall", "failed", 0)]
    shop.bank.gives_back(payment_id, FIRST_SHARE)
    await hear(shop, payment_id)
    await shop.drain()
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]


async def test_everything_given_back_while_ours_is_on_its_way_is_sorted_out(shop: Shop) -> None:
    """Our call is refused because somebody gave everything back in that moment: one money, told once."""

    async def somebody_was_faster(call: RefundCall) -> RefundAnswer:
        shop.bank.gives_back(call.payment_id, STARTER_MINOR)
        await hear(shop, call.payment_id)
        # The notice is read while our own refund is under way: the money fits nowhere yet.
        await take_due_notices(shop.darkroom)
        return RefundAlready("already_refunded", "everything went back")

    shop.bank.on_refund = somebody_was_faster
    payment_id = await owe_a_share(shop)
    await shop.drain()
    assert len(shop.bank.refund_calls) == 1
    assert await books(shop) == [
        ("shortfall", "succeeded", FIRST_SHARE),
        ("outside", "succeeded", STARTER_MINOR - FIRST_SHARE),
    ]
    assert shop.bank.returned_minor(f"pay-{payment_id}") == STARTER_MINOR


async def test_more_back_than_was_paid_is_a_row_for_a_person(shop: Shop) -> None:
    _, job = await shop.sold()
    await shop.drain()
    shop.bank.gives_back(job.payment_id, STARTER_MINOR + 1)
    await hear(shop, job.payment_id)
    await shop.drain()
    (found,) = await shop.rows("SELECT kind, ours_minor, theirs_minor FROM differences")
    assert found == {
        "kind": "more_back_than_paid",
        "ours_minor": STARTER_MINOR,
        "theirs_minor": STARTER_MINOR + 1,
    }
    # One kopek of the bank's is explained by nothing: the audit says so until a person has.
    shop.audit_at_end = False


async def test_the_notice_of_money_back_may_come_before_that_of_the_money(shop: Shop) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    shop.bank.gives_back(payment_id, STARTER_MINOR)
    await hear(shop, payment_id)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"
    assert shop.bank.refund_calls == []


async def test_an_unused_payment_that_was_partly_given_back_goes_back_whole(shop: Shop) -> None:
    """For what is left of it nothing can be made: no photo has a share of a price that is gone."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    shop.bank.gives_back(payment_id, 10_000)
    await hear(shop, payment_id)
    await take_due_notices(shop.darkroom)
    assert await payment_status(shop, payment_id) == "refunding"
    with pytest.raises(RequestRefusedError):
        await shop.start(customer)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"
    assert [call.amount.amount_minor for call in shop.bank.refund_calls] == [39_900]


def _second_money(shop: Shop, payment_id: int, theirs: str) -> None:
    """The customer pays once more, by another page of the bank, for the same order."""
    known = shop.bank.facts[payment_id]
    shop.bank.facts[payment_id] = PaymentFact(payment_id, theirs, PaidState.PAID, known.price)


async def test_two_payments_for_one_order_the_second_goes_back_whole(shop: Shop) -> None:
    """bugbook A27, bugbook D1: two live pages of the bank, both payable."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.notify(payment_id, "paid", "first")
    await take_due_notices(shop.darkroom)
    _second_money(shop, payment_id, "pay-second")
    for number in range(5):
        await shop.notify(payment_id, "paid", f"second-{number % 3}")
    await asyncio.gather(*(take_due_notices(shop.darkroom) for _ in range(3)))
    await shop.drain()
    rows = await shop.rows(
        "SELECT provider_payment_id, status, generation_consumed, duplicate_of FROM payments ORDER BY id"
    )
    assert [tuple(row.values()) for row in rows] == [
        (f"pay-{payment_id}", "succeeded", True, None),
        ("pay-second", "refunded", False, payment_id),
    ]
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    assert shop.bank.returned_minor("pay-second") == STARTER_MINOR
    assert shop.bank.returned_minor(f"pay-{payment_id}") == 0
    assert "дважды" in (await messages(shop))[-1]


async def test_of_two_pages_the_one_that_was_paid_counts(shop: Shop) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    _second_money(shop, payment_id, "pay-second")
    await shop.notify(payment_id, "paid", "second-page")
    await shop.drain()
    assert await payment_status(shop, payment_id) == "succeeded"
    assert await shop.value("SELECT provider_payment_id FROM payments") == "pay-second"
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1


@pytest.mark.parametrize("closing", ["canceled", "expired"])
@pytest.mark.parametrize("policy", ["start", "refund"])
async def test_money_that_comes_late_starts_its_order_or_goes_back(
    shop: Shop, closing: str, policy: str
) -> None:
    """bugbook E2, bugbook E6: paid, and closed for ever."""
    await shop.rows("UPDATE refund_policies SET late_money = %s RETURNING id", policy)
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    if closing == "canceled":
        await shop.notify(payment_id, "canceled", "no")
        await take_due_notices(shop.darkroom)
    else:
        await shop.advance(90_000)
        await shop.step("ask")
    assert await payment_status(shop, payment_id) == closing
    await shop.notify(payment_id, "paid", "late")
    await shop.drain()
    jobs = await shop.value("SELECT count(*) FROM generation_jobs")
    if policy == "start":
        assert (jobs, await payment_status(shop, payment_id)) == (1, "succeeded")
    else:
        assert (jobs, await payment_status(shop, payment_id)) == (0, "refunded")
        assert "закрыт" in (await messages(shop))[-1]


async def test_unused_money_is_reminded_of_and_then_goes_back(shop: Shop) -> None:
    """bugbook A13, bugbook A14: paid and idle, for ever."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    await shop.drain()
    assert await messages(shop) == []
    await shop.advance(3 * 86_400)
    for _ in range(3):
        await shop.step("unused")
        await shop.advance(60)
    (reminder,) = await messages(shop)
    assert "за 11 дн." in reminder
    await shop.advance(11 * 86_400)
    await asyncio.gather(*(shop.round() for _ in range(3)))
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"
    assert await books(shop) == [("unused", "succeeded", STARTER_MINOR)]
    assert len(shop.bank.refund_calls) == 1


async def test_a_customer_asks_unused_money_back_and_it_cannot_be_used_meanwhile(
    shop: Shop,
) -> None:
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    who = {"user_id": customer.user_id, "payment_id": payment_id}
    views = await asyncio.gather(*(ask_back(shop.darkroom, **who) for _ in range(5)))
    assert {view.status for view in views} == {"refunding"}
    with pytest.raises(RequestRefusedError):
        await shop.start(customer)
    await shop.drain()
    assert (await ask_back(shop.darkroom, **who)).status == "refunded"
    assert len(shop.bank.refund_calls) == 1
    stranger = await shop.customer()
    with pytest.raises(RequestRefusedError) as refused:
        await ask_back(shop.darkroom, user_id=stranger.user_id, payment_id=payment_id)
    assert refused.value.status == 404


async def test_asking_back_and_starting_at_once_one_has_the_money(shop: Shop) -> None:
    """Either a set or the money: decided behind the user's lock."""
    seen: set[str] = set()
    for _ in range(8):
        customer = await shop.customer()
        payment_id = await shop.paid(customer)
        answers: tuple[Any, ...] = await asyncio.gather(
            ask_back(shop.darkroom, user_id=customer.user_id, payment_id=payment_id),
            start_generation(shop.darkroom, shop.request(customer, payment_id=payment_id)),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, RequestRefusedError)]
        assert len(refused) == 1
        seen.add(refused[0].code)
    await shop.drain()
    assert seen <= {"PAYMENT_CONSUMED", "PAYMENT_REQUIRED"}


async def test_an_operator_gives_back_what_is_left_and_not_a_kopek_more(shop: Shop) -> None:
    """bugbook D11: the amount was added to a text, and the same payment could be refunded again."""
    _, job = await shop.sold()
    await shop.drain()
    await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, 9_900, "late", uuid4()))
    with pytest.raises(RequestRefusedError) as refused:
        await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, 40_001, "x", uuid4()))
    assert refused.value.details["leftMinor"] == 40_000
    await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, None, "all", uuid4()))
    await shop.drain()
    assert await payment_status(shop, job.payment_id) == "refunded"
    assert await books(shop) == [
        ("operator", "succeeded", 9_900),
        ("operator", "succeeded", 40_000),
    ]
    with pytest.raises(RequestRefusedError):
        await pay_back(shop.darkroom, GoodwillRequest(job.payment_id, None, "all", uuid4()))


def _whole_only(shop: Shop) -> None:
    """Stars: all of a payment or nothing."""
    shop.bank.refund_forms = RefundForms.WHOLE
    shop.bank.refund_key_seconds = None


async def _fail_two(request: GenerationRequest) -> FailedThere | None:
    failed = request.prompt_index in (0, 6)
    return FailedThere("400", "no", Again.NEVER) if failed else None


async def test_where_no_part_can_go_back_the_whole_price_does(shop: Shop) -> None:
    """bugbook D8: Stars and TON buyers never got a part back, and nothing else either."""
    _whole_only(shop)
    shop.provider.on_ask = _fail_two
    _, job = await shop.sold()
    await shop.drain()
    assert await books(shop) == [("no_partial", "succeeded", STARTER_MINOR)]
    (call,) = shop.bank.refund_calls
    assert call.amount == call.price
    assert await payment_status(shop, job.payment_id) == "refunded"


async def sold_for_stars(shop: Shop) -> int:
    await shop.rows("UPDATE refund_policies SET without_partial = 'grant' RETURNING id")
    _whole_only(shop)
    shop.provider.on_ask = _fail_two
    _, job = await shop.sold()
    for step in ("submit", "poll", "collect", "finish"):
        await shop.step(step)
    assert await refunds(shop) == []
    return job.payment_id


async def test_by_policy_what_is_missing_is_made_again_for_free(shop: Shop) -> None:
    payment_id = await sold_for_stars(shop)
    assert "ещё раз, бесплатно" in (await messages(shop))[0]
    shop.provider.on_ask = None
    await shop.drain()
    assert await refunds(shop) == []
    jobs = await shop.rows("SELECT status, total_photos FROM generation_jobs ORDER BY id")
    assert [tuple(job.values()) for job in jobs] == [("partial", 7), ("completed", 2)]
    assert await payment_status(shop, payment_id) == "succeeded"


async def test_what_is_made_again_for_free_is_not_replayed_besides(shop: Shop) -> None:
    """The set would settle a second time, and be compensated a second time: a constraint would hold it open."""
    await sold_for_stars(shop)
    shop.provider.on_ask = None
    replays = await replay_letters(shop.darkroom, None, provider=None)
    assert replays.replayed == 0
    await shop.drain()
    statuses = await shop.rows("SELECT status FROM generation_jobs ORDER BY id")
    assert [row["status"] for row in statuses] == ["partial", "completed"]


async def test_what_could_not_be_made_again_either_brings_the_whole_price_back(shop: Shop) -> None:
    payment_id = await sold_for_stars(shop)
    await shop.drain()
    assert await books(shop) == [("compensation_failed", "succeeded", STARTER_MINOR)]
    assert await payment_status(shop, payment_id) == "refunded"


async def test_what_nobody_could_start_again_brings_the_whole_price_back(shop: Shop) -> None:
    """The selfies are gone: the free set waits as long as unused money does."""
    payment_id = await sold_for_stars(shop)
    await shop.rows("UPDATE reference_photos SET deleted_at = darkroom_now() RETURNING id")
    await shop.drain()
    assert await refunds(shop) == []
    await shop.advance(15 * 86_400)
    await shop.drain()
    assert await books(shop) == [("compensation_failed", "succeeded", STARTER_MINOR)]
    assert await payment_status(shop, payment_id) == "refunded"


async def test_an_answer_and_a_notice_at_once_settle_once(shop: Shop) -> None:
    async def pays_and_tells(call: RefundCall) -> RefundAnswer:
        done = shop.bank.pays_back(call)
        await hear(shop, call.payment_id, times=2)
        await asyncio.gather(*(take_due_notices(shop.darkroom) for _ in range(2)))
        return done if len(shop.bank.refund_calls) % 2 else RefundNoAnswer("timeout")

    shop.bank.on_refund = pays_and_tells
    payment_id = await owe_a_share(shop)
    await shop.drain()
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE
