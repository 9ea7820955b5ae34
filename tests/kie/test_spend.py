"""The spend ledger against kie.ai's own books: each attempt is one line, and nothing is counted twice."""

import asyncio
import json
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from rich.console import Console

from darkroom.adapters.generation.kie import KieTerms
from darkroom.core.spend import KINDS, SpendLine, read_spend, record_cost
from darkroom.edges import spend
from darkroom.edges.spend import plain_spend, show_spend
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.read_balances import (
    CREDITS_LEFT,
    UNEXPLAINED,
    read_balances,
    read_costs,
    read_last_balances,
    read_ledger,
)
from darkroom.flow.receive import receive_queue_message
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.generation import GenerationRequest, NoAnswer, ProviderUnavailableError
from darkroom.twin.kie_faults import Fault, Kind
from tests.kie.conftest import KieShop, events
from tests.shop import Shop


async def _ledger(shop: Shop) -> SpendLine:
    """Everything as one line."""
    lines = await read_ledger(shop.darkroom, days=400)
    sums = {
        name: sum(getattr(line, name) for line in lines)
        for name in SpendLine.__slots__
        if name not in ("provider", "model", "day")
    }
    return SpendLine(provider="", model=None, day=lines[0].day, **sums)


async def _costs_read(shop: Shop) -> None:
    await shop.advance(shop.darkroom.limits.pending_give_up_seconds + 1)
    while await read_costs(shop.darkroom):
        pass


async def _settle(kie_shop: KieShop) -> None:
    """Everything runs to its end; callbacks that rang in between, too."""
    for _ in range(3):
        await kie_shop.twin.callbacks_settled()
        await kie_shop.shop.drain()


async def test_with_duplicate_deliveries_and_lost_answers_the_ledger_is_the_providers_own(
    kie_shop: KieShop,
) -> None:
    """bugbook B6, bugbook C1: nothing is wasted but, at most, one task for each lost create answer."""
    shop, twin = kie_shop.shop, kie_shop.twin
    lost = 3
    sets = [await shop.sold() for _ in range(4)]
    # Two of the three tasks whose creation's answer is lost call back, the third one never does.
    twin.script("create", *(Fault(Kind.DROP) for _ in range(lost)))
    twin.script("callback", Fault(Kind.TWICE), Fault(Kind.FORGED))
    for _ in range(3):
        for _, job in sets:
            await asyncio.gather(
                *(
                    receive_queue_message(shop.darkroom, message_id=f"m-{job.id}", job_id=job.id)
                    for _ in range(3)
                )
            )
        await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(4)))
    orphans = [
        task
        for task in twin.tasks.values()
        if not await shop.value(
            "SELECT count(*) FROM task_attempts WHERE provider_task_id = %s", task.id
        )
    ]
    assert len(orphans) == lost
    for orphan in orphans[:2]:
        await twin.finish(orphan.id)
    twin.script("callback", Fault(Kind.LOST))
    await twin.finish(orphans[2].id)
    await _settle(kie_shop)
    assert [(await shop.job(job.id))["status"] for _, job in sets] == ["completed"] * 4
    await _costs_read(shop)
    ledger = await _ledger(shop)
    assert len(twin.wasted) == 1 <= lost
    assert twin.tasks_created == 28 + 1
    assert (ledger.photos, ledger.adopted, ledger.lost, ledger.wasted) == (28, 2, 1, 0)
    assert (ledger.attempts, ledger.open, ledger.failed, ledger.refused) == (29, 0, 0, 0)
    assert ledger.credits_photos == twin.credits_spent - 18 * len(twin.wasted)
    # Of a task whose id nobody knows the cost is not known either: at most one price each.
    assert (ledger.credits_wasted, ledger.credits_unknown) == (0, 18 * len(twin.wasted))


async def test_without_lost_answers_nothing_is_wasted_however_often_anything_comes(
    kie_shop: KieShop,
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.script("callback", *(Fault(Kind.TWICE) for _ in range(10)))
    sets = [await shop.sold() for _ in range(3)]
    for number in range(6):
        for _, job in sets:
            await receive_queue_message(shop.darkroom, message_id=f"m-{number}", job_id=job.id)
        await asyncio.gather(*(shop.round() for _ in range(3)))
    await _settle(kie_shop)
    ledger = await _ledger(shop)
    assert twin.wasted == []
    assert (ledger.attempts, ledger.photos, ledger.credits_photos) == (21, 21, twin.credits_spent)
    assert (ledger.credits_wasted, ledger.credits_unknown) == (0, 0)


async def test_an_orphan_adopted_too_late_is_wasted_and_its_cost_is_asked_for_once(
    kie_shop: KieShop,
) -> None:
    """The callback came after the grace, when another attempt had been bought."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await shop.sold()
    twin.script("create", Fault(Kind.DROP))
    await submit_due_tasks(shop.darkroom)
    (orphan,) = [
        task
        for task in twin.tasks.values()
        if not await shop.value(
            "SELECT count(*) FROM task_attempts WHERE provider_task_id = %s", task.id
        )
    ]
    await shop.drain()
    before = await _ledger(shop)
    assert (before.lost, before.wasted, before.credits_unknown) == (1, 0, 18)
    await twin.finish(orphan.id)
    await _settle(kie_shop)
    asked = twin.requests["ask"]
    await _costs_read(shop)
    assert twin.requests["ask"] == asked + 1
    await _costs_read(shop)
    assert twin.requests["ask"] == asked + 1, "once is enough"
    ledger = await _ledger(shop)
    assert twin.wasted == [orphan]
    assert (ledger.photos, ledger.adopted, ledger.wasted, ledger.lost) == (7, 1, 1, 0)
    assert (ledger.credits_photos, ledger.credits_wasted) == (7 * 18, 18)
    assert ledger.credits_photos + ledger.credits_wasted == twin.credits_spent
    assert ledger.credits_unknown == 0


async def test_failed_and_refused_attempts_cost_nothing_and_are_told_apart(
    kie_shop: KieShop,
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await shop.sold()
    twin.script("create", Fault(Kind.ANSWER, 429, "slow down"))
    await submit_due_tasks(shop.darkroom)
    await twin.fail(next(iter(twin.tasks)), "500")
    await _settle(kie_shop)
    ledger = await _ledger(shop)
    assert (ledger.photos, ledger.failed, ledger.refused, ledger.attempts) == (7, 1, 1, 9)
    assert ledger.credits_photos == twin.credits_spent
    assert set(KINDS) == {"useful", "wasted", "lost", "failed", "refused", "open"}


async def _settled_while_kie_makes(kie_shop: KieShop) -> None:
    """A set whose deadline passes before kie.ai has made one of its photos."""
    kie_shop.shop.audit_at_end = False
    kie_shop.twin.habits.asks_to_finish = None
    await kie_shop.shop.sold()
    await submit_due_tasks(kie_shop.shop.darkroom)
    await kie_shop.shop.advance(3601)
    await kie_shop.shop.step("finish")


async def test_a_photo_settled_at_its_deadline_while_kie_made_it_is_wasted_with_its_cost(
    kie_shop: KieShop,
) -> None:
    """Its attempt never ended here: it is ended, and its cost is asked for."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await _settled_while_kie_makes(kie_shop)
    assert set(await shop.statuses()) == {"failed"}
    for task in list(twin.tasks):
        twin.script("callback", Fault(Kind.LOST))
        await twin.finish(task)
    assert (await _ledger(shop)).credits_unknown == 7 * 18
    await _costs_read(shop)
    ledger = await _ledger(shop)
    assert (ledger.photos, ledger.wasted, ledger.open) == (0, 7, 0)
    assert (ledger.credits_wasted, ledger.credits_unknown) == (twin.credits_spent, 0)


async def test_a_cost_that_stays_unknown_is_asked_for_each_hour_of_a_day_only(
    kie_shop: KieShop,
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await _settled_while_kie_makes(kie_shop)
    for _ in range(40):
        await shop.advance(3601)
        await read_costs(shop.darkroom)
    assert twin.requests["ask"] == 7 * 22
    async with shop.database.connection() as tx:
        await record_cost(tx, 1, 5)
        await record_cost(tx, 1, 7)
    assert await shop.value("SELECT credits FROM task_attempts WHERE id = 1") == 5, (
        "the first stands"
    )


async def _eight_unread_costs(shop: Shop, monkeypatch: pytest.MonkeyPatch, *, broken: int) -> int:
    """How many of eight one round reads, when the records of the first `broken` are never given out."""
    await shop.sold()
    await shop.sold()
    await shop.drain()
    await shop.rows(
        "UPDATE task_attempts SET expected_credits = 1, credits = NULL WHERE id <= 8 RETURNING id"
    )
    rows = await shop.rows(
        "SELECT provider_task_id FROM task_attempts WHERE id <= %s ORDER BY id", broken
    )
    unreadable = {row["provider_task_id"] for row in rows}
    real = shop.provider.read_cost

    async def read_cost(provider_task_id: str) -> float | None:
        if provider_task_id in unreadable:
            raise ProviderUnavailableError("500")
        return await real(provider_task_id)

    monkeypatch.setattr(shop.provider, "read_cost", read_cost)
    await shop.advance(shop.darkroom.limits.pending_give_up_seconds + 1)
    return await read_costs(shop.darkroom)


async def test_one_cost_that_cannot_be_read_holds_up_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for first in each round, and ended it."""
    assert await _eight_unread_costs(shop, monkeypatch, broken=1) == 7
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE credits IS NULL") == 1
    assert await read_costs(shop.darkroom) == 0, "asked again an hour later"


async def test_an_account_that_is_away_is_asked_three_times_a_round(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _eight_unread_costs(shop, monkeypatch, broken=4) == 0
    asked = "SELECT count(*) FROM task_attempts WHERE cost_asked_at IS NOT NULL"
    assert await shop.value(asked) == 3
    assert await read_costs(shop.darkroom) == 4, "the next round goes on behind them"


async def test_the_command_shows_it_at_eighty_columns_and_as_json(
    kie_shop: KieShop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = kie_shop.shop
    await shop.sold()
    await shop.drain()
    lines = await read_ledger(shop.darkroom, days=7)
    balances = await read_last_balances(shop.darkroom)
    monkeypatch.setattr(spend, "console", Console(width=80, highlight=False))
    show_spend(lines, balances)
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    assert "126/0/0" in shown
    assert "kie nano-banana-pro" in shown
    assert "all explained" in shown
    plain = json.loads(json.dumps(plain_spend(lines, balances), default=str))
    assert plain["lines"][0]["credits_photos"] == 126
    assert plain["balances"][0]["account"] == "kie"
    show_spend([], [])
    assert "no attempts" in capsys.readouterr().out


async def _read_later(kie_shop: KieShop) -> None:
    await kie_shop.shop.advance(601)
    assert await read_balances(kie_shop.shop.darkroom) == 1


async def _unexplained(kie_shop: KieShop) -> float:
    ((_, unexplained),) = await read_last_balances(kie_shop.shop.darkroom)
    gauge = REGISTRY.get_sample_value("darkroom_credits_unexplained", {"provider": "kie"})
    assert gauge == unexplained
    return unexplained


async def test_what_a_day_of_orders_took_is_explained_to_the_credit(kie_shop: KieShop) -> None:
    """In flight at a reading, failed there, lost for good, topped up: none of it is an alarm."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await _read_later(kie_shop)
    twin.habits.asks_to_finish = None
    twin.script("create", Fault(Kind.DROP))
    for _ in range(2):
        await shop.sold()
        await submit_due_tasks(shop.darkroom)
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0
    await twin.fail(next(iter(twin.tasks)), "500")
    twin.habits.asks_to_finish = 1
    await shop.drain()
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0
    twin.habits.credits_left += 5000
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0
    assert await shop.value("SELECT sum(topped_up_credits) FROM credit_readings") == 5000
    await shop.sold()
    await shop.drain()
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0


async def test_credits_that_no_attempt_explains_are_an_alarm(
    kie_shop: KieShop, log_lines: list[MutableMapping[str, Any]]
) -> None:
    """Somebody else uses the key."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await _read_later(kie_shop)
    await shop.sold()
    await shop.drain()
    twin.habits.credits_left -= 90
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 90
    assert "credits unexplained" in events(log_lines)
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 90, "the alarm stays for a day"
    await shop.advance(86_400)
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0


async def test_a_small_leak_adds_up_although_something_is_always_in_flight(
    kie_shop: KieShop,
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    await _read_later(kie_shop)
    twin.habits.asks_to_finish = None
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    for _ in range(5):
        twin.habits.credits_left -= 10
        await shop.advance(550)
        await poll_due_tasks(shop.darkroom)
        await shop.advance(51)
        await read_balances(shop.darkroom)
    # 126 credits may be those of the seven photos under way; 50 alone would hide behind them.
    assert await _unexplained(kie_shop) == 50
    shop.audit_at_end = False


async def test_who_pays_in_explains_nothing(kie_shop: KieShop) -> None:
    """As "credits are low" asks for. It took the alarm away, ten minutes after it had rung."""
    shop, twin = kie_shop.shop, kie_shop.twin
    await _read_later(kie_shop)
    twin.habits.asks_to_finish = None
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    twin.habits.credits_left -= 300
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 300
    twin.habits.credits_left += 20_000
    await _read_later(kie_shop)
    assert await shop.value("SELECT sum(topped_up_credits) FROM credit_readings") > 19_000
    assert await _unexplained(kie_shop) == 300
    await shop.advance(86_400)
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 0
    shop.audit_at_end = False


async def test_whoever_did_not_read_says_the_same(kie_shop: KieShop) -> None:
    """Of many workers one reads. The others told what they had read last, for as long as they lived."""
    twin = kie_shop.twin
    await _read_later(kie_shop)
    twin.habits.credits_left -= 90
    await _read_later(kie_shop)
    assert await _unexplained(kie_shop) == 90
    # Another process, that has never read.
    UNEXPLAINED.clear()
    CREDITS_LEFT.clear()
    assert await read_balances(kie_shop.shop.darkroom) == 0
    assert await _unexplained(kie_shop) == 90
    left = REGISTRY.get_sample_value("darkroom_provider_credits", {"provider": "kie"})
    assert left == twin.habits.credits_left


async def test_a_day_begins_at_midnight_utc_whatever_the_servers_clock_is_set_to(
    shop: Shop,
) -> None:
    """Days were taken off in the session's time zone: after summer time began, an hour was missing."""
    await shop.sold()
    await shop.drain()
    now: datetime = await shop.value("SELECT darkroom_now()")
    await shop.advance((datetime(2027, 3, 31, 12, tzinfo=UTC) - now).total_seconds())
    first = datetime(2027, 3, 25, tzinfo=UTC) + timedelta(minutes=30)
    await shop.rows("UPDATE task_attempts SET created_at = %s RETURNING id", first)
    async with shop.database.transaction() as tx:
        await tx.execute("SET LOCAL timezone = 'Europe/Berlin'")
        assert [line.attempts for line in await read_spend(tx, days=7)] == [7]
        assert await read_spend(tx, days=6) == []
    shop.audit_at_end = False


async def test_few_credits_are_an_alarm_before_there_are_none(
    kie_shop: KieShop, log_lines: list[MutableMapping[str, Any]]
) -> None:
    await kie_shop.use(kie_shop.kie(terms=KieTerms(credits_low=2000)))
    kie_shop.twin.habits.credits_left = 2000
    await _read_later(kie_shop)
    assert events(log_lines) == []
    kie_shop.twin.habits.credits_left = 1999
    await _read_later(kie_shop)
    assert "credits are low" in events(log_lines)


async def test_of_two_processes_that_read_at_once_one_reading_counts(kie_shop: KieShop) -> None:
    await asyncio.gather(*(read_balances(kie_shop.shop.darkroom) for _ in range(4)))
    assert await kie_shop.shop.value("SELECT count(*) FROM credit_readings") == 1
    assert await read_balances(kie_shop.shop.darkroom) == 0, "not before its time"


@pytest.mark.parametrize(
    "fault", [Fault(Kind.ANSWER, 500), Fault(Kind.DROP), Fault(Kind.GARBAGE), Fault(Kind.BLANK)]
)
async def test_a_balance_that_is_not_told_is_no_reading(kie_shop: KieShop, fault: Fault) -> None:
    kie_shop.twin.script("credit", fault)
    assert await read_balances(kie_shop.shop.darkroom) == 0
    assert await kie_shop.shop.value("SELECT count(*) FROM credit_readings") == 0
    assert await read_balances(kie_shop.shop.darkroom) == 1


async def test_old_readings_are_forgotten_and_the_newest_stays(kie_shop: KieShop) -> None:
    for _ in range(5):
        await kie_shop.shop.advance(40 * 86_400)
        await read_balances(kie_shop.shop.darkroom)
    assert await kie_shop.shop.value("SELECT count(*) FROM credit_readings") <= 3


async def test_a_providers_answer_counts_once_for_both_models_of_an_account(
    shop: Shop,
) -> None:
    """One task id belongs to one attempt of the account, whichever model was asked."""

    async def silent(_request: GenerationRequest) -> NoAnswer:
        return NoAnswer("timeout")

    shop.provider.on_create = silent
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    rows = await shop.rows("SELECT id FROM task_attempts ORDER BY id LIMIT 2")
    await shop.rows(
        "UPDATE task_attempts SET provider_task_id = 'x' WHERE id = %s RETURNING id", rows[0]["id"]
    )
    with pytest.raises(Exception, match="idx_task_attempts_account_task"):
        await shop.rows(
            "UPDATE task_attempts SET provider = 'scripted:other', provider_task_id = 'x' "
            "WHERE id = %s RETURNING id",
            rows[1]["id"],
        )
    shop.audit_at_end = False
