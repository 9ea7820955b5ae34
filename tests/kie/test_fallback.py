"""Who takes over from a provider: never a photo that may be somewhere, never one that is refused for good."""

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from darkroom.core import budget
from darkroom.core.budget import take_budget
from darkroom.core.tasks import claim_queued
from darkroom.flow.fall_back import fall_back
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.read_balances import read_ledger
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.ports.generation import Again, FailedThere, GenerationRequest, NoAnswer, Refused
from darkroom.twin.kie_faults import Fault, Kind
from tests.kie.conftest import KieShop, events
from tests.scripted import ScriptedProvider
from tests.shop import Shop

OTHER_MODEL = "kie:nano-banana-2"


def _with_spare(shop: Shop) -> ScriptedProvider:
    spare = ScriptedProvider(name="spare", account="spare")
    shop.darkroom = replace(
        shop.darkroom,
        generation={**shop.darkroom.generation, "spare": spare},
        generation_fallback=("spare",),
    )
    return spare


async def _broke(_request: GenerationRequest) -> Refused:
    return Refused("402", "no credit", Again.PAUSED)


async def _providers(shop: Shop) -> Counter[str]:
    return Counter(row["provider"] for row in await shop.rows("SELECT provider FROM kie_tasks"))


async def test_a_photo_that_used_up_its_tries_goes_to_the_fallback_with_its_tries_anew(
    shop: Shop,
) -> None:
    spare = _with_spare(shop)
    spare_fails = 2

    async def fails(_request: GenerationRequest) -> FailedThere:
        return FailedThere("500", "upstream", Again.LATER)

    async def fails_twice(_request: GenerationRequest) -> FailedThere | None:
        nonlocal spare_fails
        spare_fails -= 1
        return FailedThere("500", "upstream", Again.LATER) if spare_fails >= 0 else None

    shop.provider.on_ask = fails
    spare.on_ask = fails_twice
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert (len(shop.provider.created), len(spare.created)) == (21, 9)
    ledger = {line.provider: line for line in await read_ledger(shop.darkroom, days=2)}
    assert (ledger["scripted"].photos, ledger["spare"].photos) == (0, 7)


async def test_a_photo_whose_answers_are_all_lost_goes_to_the_fallback_too(shop: Shop) -> None:
    spare = _with_spare(shop)

    async def silent(_request: GenerationRequest) -> NoAnswer:
        return NoAnswer("timeout")

    shop.provider.on_create = silent
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(spare.created) == 7
    assert await shop.value("SELECT max(attempts_forgiven) FROM kie_tasks") == 3


async def test_at_the_end_of_the_list_a_photo_fails_once(shop: Shop) -> None:
    """It does not go round."""
    spare = _with_spare(shop)

    async def fails(_request: GenerationRequest) -> FailedThere:
        return FailedThere("500", "upstream", Again.LATER)

    shop.provider.on_ask = spare.on_ask = fails
    await shop.sold()
    await shop.drain()
    assert set(await shop.statuses()) == {"failed"}
    assert (len(shop.provider.created), len(spare.created)) == (21, 21)


@pytest.mark.parametrize("where", ["create", "ask"])
async def test_what_is_refused_for_good_is_offered_to_nobody_else(shop: Shop, where: str) -> None:
    spare = _with_spare(shop)

    async def refuses(_request: GenerationRequest) -> Refused:
        return Refused("400", "policy", Again.NEVER)

    async def refuses_later(_request: GenerationRequest) -> FailedThere:
        return FailedThere("400", "policy", Again.NEVER)

    if where == "create":
        shop.provider.on_create = refuses
    else:
        shop.provider.on_ask = refuses_later
    await shop.sold()
    await shop.drain()
    assert set(await shop.statuses()) == {"failed"}
    assert spare.created == {}


async def test_an_empty_account_hands_its_queue_on_after_ten_minutes_and_not_before(
    shop: Shop, log_lines: list[MutableMapping[str, Any]]
) -> None:
    spare = _with_spare(shop)
    shop.provider.on_create = _broke
    _, job = await shop.sold()
    for _ in range(9):
        await submit_due_tasks(shop.darkroom)
        assert await fall_back(shop.darkroom) == 0
        await shop.advance(65)
    await submit_due_tasks(shop.darkroom)
    await shop.advance(20)
    assert await fall_back(shop.darkroom) == 7
    assert events(log_lines) == ["queue goes to the fallback"]
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(spare.created) == 7


async def test_a_provider_that_creates_now_and_then_is_not_shut(shop: Shop) -> None:
    _with_spare(shop)
    answers = 0

    async def now_and_then(_request: GenerationRequest) -> Refused | None:
        nonlocal answers
        answers += 1
        return None if answers % 8 == 0 else Refused("429", "slow down", Again.LATER, 60)

    shop.provider.on_create = now_and_then
    await shop.sold()
    for _ in range(14):
        await submit_due_tasks(shop.darkroom)
        await shop.advance(61)
        assert await fall_back(shop.darkroom) == 0
    shop.provider.on_create = None
    await shop.drain()


async def test_an_outage_of_yesterday_is_not_the_beginning_of_todays(shop: Shop) -> None:
    _with_spare(shop)
    shop.provider.on_create = _broke
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.advance(3000)
    await submit_due_tasks(shop.darkroom)
    assert await fall_back(shop.darkroom) == 0
    shop.provider.on_create = None
    await shop.drain()


async def test_photos_that_may_be_somewhere_stay_where_they_may_be(shop: Shop) -> None:
    """Submitting, unknown, pending: another provider would make a second one."""
    spare = _with_spare(shop)
    answers = ["created", "silent", "broke", "broke"]

    async def mixed(request: GenerationRequest) -> NoAnswer | Refused | None:
        if not answers:
            return await _broke(request)
        answer = answers.pop(0)
        if answer == "created":
            return None
        return NoAnswer("timeout") if answer == "silent" else await _broke(request)

    shop.provider.on_create = mixed
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.rows(
        "UPDATE provider_budgets SET shut_since = darkroom_now() - INTERVAL '1 hour' "
        "RETURNING provider"
    )
    assert sorted(await shop.statuses()) == ["pending", *["queued"] * 5, "unknown"]
    assert await fall_back(shop.darkroom) == 5
    rows = await shop.rows("SELECT status, provider FROM kie_tasks WHERE provider = 'scripted'")
    assert {row["status"] for row in rows} == {"pending", "unknown"}
    shop.provider.on_create = None
    await shop.drain()
    assert len(spare.created) == 5


async def test_of_a_claim_and_a_move_at_once_one_wins(shop: Shop) -> None:
    """A worker that is about to offer the photo keeps it: the move passes over what is locked or gone."""
    _with_spare(shop)
    await shop.sold()
    await shop.rows(
        "INSERT INTO provider_budgets (provider, shut_since, paused_until) "
        "VALUES ('scripted', darkroom_now() - INTERVAL '1 hour', darkroom_now()) RETURNING provider"
    )
    async with shop.database.transaction() as tx:
        claimed = await claim_queued(tx, provider="scripted", limit=3, lease_seconds=10)
        assert await fall_back(shop.darkroom) == 4
    rows = await shop.rows("SELECT provider FROM kie_tasks WHERE status = 'submitting'")
    assert [row["provider"] for row in rows] == ["scripted"] * len(claimed)
    await shop.drain()


async def test_twin_without_the_status_in_the_move_a_photo_changes_hands_while_it_is_offered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed from the statement itself."""
    _with_spare(shop)
    await shop.sold()
    unguarded = budget.MOVE_QUEUE.replace("t.status = 'queued' AND ", "")
    unguarded = unguarded.replace("status = 'queued' AND ", "")
    assert unguarded != budget.MOVE_QUEUE
    monkeypatch.setattr(budget, "MOVE_QUEUE", unguarded)
    await shop.rows(
        "INSERT INTO provider_budgets (provider, shut_since, paused_until) "
        "VALUES ('scripted', darkroom_now() - INTERVAL '1 hour', darkroom_now()) RETURNING provider"
    )
    async with shop.database.transaction() as tx:
        await claim_queued(tx, provider="scripted", limit=3, lease_seconds=10)
    await fall_back(shop.darkroom)
    moved = await shop.value(
        "SELECT count(*) FROM kie_tasks WHERE status = 'submitting' AND provider = 'spare'"
    )
    assert moved == 3, "the twin must fail"
    shop.audit_at_end = False


async def test_two_models_of_one_account_share_its_window_and_its_silence(
    kie_shop: KieShop,
) -> None:
    """20 creations in 10 s are the account's, however many models are asked."""
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.creates_limit = 20
    first, second = kie_shop.kie(), kie_shop.kie(name=OTHER_MODEL, model="nano-banana-2")
    await kie_shop.use(first, second, fallback=(OTHER_MODEL,))
    await shop.sold(tier="premium")
    await shop.sold(tier="premium")
    await shop.rows(
        "UPDATE kie_tasks SET provider = %s WHERE id %% 2 = 0 RETURNING id", OTHER_MODEL
    )
    await asyncio.gather(*(submit_due_tasks(shop.darkroom) for _ in range(4)))
    assert twin.requests["create"] == twin.tasks_created == 20
    # From here on the test moves our clock, not the stand-in's.
    twin.habits.creates_limit = None
    await shop.drain()
    assert (
        await shop.value("SELECT count(*) FROM task_attempts WHERE refusal_code IS NOT NULL") == 0
    )
    lines = await read_ledger(shop.darkroom, days=2)
    assert {(line.provider, line.model): line.photos for line in lines} == {
        ("kie", "nano-banana-pro"): 23,
        (OTHER_MODEL, "nano-banana-2"): 23,
    }
    assert Counter(task.order["model"] for task in twin.tasks.values()) == {
        "nano-banana-pro": 23,
        "nano-banana-2": 23,
    }


async def test_a_model_that_is_off_is_left_alone_and_the_other_takes_over(
    kie_shop: KieShop,
) -> None:
    """505 is one model's; 402 is the whole account's, and then the studio's kind of provider is left."""
    shop, twin = kie_shop.shop, kie_shop.twin
    first, second = kie_shop.kie(), kie_shop.kie(name=OTHER_MODEL, model="nano-banana-2")
    spare = ScriptedProvider(name="spare", account="spare")
    await kie_shop.use(first, second, spare, fallback=(OTHER_MODEL, "spare"))
    _, job = await shop.sold()
    twin.script("create", *(Fault(Kind.ANSWER, 505) for _ in range(7)))
    await submit_due_tasks(shop.darkroom)
    async with shop.database.transaction() as tx:
        for model, granted in (("nano-banana-pro", 0), ("nano-banana-2", 5)):
            budget = await take_budget(tx, "kie", wanted=5, model=model)
            assert budget.granted == granted
    await shop.rows(
        "UPDATE provider_budgets SET shut_since = shut_since - INTERVAL '11 minutes' "
        "WHERE shut_since IS NOT NULL RETURNING provider"
    )
    assert await fall_back(shop.darkroom) == 7
    assert await _providers(shop) == {OTHER_MODEL: 7}
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    twin.habits.credits_left = 0
    await shop.advance(61)
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.rows(
        "UPDATE provider_budgets SET shut_since = shut_since - INTERVAL '11 minutes' "
        "WHERE provider = 'kie' RETURNING provider"
    )
    assert await fall_back(shop.darkroom) == 7
    assert await _providers(shop) == {OTHER_MODEL: 7, "spare": 7}
    await shop.drain()


async def test_a_lost_answer_of_the_other_model_is_adopted_by_its_accounts_callback(
    kie_shop: KieShop,
) -> None:
    shop, twin = kie_shop.shop, kie_shop.twin
    first, second = kie_shop.kie(), kie_shop.kie(name=OTHER_MODEL, model="nano-banana-2")
    await kie_shop.use(second, first)
    await shop.sold()
    twin.script("create", Fault(Kind.DROP))
    await submit_due_tasks(shop.darkroom)
    for task_id in list(twin.tasks):
        await twin.finish(task_id)
    await shop.drain()
    assert twin.wasted == []
    assert twin.tasks_created == 7
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE adopted") == 1


async def test_nothing_is_handed_on_where_no_fallback_is_configured(shop: Shop) -> None:
    shop.provider.on_create = _broke
    await shop.sold()
    for _ in range(12):
        await submit_due_tasks(shop.darkroom)
        await shop.advance(61)
        assert await fall_back(shop.darkroom) == 0
    shop.provider.on_create = None
    await shop.drain()


async def test_an_hour_without_credit_burns_no_attempt_and_fails_no_photo(
    kie_shop: KieShop,
) -> None:
    """402 for nearly a set's whole hour; after the top-up everything goes on by itself."""
    shop, twin = kie_shop.shop, kie_shop.twin
    twin.habits.credits_left = 0
    _, job = await shop.sold()
    for _ in range(58):
        await shop.round()
        await shop.advance(61)
    assert set(await shop.statuses()) == {"queued"}
    assert await shop.value("SELECT count(*) FROM task_attempts WHERE refusal_code IS NULL") == 0
    twin.habits.credits_left = 10_000
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert (twin.tasks_created, twin.wasted) == (7, [])


async def test_polling_goes_on_while_nothing_can_be_created(shop: Shop) -> None:
    """What is there already is fetched: a shut provider still answers questions."""
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    async with shop.database.transaction() as tx:
        await budget.pause_provider(tx, "scripted", seconds=3000, reason="402")
    assert await poll_due_tasks(shop.darkroom) == 7
    await shop.drain()
