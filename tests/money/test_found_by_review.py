"""What a review with fresh eyes found, each as it went wrong."""

import asyncio

import pytest

from darkroom.core import refunds as core_refunds
from darkroom.core.audit import run_audit
from darkroom.core.differences import close_difference
from darkroom.db.migrate import list_migrations
from darkroom.flow import ask_refunds, pay_back
from darkroom.flow import replay_letters as replaying
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.ask_back import ask_back
from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.flow.ask_refunds import ask_unknown_refunds
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.forget_me import forget_me
from darkroom.flow.pay_back import ask_refund_again, note_paid_by_hand
from darkroom.flow.replay_letters import read_dead_letters, replay_letters
from darkroom.flow.return_unused import return_unused_money
from darkroom.flow.send_refunds import send_due_refunds
from darkroom.flow.take_notices import take_due_notices
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.ports.generation import Again, FailedThere, GenerationRequest
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    PaidState,
    PaymentFact,
    PaymentProviderUnavailableError,
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
from tests.flow.test_replay import granted_with_two_failed
from tests.money.test_outside import books, hear, sold_for_stars
from tests.money.test_sending import (
    FIRST_SHARE,
    STARTER_MINOR,
    fail_one,
    messages,
    owe_a_share,
    payment_status,
    refunds,
)
from tests.scripted import picture_of
from tests.shop import Shop


async def _a_call_that_crawls(shop: Shop) -> int:
    """Our call is on its way for minutes; meanwhile somebody at the bank gives back a little."""
    crawling: list[RefundCall] = []

    async def crawl(call: RefundCall) -> RefundAnswer | None:
        if not crawling:
            crawling.append(call)
            return RefundNoAnswer("timeout")
        # The second call overtakes the first, which arrives right after it.
        answer = shop.bank.pays_back(call)
        shop.bank.pays_back(crawling[0])
        return answer

    shop.bank.on_refund = crawl
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    shop.bank.gives_back(payment_id, 129)
    return payment_id


async def test_a_key_grows_only_after_a_definite_no_whatever_else_moves(shop: Shop) -> None:
    """129 settled a part, the rest became another wish under another key, and both arrived."""
    payment_id = await _a_call_that_crawls(shop)
    await shop.drain()
    await hear(shop, payment_id)
    await shop.drain()
    returned = shop.bank.returned_minor(f"pay-{payment_id}")
    assert returned == FIRST_SHARE + 129, "what was owed, and what somebody gave"
    assert len({call.key for call in shop.bank.refund_calls}) == 1


async def test_twin_a_key_that_grows_for_a_part_pays_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: what may be on its way counts as idle."""

    def never(*_args: object) -> bool:
        return False

    monkeypatch.setattr(ask_refunds, "_may_arrive_by_its_key", never)
    payment_id = await _a_call_that_crawls(shop)
    await shop.drain()
    assert shop.bank.returned_minor(f"pay-{payment_id}") > FIRST_SHARE + 129
    shop.audit_at_end = False


async def test_a_notice_of_a_part_waits_for_a_call_that_may_arrive(shop: Shop) -> None:
    """The same by the other door: the refund stands at `requested`, and its key was sent before."""

    async def lost(_call: RefundCall) -> RefundAnswer:
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = lost
    payment_id = await owe_a_share(shop)
    await send_due_refunds(shop.darkroom)
    await shop.advance(6)
    await ask_unknown_refunds(shop.darkroom)
    assert [row["status"] for row in await refunds(shop)] == ["requested"]
    shop.bank.gives_back(payment_id, FIRST_SHARE)
    await hear(shop, payment_id)
    await take_due_notices(shop.darkroom)
    (waiting,) = [row for row in await refunds(shop) if row["reason"] == "shortfall"]
    assert (waiting["settled_minor"], waiting["key_number"]) == (0, 1)
    shop.bank.on_refund = None
    await shop.drain()


@pytest.mark.parametrize("forever", ["under way", "silent", "unreadable"])
async def test_a_refund_that_goes_round_and_round_is_an_alarm_in_the_end(
    shop: Shop, forever: str
) -> None:
    """Each claim and each move began its stay anew: twenty days, and the audit was clean."""

    async def answer(_call: RefundCall) -> RefundAnswer:
        return RefundUnderWay() if forever == "under way" else RefundNoAnswer("timeout")

    async def unreadable(_money: object) -> None:
        if forever == "unreadable":
            raise PaymentProviderUnavailableError("no answer")

    shop.bank.on_refund = answer
    shop.bank.on_read = unreadable
    await owe_a_share(shop)
    for _ in range(9):
        for step in ("refund", "outcome"):
            await shop.step(step)
        await shop.advance(86_400)
    report = await run_audit(shop.database)
    assert [finding.name for finding in report.findings] == ["stuck"]
    shop.audit_at_end = False


async def test_calls_that_are_never_answered_are_made_less_and_less_often(shop: Shop) -> None:
    """Sixty calls in six minutes, for ever."""

    async def lost(_call: RefundCall) -> RefundAnswer:
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = lost
    await owe_a_share(shop)
    for _ in range(60):
        for step in ("refund", "outcome"):
            await shop.step(step)
        await shop.advance(6)
    assert 2 <= len(shop.bank.refund_calls) <= 10
    shop.bank.on_refund = None
    await shop.drain()


async def test_a_loss_that_a_person_has_explained_is_no_alarm_for_ever(shop: Shop) -> None:
    """A chargeback of the whole price after a partial refund: ordinary in disputes."""
    payment_id = await owe_a_share(shop)
    await shop.drain()
    shop.bank.gives_back(payment_id, STARTER_MINOR, chargeback=True)
    await hear(shop, payment_id)
    await shop.drain()
    found = (await run_audit(shop.database)).findings
    assert [finding.name for finding in found] == ["provider_refund_is_explained"]
    difference_id = await shop.value("SELECT id FROM differences")
    async with shop.database.connection() as tx:
        await close_difference(tx, difference_id, note="lost the dispute")
    assert (await run_audit(shop.database)).clean


async def test_money_back_is_not_forgotten_because_the_bank_was_away(shop: Shop) -> None:
    """Looked at six times in vain, then closed in the round that heard of the money itself."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    shop.bank.gives_back(payment_id, STARTER_MINOR)
    await hear(shop, payment_id)
    shop.bank.silent = True
    for _ in range(10):
        await shop.step("notice")
        await shop.advance(70)
    shop.bank.silent = False
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"


@pytest.mark.parametrize("asked_first", [True, False])
async def test_by_hand_and_asked_again_at_once_one_of_them_pays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, *, asked_first: bool
) -> None:
    """Between reading "failed" and writing "paid by hand" the same refund was sent again."""

    async def refuse(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("closed", "closed")

    shop.bank.on_refund = refuse
    payment_id = await owe_a_share(shop)
    await shop.drain()
    shop.bank.on_refund = None
    (refund,) = await refunds(shop)
    settle, asked = pay_back.settle_by_hand, list[asyncio.Task[object]]()

    async def meanwhile(*args: object, **named: object) -> object:
        if asked_first:
            await ask_refund_again(shop.darkroom, refund["id"])
        result = await settle(*args, **named)  # pyright: ignore[reportArgumentType]
        if not asked_first:
            # It waits for the row, which is written by hand and not yet committed.
            asked.append(asyncio.create_task(ask_refund_again(shop.darkroom, refund["id"])))
            await asyncio.wait(asked, timeout=0.2)
        return result

    monkeypatch.setattr(pay_back, "settle_by_hand", meanwhile)
    by_hand = note_paid_by_hand(shop.darkroom, refund["id"], note="transfer 4711")
    if asked_first:
        with pytest.raises(RequestRefusedError, match="NOT_REFUSED"):
            await by_hand
    else:
        await by_hand
    await asyncio.gather(*asked)
    await shop.drain()
    assert shop.bank.returned_minor(f"pay-{payment_id}") == (FIRST_SHARE if asked_first else 0)
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]


@pytest.mark.parametrize(
    ("odd_id", "amount", "currency"),
    [("x" * 300, FIRST_SHARE, "RUB"), ("nothing", 0, "RUB"), ("foreign", 100, "USD")],
)
async def test_an_odd_line_in_the_books_does_not_hold_up_the_others(
    shop: Shop, odd_id: str, amount: int, currency: str
) -> None:
    async def unheard(call: RefundCall) -> RefundAnswer:
        done = shop.bank.pays_back(call)
        assert isinstance(done, RefundDone)
        facts = shop.bank.returned[call.provider_payment_id]
        if len(odd_id) > 255:
            facts[0] = RefundFact(odd_id, Money(amount, currency), RefundState.DONE, call.key)
        else:
            facts.append(RefundFact(odd_id, Money(amount, currency), RefundState.DONE, None))
        return RefundNoAnswer("timeout")

    shop.bank.on_refund = unheard
    await owe_a_share(shop)
    await shop.drain()
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]
    differing = await shop.rows("SELECT kind FROM differences WHERE kind = 'refund_amount'")
    assert len(differing) == (currency == "USD")


async def test_what_is_refused_because_a_part_went_back_is_sent_for_the_rest(shop: Shop) -> None:
    """The bank's "too much" was taken for its last word, and the customer was told of a refusal."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    shop.bank.gives_back(payment_id, 10_000)
    await ask_back(shop.darkroom, user_id=customer.user_id, payment_id=payment_id)
    await shop.drain()
    assert [call.amount.amount_minor for call in shop.bank.refund_calls] == [STARTER_MINOR, 39_900]
    assert await payment_status(shop, payment_id) == "refunded"
    assert len(await messages(shop)) == 1


async def test_nothing_is_made_again_for_free_when_everything_went_back(shop: Shop) -> None:
    async def fail_two(request: GenerationRequest) -> FailedThere | None:
        failed = request.prompt_index in (0, 6)
        return FailedThere("400", "no", Again.NEVER) if failed else None

    await shop.rows("UPDATE refund_policies SET without_partial = 'grant' RETURNING id")
    shop.bank.refund_forms = RefundForms.WHOLE
    shop.provider.on_ask = fail_two
    _, job = await shop.sold()
    await shop.step("submit")
    shop.bank.gives_back(job.payment_id, STARTER_MINOR, chargeback=True)
    await hear(shop, job.payment_id)
    await shop.drain()
    assert await shop.value("SELECT count(*) FROM payments") == 1
    assert await books(shop) == [("chargeback", "succeeded", STARTER_MINOR)]


async def test_a_reminder_comes_a_day_before_the_money_goes(shop: Shop) -> None:
    """First seen on day 40, it was reminded of and sent back in one round."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer)
    await shop.advance(40 * 86_400)
    for _ in range(3):
        await return_unused_money(shop.darkroom)
    assert await payment_status(shop, payment_id) == "succeeded"
    await shop.advance(86_401)
    await return_unused_money(shop.darkroom)
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"


async def test_looks_in_vain_are_no_tries(shop: Shop) -> None:
    """After an outage of forty looks the first "not now" went to a person."""
    away = [True]

    async def unreadable(_money: object) -> None:
        if away:
            raise PaymentProviderUnavailableError("no answer")

    busy = [RefundRefused("429", "slow down", later=True)]

    async def later(_call: RefundCall) -> RefundAnswer | None:
        return busy.pop() if busy else None

    shop.bank.refund_key_seconds = None
    shop.bank.on_read = unreadable
    shop.bank.on_refund = later
    await owe_a_share(shop)
    for _ in range(40):
        await shop.step("refund")
        await shop.advance(4000)
    away.clear()
    await shop.drain()
    assert await books(shop) == [("shortfall", "succeeded", FIRST_SHARE)]


async def test_leaving_and_money_back_at_once_wait_for_each_other_in_one_order(shop: Shop) -> None:
    """The id given up, payments behind it; the message about money behind the payment: a deadlock."""
    customer = await shop.customer()
    payment_id = await shop.paid(customer, order_style="signature")
    await ask_back(shop.darkroom, user_id=customer.user_id, payment_id=payment_id)
    leaving: list[asyncio.Task[None]] = []

    async def leave(name: str) -> None:
        if name == "refund.before_commit" and not leaving:
            leaving.append(asyncio.create_task(forget_me(shop.darkroom, user_id=customer.user_id)))
            await asyncio.wait(leaving, timeout=0.2)

    with checkpoints_handled_by(leave):
        await send_due_refunds(shop.darkroom)
    await asyncio.gather(*leaving)
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await shop.value(deadlocks) == 0
    await shop.drain()
    assert await payment_status(shop, payment_id) == "refunded"


def _busy_after_one_that_crawls(shop: Shop) -> None:
    """The first call is not answered, the second told to come later; the first arrives beside the third."""
    crawling: list[RefundCall] = []

    async def answer(call: RefundCall) -> RefundAnswer | None:
        crawling.append(call)
        if len(crawling) == 1:
            return RefundNoAnswer("timeout")
        if len(crawling) == 2:
            return RefundRefused("429", "slow down", later=True)
        done = shop.bank.pays_back(call)
        shop.bank.pays_back(crawling[0])
        return done

    shop.bank.on_refund = answer


async def test_not_now_is_no_word_about_the_call_before_it(shop: Shop) -> None:
    """429 to the second call of a key made another key, and the first call arrived as well: paid twice."""
    _busy_after_one_that_crawls(shop)
    payment_id = await owe_a_share(shop)
    await shop.drain()
    await hear(shop, payment_id)
    await shop.drain()
    assert shop.bank.returned_minor(f"pay-{payment_id}") == FIRST_SHARE
    assert {call.key for call in shop.bank.refund_calls} == {shop.bank.refund_calls[0].key}


async def test_twin_a_key_that_grows_after_not_now_pays_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: whether an earlier call under the key may still arrive."""
    monkeypatch.setattr(core_refunds, "CALL_MAY_STILL_ARRIVE", "FALSE")
    _busy_after_one_that_crawls(shop)
    payment_id = await owe_a_share(shop)
    await shop.drain()
    assert shop.bank.returned_minor(f"pay-{payment_id}") == 2 * FIRST_SHARE
    shop.audit_at_end = False


async def test_not_now_for_ever_goes_to_a_person(shop: Shop) -> None:
    """The thirty-first was written down as one more "not now", and went round again, for ever."""

    async def later(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("403", "not today", later=True)

    shop.bank.on_refund = later
    await owe_a_share(shop)
    for _ in range(shop.darkroom.limits.refund_tries_max + 12):
        for step in ("refund", "outcome"):
            await shop.step(step)
        await shop.advance(4000)
    (refund,) = await refunds(shop)
    assert (refund["status"], refund["last_error"]) == ("failed", "403: not today")
    assert len(shop.bank.refund_calls) == shop.darkroom.limits.refund_tries_max + 1


async def _free_set_that_waits(shop: Shop) -> int:
    """Sold where no part can go back; what is missing is to be made again, and cannot begin yet."""
    payment_id = await sold_for_stars(shop)
    shop.provider.on_ask = None
    await shop.rows("UPDATE reference_photos SET deleted_at = darkroom_now() RETURNING id")
    await shop.drain()
    assert await refunds(shop) == []
    return payment_id


async def _all_goes_back_and_a_selfie_comes(shop: Shop, payment_id: int) -> None:
    shop.bank.gives_back(payment_id, STARTER_MINOR, chargeback=True)
    await hear(shop, payment_id)
    await shop.drain()
    avatar_id = await shop.value("SELECT min(id) FROM avatars")
    await add_selfie(shop.darkroom, avatar_id=avatar_id, data=picture_of(7))
    await shop.drain()


async def test_a_free_set_that_waits_is_over_when_all_the_money_goes_back(shop: Shop) -> None:
    """A chargeback took the price back, a new selfie came, and the photos were made as well."""
    payment_id = await _free_set_that_waits(shop)
    await _all_goes_back_and_a_selfie_comes(shop, payment_id)
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
    assert (
        await shop.rows("SELECT status FROM payments ORDER BY id") == [{"status": "refunded"}] * 2
    )


async def test_a_free_set_that_waits_is_over_when_its_own_photos_are_paid_back(shop: Shop) -> None:
    """A chargeback of a part pays for what was not delivered first: that is what the free set was for."""
    payment_id = await _free_set_that_waits(shop)
    first, second = (
        row["share_minor"]
        for row in await shop.rows("SELECT share_minor FROM kie_tasks WHERE status = 'failed'")
    )
    for minor, free in ((first, "succeeded"), (second, "refunded")):
        shop.bank.gives_back(payment_id, minor, chargeback=True)
        await hear(shop, payment_id, f"back-{free}")
        await take_due_notices(shop.darkroom)
        assert await shop.value("SELECT status FROM payments WHERE compensates IS NOT NULL") == free
    assert await payment_status(shop, payment_id) == "partially_refunded"


async def test_a_free_set_whose_money_went_back_before_this_version_is_closed_by_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> bool:
        return False

    payment_id = await _free_set_that_waits(shop)
    with monkeypatch.context() as before:
        before.setattr(core_refunds, "close_compensation_of", never)
        shop.bank.gives_back(payment_id, STARTER_MINOR, chargeback=True)
        await hear(shop, payment_id)
        await shop.drain()
    free = "SELECT status FROM payments WHERE compensates IS NOT NULL"
    assert await shop.value(free) == "succeeded"
    (migration,) = [one.sql for one in list_migrations() if one.version == 54]
    async with shop.database.connection() as tx:
        await tx.execute(migration[migration.index("UPDATE payments free") :].encode())
    assert await shop.value(free) == "refunded"


async def test_twin_a_free_set_that_nobody_closes_is_made_besides(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(core_refunds, "close_compensation_of", never)
    payment_id = await _free_set_that_waits(shop)
    await _all_goes_back_and_a_selfie_comes(shop, payment_id)
    assert await shop.value("SELECT count(*) FROM generation_jobs") == 2
    shop.audit_at_end = False


async def test_a_free_set_that_failed_is_not_replayed_after_its_money_went_back(shop: Shop) -> None:
    """Its photos have no share of their own, so no line stood in the way: money and photos both."""
    await sold_for_stars(shop)
    await shop.drain()
    assert [row["reason"] for row in await refunds(shop)] == ["compensation_failed"]
    shop.provider.on_ask = None
    assert not [one for one in await read_dead_letters(shop.darkroom) if one.replayable]
    for letter in await read_dead_letters(shop.darkroom):
        replays = await replay_letters(shop.darkroom, letter.id, provider=None)
        assert replays.replayed == 0
    await shop.drain()


@pytest.mark.parametrize("told", ["another amount", "another page"])
async def test_a_payment_that_its_bank_will_never_settle_comes_to_an_end(
    shop: Shop, told: str
) -> None:
    """Asked about every ten minutes for ever, its avatar busy and its customer never forgotten."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    theirs = f"pay-{payment_id}"
    fact = (
        PaymentFact(payment_id, theirs, PaidState.PAID, Money(1, "RUB"))
        if told == "another amount"
        else PaymentFact(payment_id, "another", PaidState.CANCELED, Money(STARTER_MINOR, "RUB"))
    )
    shop.bank.facts[payment_id] = fact
    for _ in range(4):
        await ask_silent_payments(shop.darkroom)
        await take_due_notices(shop.darkroom)
        await shop.advance(86_400)
    assert await payment_status(shop, payment_id) == "expired"
    assert (await run_audit(shop.database)).clean
    await forget_me(shop.darkroom, user_id=customer.user_id)
    for _ in range(3):
        await shop.drain()
        await shop.advance(3600)
    assert await shop.value(
        "SELECT forgotten_at IS NOT NULL FROM users WHERE id = %s", customer.user_id
    )


async def test_money_that_came_while_the_inbox_stood_still_starts_its_order(shop: Shop) -> None:
    """What the bank said and nobody has acted on yet is no reason to give the order up."""
    payment_id = await shop.ordered(await shop.customer(), order_style="signature")
    shop.bank.facts[payment_id] = PaymentFact(
        payment_id, f"pay-{payment_id}", PaidState.PAID, Money(STARTER_MINOR, "RUB")
    )
    for _ in range(3):
        await shop.advance(86_400)
        await ask_silent_payments(shop.darkroom)
    await take_due_notices(shop.darkroom)
    assert await shop.value("SELECT generation_consumed FROM payments")
    await shop.drain()


async def test_a_set_that_is_replayed_late_is_not_called_stuck(shop: Shop) -> None:
    """Its job is hours old by then, and has a new deadline."""
    await granted_with_two_failed(shop)
    await shop.advance(3 * 3600)
    shop.provider.on_ask = None
    assert (await replay_letters(shop.darkroom, None, provider=None)).replayed == 2
    assert (await run_audit(shop.database)).clean
    await shop.drain()


async def test_what_was_paid_back_does_not_hide_what_can_be_replayed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of letters whose money had gone back was all that anybody saw, and all that "replay" looked at."""
    monkeypatch.setattr(replaying, "LIST_MAX", 2)
    shop.provider.on_ask = fail_one
    for _ in range(2):
        await shop.sold()
    await shop.drain()
    await granted_with_two_failed(shop)
    shop.provider.on_ask = None
    # The third says that there are more.
    letters = await read_dead_letters(shop.darkroom)
    assert [one.replayable for one in letters] == [True, True, False]
    assert (await replay_letters(shop.darkroom, None, provider=None)).replayed == 2
    await shop.drain()
