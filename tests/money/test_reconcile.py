"""Our ledger against the bank's own list: each difference is a row, none is mended, what is gone is closed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.core import ledger
from darkroom.core.audit import run_audit
from darkroom.core.reconciliations import DayClaim, claim_day
from darkroom.db.database import Database
from darkroom.edges.books import difference_table
from darkroom.edges.serve import listen_on_free_port
from darkroom.edges.terminal import console
from darkroom.flow import reconcile as reconcile_flow
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.reconcile import (
    DIFFERENCES_OPEN,
    GRACE_SECONDS,
    UNREAD_DAYS,
    Look,
    Progress,
    Reconciled,
    close_by_hand,
    read_differences,
    reconcile,
    reconcile_today,
)
from darkroom.ports.money import Money
from darkroom.ports.payments import (
    LedgerLine,
    LedgerPage,
    PaymentFact,
    PaymentProviderUnavailableError,
    RefundFact,
    RefundState,
)
from darkroom.twin import bank as bank_module
from darkroom.twin.bank import SandboxBank
from darkroom.twin.loopback import loopback
from tests.flow.test_bucket import logged
from tests.money.test_sending import FIRST_SHARE, STARTER_MINOR, owe_a_share
from tests.shop import Customer, Shop

DAY = 86_400


async def look(shop: Shop, days: int = 7) -> Reconciled:
    """A look at the bank's list. What happened in the test is old enough to be judged."""
    await shop.advance(GRACE_SECONDS + 1)
    return await reconcile(shop.darkroom, "bank", Look(days=days))


async def rows(shop: Shop) -> list[tuple[Any, ...]]:
    """Open differences: (kind, subject, payment, ours, theirs)."""
    return [
        (row["kind"], row["subject"], row["payment_id"], row["ours_minor"], row["theirs_minor"])
        for row in await shop.rows("SELECT * FROM differences WHERE closed_at IS NULL ORDER BY id")
    ]


async def closed(shop: Shop) -> list[tuple[str, str]]:
    """Closed ones: (kind, note)."""
    return [
        (row["kind"], row["note"])
        for row in await shop.rows(
            "SELECT kind, note FROM differences WHERE closed_at IS NOT NULL ORDER BY id"
        )
    ]


async def everything_else(shop: Shop) -> list[dict[str, Any]]:
    """Every row that a look must leave as it is."""
    return await shop.rows(
        "SELECT to_jsonb(p) AS row FROM payments p UNION ALL SELECT to_jsonb(r) FROM refunds r "
        "UNION ALL SELECT to_jsonb(b) FROM provider_refunds b UNION ALL SELECT to_jsonb(m) FROM move_log m "
        "UNION ALL SELECT to_jsonb(i) FROM inbox i ORDER BY 1"
    )


async def bought(shop: Shop) -> int:
    """A payment that the bank and we agree about."""
    payment_id = await shop.ordered(await shop.customer())
    shop.bank.pays(payment_id)
    await shop.notify(payment_id, event=f"paid-{payment_id}")
    await shop.step("notice")
    return payment_id


async def test_where_both_say_the_same_nothing_differs(shop: Shop) -> None:
    """A set with a share paid back, and an unused payment: each line has its row and each row its line."""
    payment_id = await owe_a_share(shop)
    shop.bank.pays(payment_id)
    await bought(shop)
    await shop.drain()
    done = await look(shop)
    assert (done.clean, done.lines, done.found, done.open) == (True, 3, 0, 0)
    assert await rows(shop) == []


async def test_money_we_never_heard_of(shop: Shop) -> None:
    await bought(shop)
    stranger = shop.bank.facts[1]
    shop.bank.facts[77] = replace(stranger, payment_id=77, provider_payment_id="pay-of-a-stranger")
    done = await look(shop)
    assert not done.clean
    assert await rows(shop) == [("unknown_payment", "pay-of-a-stranger", None, None, STARTER_MINOR)]
    # And money that went back of it.
    shop.bank.gives_back(77, 100)
    await look(shop)
    assert [row[:3] for row in await rows(shop)] == [
        ("unknown_payment", "pay-of-a-stranger", None),
        ("unknown_payment", "ref-pay-of-a-stranger-1", None),
    ]


async def test_an_id_that_is_no_id_of_ours_is_an_unknown_payment(shop: Shop) -> None:
    """Whoever types an order number at the bank may type anything."""
    for number, odd in enumerate((2**63, 0, -1), start=1):
        shop.bank.facts[number] = replace(
            shop.bank.facts.get(1) or await _fact(shop),
            payment_id=odd,
            provider_payment_id=f"odd-{odd}",
        )
    await look(shop)
    assert {row[0] for row in await rows(shop)} == {"unknown_payment"}
    assert len(await rows(shop)) == 3


async def test_a_line_that_no_column_takes_stops_no_look(shop: Shop) -> None:
    """The page was undone by it, the day was never finished, and nothing was ever found missing."""
    missing = await shop.paid(await shop.customer())
    good = await _fact(shop)
    huge = Money(2**63, "RUB")
    for number, odd in enumerate(("", "nul\0in it", "half \ud800", "x" * 300), start=50):
        shop.bank.facts[number] = replace(
            good, payment_id=number, provider_payment_id=odd, price=huge
        )
    shop.bank.returned["nul\0in it"] = [RefundFact("", huge, RefundState.DONE, None)]
    done = await look(shop)
    assert done.failure is None
    subjects = {row[1] for row in await rows(shop)}
    assert {"(none)", "nul?in it", "half ?", "x" * 255, f"pay-{missing}"} <= subjects
    assert await shop.value("SELECT max(theirs_minor) FROM differences") == 2**63 - 1


async def test_a_refund_whose_id_is_too_long_for_a_column_is_found_again(shop: Shop) -> None:
    """It is kept by its hash, and was looked for by itself."""
    payment_id = await bought(shop)
    long = "r" * 300
    shop.bank.gives_back(payment_id, STARTER_MINOR)
    (fact,) = shop.bank.returned[f"pay-{payment_id}"]
    shop.bank.returned[f"pay-{payment_id}"] = [replace(fact, provider_refund_id=long)]
    await shop.notify(payment_id, "money_back", "back")
    await shop.drain()
    assert await shop.value("SELECT status FROM payments") == "refunded"
    assert (await look(shop)).clean


async def _fact(shop: Shop) -> PaymentFact:
    payment_id = await shop.ordered(await shop.customer())
    shop.bank.pays(payment_id)
    return shop.bank.facts[payment_id]


async def test_money_whose_notice_never_came(shop: Shop) -> None:
    payment_id = await shop.ordered(await shop.customer())
    shop.bank.pays(payment_id)
    await look(shop)
    wanted = ("payment_not_ours_yet", f"pay-{payment_id}", payment_id, None, STARTER_MINOR)
    assert await rows(shop) == [wanted]
    # The notice comes after all: ours now, and the next look closes what this one found.
    await shop.notify(payment_id)
    await shop.step("notice")
    done = await look(shop)
    assert (done.clean, done.closed) == (True, 1)
    assert await closed(shop) == [("payment_not_ours_yet", "gone at a later look")]


async def test_the_second_money_for_an_order_is_not_ours_yet(shop: Shop) -> None:
    """The bank's own id is new to us, the order that it names is not."""
    payment_id = await bought(shop)
    shop.bank.facts[99] = replace(shop.bank.facts[payment_id], provider_payment_id="pay-again")
    await look(shop)
    assert await rows(shop) == [
        ("payment_not_ours_yet", "pay-again", payment_id, None, STARTER_MINOR)
    ]


async def test_two_equal_amounts_in_two_currencies_are_shown_as_what_they_are(shop: Shop) -> None:
    """Both were shown in theirs, so a person read twice the same and wondered."""
    payment_id = await bought(shop)
    theirs = Money(STARTER_MINOR, "EUR")
    shop.bank.facts[payment_id] = replace(shop.bank.facts[payment_id], price=theirs)
    await look(shop)
    (difference,) = await read_differences(shop.darkroom)
    assert (difference.ours_currency, difference.currency) == ("RUB", "EUR")
    with console.capture() as shown:
        console.print(difference_table([difference]))
    assert "499.00 RUB" in shown.get()
    assert "499.00 EUR" in shown.get()


@pytest.mark.parametrize("price", [Money(STARTER_MINOR - 1, "RUB"), Money(STARTER_MINOR, "EUR")])
async def test_another_price_or_currency(shop: Shop, price: Money) -> None:
    payment_id = await bought(shop)
    shop.bank.facts[payment_id] = replace(shop.bank.facts[payment_id], price=price)
    await look(shop)
    assert await rows(shop) == [
        ("price_mismatch", f"pay-{payment_id}", payment_id, STARTER_MINOR, price.amount_minor)
    ]


async def test_a_payment_that_the_bank_does_not_list(shop: Shop) -> None:
    payment_id = await shop.paid(await shop.customer())
    await look(shop)
    assert await rows(shop) == [
        ("payment_missing_there", f"pay-{payment_id}", payment_id, STARTER_MINOR, None)
    ]
    # Grants are nobody's money, and another provider's list says nothing of this one.
    assert await shop.value("SELECT count(*) FROM differences") == 1


async def test_money_back_that_we_do_not_know_of(shop: Shop) -> None:
    payment_id = await bought(shop)
    shop.bank.gives_back(payment_id, 500)
    await look(shop)
    assert await rows(shop) == [
        ("refund_not_ours_yet", f"ref-pay-{payment_id}-1", payment_id, None, 500)
    ]
    await shop.notify(payment_id, "money_back", "back")
    await shop.drain()
    assert (await look(shop)).clean
    assert [kind for kind, _ in await closed(shop)] == ["refund_not_ours_yet"]


async def test_money_back_that_the_bank_does_not_list_or_lists_otherwise(shop: Shop) -> None:
    payment_id = await owe_a_share(shop)
    shop.bank.pays(payment_id)
    await shop.drain()
    theirs = shop.bank.returned.pop(f"pay-{payment_id}")
    await look(shop)
    subject = f"ref-pay-{payment_id}-1"
    assert await rows(shop) == [("refund_missing_there", subject, payment_id, FIRST_SHARE, None)]
    shop.bank.returned[f"pay-{payment_id}"] = [replace(theirs[0], amount=Money(1, "RUB"))]
    await look(shop)
    assert await rows(shop) == [("refund_amount", subject, payment_id, FIRST_SHARE, 1)]
    assert [kind for kind, _ in await closed(shop)] == ["refund_missing_there"]
    shop.bank.returned[f"pay-{payment_id}"] = theirs
    assert (await look(shop)).clean


async def test_what_is_under_way_is_in_nobodys_ledger(shop: Shop) -> None:
    payment_id = await bought(shop)
    shop.bank.returned[f"pay-{payment_id}"] = [
        RefundFact("slow", Money(1, "RUB"), RefundState.UNDER_WAY, None)
    ]
    assert (await look(shop)).clean


async def test_a_look_repeated_writes_no_second_row_and_mends_nothing(shop: Shop) -> None:
    payment_id = await bought(shop)
    shop.bank.gives_back(payment_id, 500)
    await shop.paid(await shop.customer())
    await shop.advance(GRACE_SECONDS + 1)
    before = await everything_else(shop)
    seen: list[Any] = []
    for _ in range(3):
        await reconcile(shop.darkroom, "bank", Look())
        seen.append(await shop.value("SELECT max(last_seen_at) FROM differences"))
    await asyncio.gather(*(reconcile(shop.darkroom, "bank", Look()) for _ in range(4)))
    assert len(await rows(shop)) == 2
    assert await shop.value("SELECT count(*) FROM differences") == 2
    assert seen == sorted(set(seen))
    assert await everything_else(shop) == before
    report = await run_audit(shop.database)
    assert report.clean, report.findings


async def test_what_is_young_is_not_judged_yet(shop: Shop) -> None:
    """Their notice may be on its way to us, and their list may not hold yet what they told us."""
    young = await shop.paid(await shop.customer())
    now = await shop.value("SELECT darkroom_now()")
    line = LedgerLine("pay-young", None, None, Money(1, "RUB"), now)

    async def list_it(_lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        return LedgerPage((line,), None)

    shop.bank.on_ledger = list_it
    assert (await reconcile(shop.darkroom, "bank", Look())).clean
    done = await reconcile(shop.darkroom, "bank", Look(grace_seconds=0))
    assert done.found == 2
    assert {row[1] for row in await rows(shop)} == {"pay-young", f"pay-{young}"}


async def test_clocks_that_differ_a_little_make_no_difference(shop: Shop) -> None:
    """Our row is just old enough to be judged, its line by their clock is not; and the other way round."""
    payment_id = await bought(shop)
    fact = shop.bank.facts[payment_id]
    at = await shop.value("SELECT succeeded_at FROM payments WHERE id = %s", payment_id)
    for skew in (-ledger.CLOCK_SECONDS + 1, ledger.CLOCK_SECONDS - 1):
        line = LedgerLine(
            fact.provider_payment_id, payment_id, None, fact.price, at + timedelta(seconds=skew)
        )

        async def list_it(
            _lines: list[LedgerLine], _cursor: str | None, line: LedgerLine = line
        ) -> LedgerPage:
            return LedgerPage((line,), None)

        shop.bank.on_ledger = list_it
        assert (await reconcile(shop.darkroom, "bank", Look(grace_seconds=0))).clean
    # The bank is asked for as much: what it lists by its own clock is in what we read.
    async with shop.database.connection() as tx:
        span = await ledger.open_span(tx, provider="bank", days=7, grace_seconds=0)
    assert span.read_from <= span.since - timedelta(seconds=ledger.CLOCK_SECONDS)
    assert span.read_until >= span.until + timedelta(seconds=ledger.CLOCK_SECONDS)


async def test_news_that_came_late_is_looked_for_where_the_money_moved(shop: Shop) -> None:
    """Ordered and paid three days ago, heard of today: a look of one day must not call it missing."""
    payment_id = await shop.ordered(await shop.customer())
    ordered_at = await shop.value("SELECT created_at FROM payments WHERE id = %s", payment_id)
    shop.bank.pays(payment_id)
    await shop.advance(3 * DAY)
    await shop.notify(payment_id)
    await shop.step("notice")
    await shop.advance(GRACE_SECONDS + 1)
    async with shop.database.connection() as tx:
        span = await ledger.open_span(tx, provider="bank", days=1, grace_seconds=GRACE_SECONDS)
    assert span.read_from <= ordered_at < span.since


async def test_what_may_have_moved_before_its_list_was_read_is_not_called_missing(
    shop: Shop,
) -> None:
    """Somebody at the bank gave money back of a set two months old: when, we cannot know."""
    _, job = await shop.sold()
    payment_id = job.payment_id
    shop.bank.pays(payment_id)
    await shop.drain()
    await shop.advance(60 * DAY)
    shop.bank.gives_back(payment_id, 500)
    await shop.notify(payment_id, "money_back", "back")
    await shop.drain()

    async def without_it(lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        return LedgerPage(tuple(line for line in lines if line.provider_refund_id is None), None)

    shop.bank.on_ledger = without_it
    assert (await look(shop)).clean
    # A list that is read back to the order would hold it.
    done = await look(shop, days=40)
    assert done.found == 1
    assert [row[0] for row in await rows(shop)] == ["refund_missing_there"]
    # And a shorter one that cannot tell does not say that it is gone.
    assert (await look(shop)).open == 1


async def test_what_another_look_has_just_seen_is_not_closed(shop: Shop) -> None:
    """A slow look read its page before the line was there; a quick one beside it saw the line."""
    payment_id = await shop.ordered(await shop.customer())
    quick: list[Reconciled] = []

    async def slow(lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        before = tuple(lines)
        shop.bank.pays(payment_id)
        shop.bank.on_ledger = None
        quick.append(await reconcile(shop.darkroom, "bank", Look()))
        return LedgerPage(before, None)

    shop.bank.on_ledger = slow
    done = await look(shop)
    assert [one.found for one in quick] == [1]
    assert (done.found, done.closed, done.open) == (0, 0, 1)


async def test_only_what_a_look_judged_is_closed(shop: Shop) -> None:
    payment_id = await shop.ordered(await shop.customer())
    shop.bank.pays(payment_id)
    missing = await shop.paid(await shop.customer())
    await look(shop)
    assert {row[0] for row in await rows(shop)} == {"payment_not_ours_yet", "payment_missing_there"}
    # Ten days later neither stands in a span of seven days, and the list of those days is empty.
    await shop.advance(10 * DAY)

    async def nothing(_lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        return LedgerPage((), None)

    shop.bank.on_ledger = nothing
    done = await look(shop)
    assert (done.found, done.closed, done.open, done.clean) == (0, 0, 2, False)
    # A span that covers them looks again: one is gone from the list, the other still missing in it.
    done = await look(shop, days=30)
    assert done.closed == 1
    assert [row[:2] for row in await rows(shop)] == [("payment_missing_there", f"pay-{missing}")]
    # Two days pending would be a finding of the audit, and was: the bank is asked, and it is ours.
    await shop.drain()


async def test_what_others_wrote_is_closed_by_a_look_at_it_only(shop: Shop) -> None:
    """A notice of an unknown payment, one with another price, and more back than was paid."""
    payment_id = await bought(shop)
    for kind, subject in (
        ("unknown_payment", "pay-elsewhere"),
        ("price_mismatch", f"pay-{payment_id}"),
        ("more_back_than_paid", "ref-1"),
    ):
        await shop.rows(
            "INSERT INTO differences (provider, kind, subject) VALUES ('bank', %s, %s) RETURNING id",
            kind,
            subject,
        )
    # The list holds the second with our price: that one is gone. It says nothing of the other two.
    done = await look(shop)
    assert (done.closed, done.open) == (1, 2)
    assert [row[0] for row in await rows(shop)] == ["unknown_payment", "more_back_than_paid"]
    assert await closed(shop) == [("price_mismatch", "gone at a later look")]


async def test_a_list_that_breaks_off_closes_nothing(shop: Shop) -> None:
    """The bank goes silent after its first page: what that showed is written down, nothing is missing."""
    await bought(shop)
    gone = await shop.ordered(await shop.customer())
    shop.bank.pays(gone)
    await look(shop)
    await shop.notify(gone)
    await shop.step("notice")
    stranger = replace(
        shop.bank.facts[gone], payment_id=77, provider_payment_id="pay-of-a-stranger"
    )
    shop.bank.facts[77] = stranger
    await shop.paid(await shop.customer())

    async def break_off(lines: list[LedgerLine], cursor: str | None) -> LedgerPage:
        if cursor is not None:
            raise PaymentProviderUnavailableError("503")
        return LedgerPage(tuple(lines), "2")

    shop.bank.on_ledger = break_off
    done = await look(shop)
    assert done.failure == "no answer from bank: 503"
    assert not done.clean
    assert {row[0] for row in await rows(shop)} == {"payment_not_ours_yet", "unknown_payment"}
    assert await closed(shop) == []
    # As long as nobody answers a look is no look, also where nothing was open.
    await shop.rows("UPDATE differences SET closed_at = darkroom_now(), note = 'seen' RETURNING id")
    shop.bank.silent = True
    done = await look(shop)
    assert (done.open, done.clean) == (0, False)


async def test_a_list_without_end_is_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_flow, "LINES_MAX", 5)

    async def go_on(_lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        return LedgerPage((), "more")

    shop.bank.on_ledger = go_on
    await shop.paid(await shop.customer())
    done = await look(shop)
    assert done.failure == "bank lists more than 5 lines: take fewer days"
    assert await rows(shop) == []


async def test_more_than_a_page_is_missing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MISSING_PAGE", 2)
    customer = await shop.customer()
    ids = [await shop.paid(customer) for _ in range(5)]
    done = await look(shop)
    assert done.found == 5
    assert [row[2] for row in await rows(shop)] == ids


async def test_a_provider_that_is_not_there_is_refused(shop: Shop) -> None:
    with pytest.raises(RequestRefusedError, match="PROVIDER_NOT_FOUND"):
        await reconcile(shop.darkroom, "stars", Look())


async def test_a_person_closes_what_was_dealt_with(shop: Shop) -> None:
    await shop.paid(await shop.customer())
    await look(shop)
    (difference,) = await read_differences(shop.darkroom)
    assert await close_by_hand(shop.darkroom, difference.id, note="paid in cash")
    assert not await close_by_hand(shop.darkroom, difference.id, note="again")
    assert await closed(shop) == [("payment_missing_there", "paid in cash")]
    # It still differs: the next look says so again, as a new row.
    await look(shop)
    assert len(await rows(shop)) == 1


async def looks(shop: Shop) -> list[dict[str, Any]]:
    """The days that were looked at."""
    return await shop.rows("SELECT * FROM reconciliations ORDER BY id")


async def test_once_a_day_whoever_comes_first(shop: Shop) -> None:
    await shop.paid(await shop.customer())
    await shop.advance(GRACE_SECONDS + 1)
    done = await asyncio.gather(*(reconcile_today(shop.darkroom) for _ in range(10)))
    assert sum(done) == 1
    (day,) = await looks(shop)
    assert (day["provider"], day["lines"], day["found"]) == ("bank", 0, 1)
    assert day["finished_at"] is not None
    assert _gauge() == 1
    assert await reconcile_today(shop.darkroom) == 0
    # Closed by a person: every worker's gauge says so at its next round, without another look.
    (difference,) = await read_differences(shop.darkroom)
    await close_by_hand(shop.darkroom, difference.id, note="seen")
    assert await reconcile_today(shop.darkroom) == 0
    assert _gauge() == 0
    await shop.advance(DAY)
    assert await reconcile_today(shop.darkroom) == 1
    assert len(await looks(shop)) == 2


async def test_of_two_that_take_a_day_at_once_one_has_it(shop: Shop) -> None:
    """The second one waits for the row of the first, whom it could not see when it began."""
    async with shop.database.transaction() as first:
        assert await claim_day(first, provider="bank") is not None

        async def take() -> DayClaim | None:
            async with shop.database.connection() as second:
                return await claim_day(second, provider="bank")

        rival = asyncio.create_task(take())
        while not await shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
    assert await rival is None


def _gauge() -> float:
    (metric,) = DIFFERENCES_OPEN.collect()
    return metric.samples[0].value


async def test_a_day_whose_run_died_is_taken_again_after_an_hour(shop: Shop) -> None:
    await _noon(shop)
    shop.bank.silent = True
    assert await reconcile_today(shop.darkroom) == 0
    shop.bank.silent = False
    assert await reconcile_today(shop.darkroom) == 0
    await shop.advance(3_601)
    assert await reconcile_today(shop.darkroom) == 1
    (day,) = await looks(shop)
    assert day["finished_at"] > day["started_at"]


async def _noon(shop: Shop) -> None:
    """So that the hours of a test are one day's."""
    await shop.advance(
        await shop.value(
            "SELECT extract(epoch FROM (date_trunc('day', darkroom_now() AT TIME ZONE 'UTC') "
            "+ INTERVAL '36 hours') - (darkroom_now() AT TIME ZONE 'UTC'))::FLOAT8"
        )
    )


async def test_days_on_which_nobody_could_look_are_made_up_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A week without an answer was never looked at again, and nothing rang meanwhile."""
    spans = _spans(shop, monkeypatch)
    await _noon(shop)
    assert await reconcile_today(shop.darkroom) == 1
    assert _unread_days() == 0
    shop.bank.silent = True

    async def ten_days() -> None:
        for day in range(10):
            await shop.advance(DAY)
            assert await reconcile_today(shop.darkroom) == 0
            assert _unread_days() == day

    lines = await logged(ten_days)
    loud = [line for line in lines if line["log_level"] == "error"]
    assert len(loud) == 8, "one day is the bank's; more of them are somebody's to look at"
    shop.bank.silent = False
    spans.clear()
    await shop.advance(DAY)
    assert await reconcile_today(shop.darkroom) == 1
    assert _unread_days() == 0
    # Today's, and as of one and of eight days ago: none is longer than the others, and none leaves a gap.
    assert spans == [(7, 0), (8, 1), (15, 8)]
    await shop.advance(DAY)
    assert await reconcile_today(shop.darkroom) == 1
    assert spans[3:] == [(7, 0)]


def _spans(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """From how many days ago until how many each list was asked for."""
    spans: list[tuple[int, int]] = []
    real = shop.bank.read_ledger

    async def read_ledger(since: datetime, until: datetime, cursor: str | None) -> LedgerPage:
        now: datetime = await shop.value("SELECT darkroom_now()")
        spans.append(
            (round((now - since).total_seconds() / DAY), round((now - until).total_seconds() / DAY))
        )
        return await real(since, until, cursor)

    monkeypatch.setattr(shop.bank, "read_ledger", read_ledger)
    return spans


async def test_what_was_missed_is_found_by_the_look_that_makes_up_for_it(shop: Shop) -> None:
    """Somebody at the bank gave money back, nobody told us, and its list could not be read for nine days."""
    await _noon(shop)
    payment_id = await bought(shop)
    assert await reconcile_today(shop.darkroom) == 1
    shop.bank.gives_back(payment_id, STARTER_MINOR)
    moved_at: datetime = await shop.value("SELECT darkroom_now() + INTERVAL '1 hour'")

    async def dated(lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        return LedgerPage(tuple(replace(line, moved_at=moved_at) for line in lines), None)

    shop.bank.on_ledger = dated
    shop.bank.silent = True
    for _ in range(9):
        await shop.advance(DAY)
        assert await reconcile_today(shop.darkroom) == 0
    shop.bank.silent = False
    await shop.advance(DAY)
    assert await reconcile_today(shop.darkroom) == 1
    assert "refund_not_ours_yet" in [row[0] for row in await rows(shop)]
    shop.audit_at_end = False


async def test_missed_days_that_cannot_be_read_keep_none_of_todays_from_being(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that grew with what was missed grew beyond its bound, and no later one ever succeeded."""
    await _noon(shop)
    assert await reconcile_today(shop.darkroom) == 1
    shop.bank.silent = True
    for _ in range(3):
        await shop.advance(DAY)
        await reconcile_today(shop.darkroom)
    shop.bank.silent = False
    real = shop.bank.read_ledger

    async def read_ledger(since: datetime, until: datetime, cursor: str | None) -> LedgerPage:
        now: datetime = await shop.value("SELECT darkroom_now()")
        if now - until > timedelta(days=0.9):
            raise PaymentProviderUnavailableError("lists a week, and no more")
        return await real(since, until, cursor)

    monkeypatch.setattr(shop.bank, "read_ledger", read_ledger)
    for day in range(4, 8):
        await shop.advance(DAY)
        assert await reconcile_today(shop.darkroom) == 1
        assert _unread_days() == day - 1, "and it is still said"


async def test_a_bank_that_never_answered_is_read_from_the_first_day_it_was_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _noon(shop)
    spans = _spans(shop, monkeypatch)
    shop.bank.silent = True
    for _ in range(4):
        assert await reconcile_today(shop.darkroom) == 0
        await shop.advance(DAY)
    shop.bank.silent = False
    spans.clear()
    assert await reconcile_today(shop.darkroom) == 1
    assert spans == [(7, 0), (8, 1)]


def _unread_days() -> float:
    (metric,) = UNREAD_DAYS.collect()
    (sample,) = [one for one in metric.samples if one.labels == {"provider": "bank"}]
    return sample.value


async def test_a_run_that_was_overtaken_does_not_say_it_is_done(shop: Shop) -> None:
    async def overtaken(lines: list[LedgerLine], _cursor: str | None) -> LedgerPage:
        await shop.rows("UPDATE reconciliations SET started_at = darkroom_now() RETURNING id")
        return LedgerPage(tuple(lines), None)

    shop.bank.on_ledger = overtaken
    await reconcile_today(shop.darkroom)
    (day,) = await looks(shop)
    assert day["finished_at"] is None


@contextlib.asynccontextmanager
async def sandbox(shop: Shop, folder: Path) -> AsyncGenerator[tuple[Shop, SandboxBank]]:
    """The same shop with the real adapter, and its bank over loopback."""
    bank = SandboxBank(secret="shared", file=folder / "bank.sqlite", public_url="http://bank")
    async with bank.running(), loopback(bank.app) as url:
        client = SandboxPayments(base_url=url, secret="shared")
        darkroom = replace(shop.darkroom, payments={"sandbox": client})
        yield replace(shop, darkroom=darkroom), bank
        await client.close()


async def _order_there(shop: Shop, customer: Customer, request: int) -> tuple[int, str]:
    payment = await order_photos(
        shop.darkroom,
        OrderRequest(
            user_id=customer.user_id,
            tier_id="starter",
            provider="sandbox",
            avatar_id=None,
            style_id=None,
            idempotency_key=str(request),
            request_id=uuid4(),
        ),
    )
    theirs = await shop.value("SELECT provider_payment_id FROM payments WHERE id = %s", payment.id)
    return payment.id, theirs


async def test_over_the_real_protocol_in_several_pages(
    shop: Shop, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank's page holds two lines; seven come; one of them is nobody's, one is missing, one went back."""
    monkeypatch.setattr(bank_module, "MOVES_MAX", 2)
    async with sandbox(shop, tmp_path) as (there, bank):
        customer = await there.customer()
        orders = [await _order_there(there, customer, number) for number in range(6)]
        for payment_id, theirs in orders:
            if payment_id != orders[-1][0]:
                bank.decide(theirs, "paid")
            await database.fetch_value(
                "UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now() "
                "WHERE id = %s RETURNING id",
                [payment_id],
            )
        bank.refund_outside(orders[0][1], 500)
        await there.advance(GRACE_SECONDS + 1)
        shown: list[Progress] = []
        done = await reconcile(there.darkroom, "sandbox", Look(), report=shown.append)
        assert done.failure is None
        assert (done.lines, done.found) == (6, 2)
        assert [progress.lines for progress in shown] == [2, 4, 6, 6]
        assert [progress.share for progress in shown] == sorted(p.share for p in shown)
        assert shown[-1].share == 1
        refund_id = bank.books.rows("SELECT id FROM refunds")[0]["id"]
        assert await rows(there) == [
            ("refund_not_ours_yet", refund_id, orders[0][0], None, 500),
            ("payment_missing_there", orders[-1][1], orders[-1][0], STARTER_MINOR, None),
        ]
        bank.decide(orders[-1][1], "paid")
        done = await reconcile(there.darkroom, "sandbox", Look(grace_seconds=0))
        assert [row[0] for row in await rows(there)] == ["refund_not_ours_yet"]


async def test_a_bank_that_is_gone_is_said_to_be(shop: Shop) -> None:
    listening = listen_on_free_port()
    nobody = SandboxPayments(
        base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", secret="shared"
    )
    listening.close()
    darkroom = replace(shop.darkroom, payments={"sandbox": nobody})
    done = await reconcile(darkroom, "sandbox", Look())
    await nobody.close()
    assert done.failure is not None
    assert done.failure.startswith("no answer from sandbox")
