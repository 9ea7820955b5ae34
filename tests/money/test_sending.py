"""A refund goes out once, whatever the bank answers, and whoever dies in between."""

import asyncio
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

import pytest

from darkroom.flow import send_refunds
from darkroom.flow.ask_refunds import ask_unknown_refunds
from darkroom.flow.pay_back import (
    GoodwillRequest,
    ask_refund_again,
    note_paid_by_hand,
    pay_back,
    read_open_refunds,
)
from darkroom.flow.send_refunds import send_due_refunds
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    PaymentMoney,
    RefundAnswer,
    RefundCall,
    RefundFact,
    RefundForms,
    RefundNoAnswer,
    RefundRefused,
    RefundState,
    RefundUnderWay,
)
from tests.shop import Shop

STARTER_MINOR: Final = 49_900
FIRST_SHARE: Final = 7129


async def fail_one(request: GenerationRequest) -> FailedThere | None:
    """The first photo of a set fails for good."""
    if request.prompt_index == 0:
        return FailedThere("400", "against the rules", Again.NEVER)
    return None


async def owe_a_share(shop: Shop) -> int:
    """A paid set with one failed photo, settled; its refund is requested. The payment's id."""
    shop.provider.on_ask = fail_one
    _, job = await shop.sold()
    for step in ("notice", "submit", "poll", "collect", "finish"):
        await shop.step(step)
    assert [row["status"] for row in await refunds(shop)] == ["requested"]
    return job.payment_id


async def refunds(shop: Shop) -> list[dict[str, Any]]:
    """Every refund, oldest first."""
    return await shop.rows("SELECT * FROM refunds ORDER BY id")


async def payment_status(shop: Shop, payment_id: int) -> str:
    """How a payment stands."""
    return await shop.value("SELECT status FROM payments WHERE id = %s", payment_id)


async def messages(shop: Shop) -> list[str]:
    """What customers were told, in Russian."""
    rows = await shop.rows("SELECT text_ru FROM customer_messages ORDER BY id")
    return [row["text_ru"] for row in rows]


async def test_a_share_goes_back_and_the_customer_is_told_afterwards(shop: Shop) -> None:
    """bugbook D5, bugbook D6: the text said "refund issued" before anybody had asked the bank."""
    payment_id = await owe_a_share(shop)
    assert await messages(shop) == []
    await shop.drain()
    (refund,) = await refunds(shop)
    assert (refund["status"], refund["settled_minor"]) == ("succeeded", FIRST_SHARE)
    assert await payment_status(shop, payment_id) == "partially_refunded"
    (call,) = shop.bank.refund_calls
    assert (call.key, call.amount) == (f"{refund['id']}-1", Money(FIRST_SHARE, "RUB"))
    assert (call.price, call.photo_count) == (Money(STARTER_MINOR, "RUB"), 1)
    (told,) = await messages(shop)
    assert told.startswith(f"Мы вернули 71,29 ₽ по заказу № {payment_id} тем же способом")
    assert told.endswith("Это за 1 фотографию, которая не получилась.")


async def test_the_whole_price_makes_the_payment_refunded(shop: Shop) -> None:
    async def fail_all(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "no", Again.NEVER)

    shop.provider.on_ask = fail_all
    _, job = await shop.sold()
    await shop.drain()
    assert await payment_status(shop, job.payment_id) == "refunded"
    assert shop.bank.returned_minor(f"pay-{job.payment_id}") == STARTER_MINOR


async def test_an_answer_that_was_lost_is_asked_about_and_never_sent_again(shop: Shop) -> None:
    """bugbook D3, bugbook D4: the bank had paid, our side said failed, and the retry paid again."""

    async def pays_and_is_not_heard(call: RefundCall) -> RefundAnswer:
        shop.bank.pays_back(call)
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = pays_and_is_not_heard
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    assert [row["status"] for row in await refunds(shop)] == ["unknown"]
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]
    assert len(shop.bank.refund_calls) == 1
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE
    attempts = await shop.rows("SELECT answer, key FROM refund_attempts")
    assert [row["answer"] for row in attempts] == ["no_answer"]


async def test_what_never_happened_is_sent_again_under_the_same_key(shop: Shop) -> None:
    lost = ["lost"]

    async def never_arrives(_call: RefundCall) -> RefundAnswer | None:
        return RefundNoAnswer(lost.pop()) if lost else None

    shop.bank.on_refund = never_arrives
    await owe_a_share(shop)
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]
    assert len({call.key for call in shop.bank.refund_calls}) == 1
    assert len(shop.bank.refund_calls) == 2


async def test_a_definite_no_goes_to_a_person_with_the_evidence(shop: Shop) -> None:
    """bugbook D4, bugbook D5: and the same row can be asked again, under a new key."""
    refusals = [RefundRefused("account_closed", "the card's account is closed")]

    async def refuse(_call: RefundCall) -> RefundAnswer | None:
        return refusals.pop() if refusals else None

    shop.bank.on_refund = refuse
    payment_id = await owe_a_share(shop)
    await shop.drain()
    (open_refund,) = await read_open_refunds(shop.darkroom)
    assert (open_refund.status, open_refund.calls) == ("failed", 1)
    assert open_refund.last_error == "account_closed: the card's account is closed"
    assert "банк отказал" in (await messages(shop))[0]
    assert await payment_status(shop, payment_id) == "succeeded"
    await asyncio.gather(*(ask_refund_again(shop.darkroom, open_refund.id) for _ in range(3)))
    await shop.drain()
    (refund,) = await refunds(shop)
    assert (refund["status"], refund["key_number"]) == ("succeeded", 2)
    assert [call.key for call in shop.bank.refund_calls] == [
        f"{refund['id']}-1",
        f"{refund['id']}-2",
    ]
    assert len(await messages(shop)) == 2


async def test_what_was_refused_can_be_paid_by_hand_once(shop: Shop) -> None:
    async def refuse(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("account_closed", "closed")

    shop.bank.on_refund = refuse
    payment_id = await owe_a_share(shop)
    await shop.drain()
    (refund,) = await refunds(shop)
    for _ in range(2):
        done = await note_paid_by_hand(shop.darkroom, refund["id"], note="transfer 4711")
        assert done.status == "succeeded"
    assert await payment_status(shop, payment_id) == "partially_refunded"
    assert "переводом" in (await messages(shop))[-1]


async def test_not_now_is_sent_again_later_with_a_new_key(shop: Shop) -> None:
    busy = [RefundRefused("429", "slow down", later=True)] * 3

    async def later(_call: RefundCall) -> RefundAnswer | None:
        return busy.pop() if busy else None

    shop.bank.on_refund = later
    await owe_a_share(shop)
    await shop.drain()
    (refund,) = await refunds(shop)
    assert (refund["status"], refund["key_number"]) == ("succeeded", 4)


async def test_a_refund_that_is_under_way_is_waited_for(shop: Shop) -> None:
    """SBP and Stripe: accepted now, done in an hour or in days."""

    async def accepts(call: RefundCall) -> RefundAnswer:
        shop.bank.returned[call.provider_payment_id] = [
            RefundFact("slow", call.amount, RefundState.UNDER_WAY, call.key)
        ]
        return RefundUnderWay()

    shop.bank.on_refund = accepts
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    for _ in range(5):
        await shop.advance(4000)
        await ask_unknown_refunds(shop.darkroom)
    assert [row["status"] for row in await refunds(shop)] == ["unknown"]
    assert len(shop.bank.refund_calls) == 1
    books = shop.bank.returned[f"pay-{payment_id}"]
    books[0] = RefundFact("slow", books[0].amount, RefundState.DONE, books[0].key)
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]


async def test_one_that_its_books_refuse_afterwards_goes_to_a_person(shop: Shop) -> None:
    async def accepts(call: RefundCall) -> RefundAnswer:
        shop.bank.returned[call.provider_payment_id] = [
            RefundFact("slow", call.amount, RefundState.REFUSED, call.key)
        ]
        return RefundUnderWay()

    shop.bank.on_refund = accepts
    await owe_a_share(shop)
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["failed"]


async def test_past_the_keys_life_its_books_are_read_before_it_is_sent(shop: Shop) -> None:
    """A key older than the provider's memory is a new refund there (external-apis 5, peers A4)."""

    async def pays_unheard_and_forgets(call: RefundCall) -> RefundAnswer:
        shop.bank.pays_back(call)
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = pays_unheard_and_forgets
    shop.bank.refund_key_seconds = 86_400
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    # As an operator's restored backup, or a clock, might leave it: to be sent again, two days later.
    await shop.rows("UPDATE refunds SET status = 'requested' RETURNING id")
    await shop.advance(2 * 86_400)
    shop.bank.on_refund = None
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]
    assert len(shop.bank.refund_calls) == 1
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE


async def _lose_the_first_answer(shop: Shop) -> int:
    """A bank without keys that pays, and is not heard; what it would pay twice is counted."""
    lost = ["lost"]

    async def pays_unheard(call: RefundCall) -> RefundAnswer | None:
        if not lost:
            return None
        lost.pop()
        shop.bank.pays_back(call)
        return RefundNoAnswer("timeout")

    shop.bank.refund_key_seconds = None
    shop.bank.on_refund = pays_unheard
    return await owe_a_share(shop)


async def test_without_keys_its_books_are_read_first_and_waited_for(shop: Shop) -> None:
    """T-Bank by SBP, Stars: one call at a time, and never a second one on a guess."""
    payment_id = await _lose_the_first_answer(shop)
    reads: list[int] = []

    async def on_read(money: PaymentMoney) -> None:
        reads.append(len(shop.bank.refund_calls))
        assert money.price == Money(STARTER_MINOR, "RUB")

    shop.bank.on_read = on_read
    await shop.drain()
    assert reads[0] == 0, "read before the first call"
    assert len(shop.bank.refund_calls) == 1
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE


async def test_without_keys_a_call_that_is_not_in_the_books_is_waited_for(shop: Shop) -> None:
    """It may still be on its way: sent again before the grace is over, both would arrive."""
    late: list[RefundCall] = []

    async def crawls(call: RefundCall) -> RefundAnswer | None:
        if late:
            return None
        late.append(call)
        return RefundNoAnswer("timeout")

    shop.bank.refund_key_seconds = None
    shop.bank.on_refund = crawls
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    for _ in range(6):
        await shop.advance(60)
        await ask_unknown_refunds(shop.darkroom)
        await send_due_refunds(shop.darkroom)
    assert len(shop.bank.refund_calls) == 1
    shop.bank.pays_back(late[0])
    await shop.drain()
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE


async def test_twin_without_reading_first_a_keyless_bank_pays_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed."""
    payment_id = await _lose_the_first_answer(shop)

    def never(*_args: object) -> bool:
        return False

    monkeypatch.setattr(send_refunds, "_must_be_read_first", never)
    await send_due_refunds(shop.darkroom)
    await shop.rows("UPDATE refunds SET status = 'requested', due_at = darkroom_now() RETURNING id")
    await send_due_refunds(shop.darkroom)
    assert shop.bank.returned_minor(f"pay-{payment_id}") == 2 * FIRST_SHARE
    shop.audit_at_end = False


async def test_already_refunded_is_success_once_the_books_say_so(shop: Shop) -> None:
    """Stars answer CHARGE_ALREADY_REFUNDED although the refund had just been made (peers A4)."""

    async def fail_all(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "no", Again.NEVER)

    async def pays_unheard(call: RefundCall) -> RefundAnswer:
        shop.bank.pays_back(call)
        return shop.bank.pays_back(call)

    shop.bank.refund_key_seconds = None
    shop.bank.on_refund = pays_unheard
    shop.provider.on_ask = fail_all
    _, job = await shop.sold()
    await shop.drain()
    (refund,) = await refunds(shop)
    assert refund["status"] == "succeeded"
    answers = await shop.rows("SELECT answer FROM refund_attempts")
    assert [row["answer"] for row in answers] == ["already"]
    assert await payment_status(shop, job.payment_id) == "refunded"


@pytest.mark.parametrize("forms", [RefundForms.WHOLE, RefundForms.NONE])
async def test_what_a_provider_cannot_do_stands_on_a_persons_list(
    shop: Shop, forms: RefundForms
) -> None:
    """bugbook D7: TON said "success", recorded nothing, and nobody knew."""
    await owe_a_share(shop)
    shop.bank.refund_forms = forms
    await shop.drain()
    (refund,) = await read_open_refunds(shop.darkroom)
    assert refund.status == "failed"
    assert "by hand" in (refund.last_error or "")
    assert shop.bank.refund_calls == []


async def test_money_goes_back_by_the_way_it_came_or_waits(shop: Shop) -> None:
    """bugbook D16: a production payment was refunded at the test terminal."""
    await owe_a_share(shop)
    payments = dict(shop.darkroom.payments)
    other = payments.pop("bank")
    object.__setattr__(shop.darkroom, "payments", {"other": other})
    for _ in range(3):
        assert await send_due_refunds(shop.darkroom) == 0
        await shop.advance(100)
    assert shop.bank.refund_calls == []
    object.__setattr__(shop.darkroom, "payments", {"bank": other})
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]


async def test_many_workers_send_one_refund_once(shop: Shop) -> None:
    """bugbook C2, bugbook D2: two pollers refunded twice."""
    payment_id = await owe_a_share(shop)
    await asyncio.gather(*(send_due_refunds(shop.darkroom) for _ in range(10)))
    assert len(shop.bank.refund_calls) == 1
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE


@pytest.mark.parametrize("place", ["refund.before_call", "refund.after_call", "refund.claimed"])
async def test_a_worker_that_dies_leaves_a_refund_that_is_asked_about(
    shop: Shop, place: str
) -> None:
    """bugbook C21, bugbook D3: "processing" for ever, or refunded again."""
    payment_id = await owe_a_share(shop)

    async def die(name: str) -> None:
        if name == place:
            raise asyncio.CancelledError

    with checkpoints_handled_by(die), suppress(asyncio.CancelledError):
        await send_due_refunds(shop.darkroom)
    assert [row["status"] for row in await refunds(shop)] == ["sending"]
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"]
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE


async def test_two_refunds_of_one_payment_go_one_after_the_other(shop: Shop) -> None:
    """bugbook D1, bugbook D11: lines of their own, never more than was paid, in one order."""
    payment_id = await owe_a_share(shop)
    wish = GoodwillRequest(payment_id, 1000, "sorry", uuid4())
    await asyncio.gather(*(pay_back(shop.darkroom, wish) for _ in range(3)))
    await asyncio.gather(*(send_due_refunds(shop.darkroom) for _ in range(5)))
    assert len(shop.bank.refund_calls) == 1, "one in flight at a time"
    await shop.drain()
    assert [row["status"] for row in await refunds(shop)] == ["succeeded"] * 2
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE + 1000
