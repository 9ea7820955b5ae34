"""No worker anywhere: calls from outside do the work, and set the bell for the next one."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from darkroom.core.budget import pause_provider, set_window
from darkroom.core.due import Way, next_due_seconds
from darkroom.flow import work_in_calls
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.pay_back import GoodwillRequest, pay_back
from darkroom.flow.steps import Step
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.work_in_calls import (
    HELD_SECONDS,
    LOOK_AHEAD_SECONDS,
    WAIT_SECONDS,
    house_rounds,
    work_in_call,
    work_rounds,
)
from darkroom.ports.generation import GenerationRequest, NoAnswer, Working
from darkroom.ports.payments import (
    PaymentProviderUnavailableError,
    RefundAnswer,
    RefundCall,
    RefundRefused,
)
from tests.shop import Shop


class _Bell:
    """Keeps what was rung."""

    def __init__(self) -> None:
        self.rung: list[float] = []

    async def ring(
        self, job_id: int | None = None, *, step: str = "", after_seconds: float = 0
    ) -> None:
        del job_id, step
        self.rung.append(after_seconds)

    async def wait(self, timeout_seconds: float, step: str = "") -> bool:
        del step
        await asyncio.sleep(min(timeout_seconds, 0.01))
        return False

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        del steps, after_seconds


@pytest.fixture
def bell(shop: Shop) -> _Bell:
    bell = _Bell()
    shop.darkroom = replace(shop.darkroom, doorbell=bell)
    return bell


async def _next_due(shop: Shop) -> float | None:
    ways = [Way("scripted", "scripted", "scripted:", shop.provider.price_credits)]
    async with shop.database.connection() as tx:
        return await next_due_seconds(tx, ways, banks=["bank"])


async def test_one_call_makes_a_whole_set_and_rings_for_nothing(shop: Shop, bell: _Bell) -> None:
    await shop.sold()
    bell.rung.clear()
    done = await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert (done["submit"], done["collect"], bell.rung) == (7, 7, [])
    assert await _next_due(shop) is None


async def test_what_is_due_later_gets_a_bell_of_its_own(shop: Shop, bell: _Bell) -> None:
    """bugbook C4: the rest of a set waited for the next tick of a clock, a minute each time."""

    async def lost(request: GenerationRequest) -> NoAnswer | None:
        return NoAnswer("timeout") if request.prompt_index == 2 else None

    shop.provider.on_create = lost
    await shop.sold()
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT count(*) FROM generated_photos") == 6
    (after_seconds,) = bell.rung
    grace = shop.darkroom.limits.unknown_grace_seconds
    assert WAIT_SECONDS < after_seconds <= grace
    shop.provider.on_create = None
    await shop.advance(grace)
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert len(bell.rung) == 1


async def test_a_call_whose_time_is_up_hands_over_at_once(shop: Shop, bell: _Bell) -> None:
    await shop.sold()
    bell.rung.clear()
    await work_in_call(shop.darkroom, seconds=0)
    assert set(await shop.statuses()) == {"queued"}
    assert bell.rung == [1]


async def test_what_is_long_overdue_is_handed_over_when_the_time_is_up(
    shop: Shop, bell: _Bell
) -> None:
    """A call that had no time left looked at an overdue row for ever."""
    await shop.sold()
    await shop.advance(600)
    bell.rung.clear()
    async with asyncio.timeout(5):
        await work_in_call(shop.darkroom, seconds=0)
    assert bell.rung == [1]


async def test_what_is_due_in_a_moment_is_waited_for_in_the_call(shop: Shop, bell: _Bell) -> None:
    asked = 0

    async def later(_request: GenerationRequest) -> Working | None:
        nonlocal asked
        asked += 1
        return Working() if asked <= 7 else None

    shop.provider.on_ask = later
    changes = {"poll_first_seconds": 0.2, "poll_cap_seconds": 0.2}
    limits = shop.darkroom.limits.model_copy(update=changes)
    shop.darkroom = replace(shop.darkroom, limits=limits)
    await shop.sold()
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert bell.rung == []


async def _calls_to_the_end(shop: Shop, bell: _Bell) -> None:
    """Nothing lives but calls: each ring becomes one, in its time."""
    for _ in range(30):
        if not bell.rung:
            return
        await shop.advance(bell.rung.pop(0))
        await work_in_call(shop.darkroom)


async def test_rings_alone_bring_a_set_to_its_end(shop: Shop, bell: _Bell) -> None:
    shop.provider.on_create = _lost_once()
    await shop.sold()
    await _calls_to_the_end(shop, bell)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


def _lost_once() -> Callable[[GenerationRequest], Awaitable[NoAnswer | None]]:
    """The first creation of the third photo is not answered."""
    lost: set[int] = set()

    async def create(request: GenerationRequest) -> NoAnswer | None:
        if request.prompt_index == 2 and not lost:
            lost.add(2)
            return NoAnswer("timeout")
        return None

    return create


async def test_twin_a_call_that_sets_no_bell_leaves_the_set_where_it_is(
    shop: Shop, bell: _Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: what is due later is looked at by nobody, however often time passes."""

    async def nothing_is_due(_darkroom: Darkroom) -> None:
        return None

    monkeypatch.setattr(work_in_calls, "_next_due", nothing_is_due)
    shop.provider.on_create = _lost_once()
    await shop.sold()
    await _calls_to_the_end(shop, bell)
    assert await shop.value("SELECT status FROM generation_jobs") == "processing"


async def test_many_calls_at_once_make_one_set(shop: Shop, bell: _Bell) -> None:
    """bugbook C2: overlapping runs of the clock inserted, sent and paid back twice."""
    await shop.sold()
    await asyncio.gather(*(work_in_call(shop.darkroom) for _ in range(8)))
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7
    assert len(shop.provider.created) == 7
    del bell


async def test_a_lease_that_somebody_holds_is_waited_for_not_taken(shop: Shop, bell: _Bell) -> None:
    """Killed in the middle: what the dead call held is due when its lease ends, and the bell says so."""
    entered = asyncio.Event()

    async def hang(_request: GenerationRequest) -> None:
        entered.set()
        await asyncio.Event().wait()

    shop.provider.on_ask = hang
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    killed = asyncio.create_task(work_in_call(shop.darkroom))
    await entered.wait()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    shop.provider.on_ask = None
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT count(*) FROM generated_photos") == 0
    assert 0 < bell.rung[0] <= shop.darkroom.limits.lease_seconds
    await shop.advance(shop.darkroom.limits.lease_seconds)
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"
    assert len(shop.provider.created) == 7


async def test_what_comes_after_the_next_ticks_is_left_to_them(shop: Shop, bell: _Bell) -> None:
    """Rung for at the limit, each tick began a chain of bells that never ended: thousands of messages a day."""
    await shop.sold()
    await shop.rows(
        "INSERT INTO provider_budgets (provider, paused_until) "
        "VALUES ('scripted', darkroom_now() + INTERVAL '1 day') ON CONFLICT (provider) "
        "DO UPDATE SET paused_until = EXCLUDED.paused_until RETURNING provider"
    )
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert bell.rung == []
    until = "UPDATE provider_budgets SET paused_until = darkroom_now() + INTERVAL '800 s' RETURNING provider"
    await shop.rows(until)
    await work_in_call(shop.darkroom)
    assert [round(seconds) for seconds in bell.rung] == [800]
    await shop.rows("UPDATE provider_budgets SET paused_until = '-infinity' RETURNING provider")
    await work_rounds(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_a_spent_day_is_not_knocked_at_every_second(shop: Shop, bell: _Bell) -> None:
    """A call that finds photos due and may create none called itself all day: the queue's plan was spent."""
    shop.provider.price_credits = 10
    await shop.sold()
    async with shop.database.transaction() as tx:
        await set_window(tx, "scripted", requests=None, seconds=10, day_credits_max=10)
    bell.rung.clear()
    done = await work_in_call(shop.darkroom)
    assert (done["submit"], await shop.value("SELECT count(*) FROM generated_photos")) == (1, 1)
    # At midnight; the ticks see to it until it is near.
    assert all(HELD_SECONDS < seconds <= LOOK_AHEAD_SECONDS for seconds in bell.rung)


async def test_a_models_pause_and_a_full_window_are_waited_for(shop: Shop, bell: _Bell) -> None:
    await shop.sold()
    async with shop.database.transaction() as tx:
        await pause_provider(tx, "scripted", seconds=600, reason="505", model=shop.provider.model)
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert 590 < bell.rung.pop() <= 600
    await shop.rows("DELETE FROM provider_budgets RETURNING provider")
    async with shop.database.transaction() as tx:
        await set_window(tx, "scripted", requests=3, seconds=60)
    done = await work_in_call(shop.darkroom)
    assert done["submit"] == 3
    assert 50 < bell.rung.pop() <= 60
    for _ in range(2):
        await shop.advance(61)
        await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_photos_of_a_provider_that_is_off_set_no_bell(shop: Shop, bell: _Bell) -> None:
    await shop.sold()
    shop.darkroom = replace(shop.darkroom, generation={})
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    # The set's own deadline is what is due next.
    assert all(rung > HELD_SECONDS for rung in bell.rung)
    shop.audit_at_end = False


async def test_what_a_peer_holds_is_not_asked_for_at_once_again(
    shop: Shop, bell: _Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(_darkroom: Darkroom) -> float:
        return -1

    monkeypatch.setattr(work_in_calls, "_next_due", held)
    bell.rung.clear()
    await work_in_call(shop.darkroom)
    assert bell.rung == [HELD_SECONDS]


async def test_a_step_that_hangs_or_breaks_keeps_no_other_from_its_turn(
    shop: Shop, bell: _Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that hangs took the whole of each call: deadlines and refunds stood still meanwhile."""
    ran: Counter[str] = Counter()

    async def hang(_darkroom: Darkroom) -> int:
        ran["hang"] += 1
        await asyncio.Event().wait()
        return 0

    async def crash(_darkroom: Darkroom) -> int:
        ran["crash"] += 1
        raise KeyError

    async def work(_darkroom: Darkroom) -> int:
        ran["work"] += 1
        return 0

    async def time_out(_darkroom: Darkroom) -> int:
        ran["time out"] += 1
        raise TimeoutError

    steps = (
        *(Step("hang", hang, 1, 1), Step("crash", crash, 1, 1), Step("finish", work, 1, 1)),
        # Its own, and no reason to come at once again.
        Step("outcome", time_out, 1, 1),
    )
    monkeypatch.setattr(work_in_calls, "WORK_STEPS", steps)
    monkeypatch.setattr(work_in_calls, "GRACE_SECONDS", 0.1)
    for _ in range(3):
        await work_in_call(shop.darkroom, seconds=0.1)
    assert ran == {"hang": 3, "crash": 3, "work": 3, "time out": 3}
    ran.clear()
    monkeypatch.setattr(work_in_calls, "WORK_STEPS", steps[1:])
    await work_in_call(shop.darkroom)
    assert ran == {"crash": 1, "work": 1, "time out": 1}
    del bell


async def test_a_slow_house_step_never_starves_those_behind_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def step(name: str) -> Step:
        async def run(_darkroom: Darkroom) -> int:
            ran.append(name)
            return 1

        return Step(name, run, 1, 60)

    monkeypatch.setattr(work_in_calls, "HOUSE_STEPS", tuple(step(name) for name in "abc"))
    for minute in range(3):
        now = datetime.fromtimestamp(minute * 60, UTC)
        await house_rounds(shop.darkroom, clock=lambda now=now: now)
    assert ran == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


async def test_a_refund_of_a_bank_that_is_gone_rings_no_bell(shop: Shop, bell: _Bell) -> None:
    """A message every ten seconds, for as long as its settings were missing."""
    await _unused_goes_back(shop)
    shop.darkroom = replace(shop.darkroom, payments={})
    bell.rung.clear()
    for _ in range(3):
        await work_in_call(shop.darkroom)
    assert bell.rung == []
    assert await shop.value("SELECT status FROM refunds") == "requested"
    shop.darkroom = replace(shop.darkroom, payments={"bank": shop.bank})
    await work_in_call(shop.darkroom)
    assert await shop.value("SELECT status FROM payments") == "refunded"


async def test_a_refund_that_waits_for_another_of_its_payment_rings_no_bell(
    shop: Shop, bell: _Bell
) -> None:
    """A transfer takes days; what is owed beside it was knocked for every ten seconds of them."""

    async def lost(_call: RefundCall) -> RefundAnswer:
        raise PaymentProviderUnavailableError("timeout")

    payment_id = await _sold_and_asked_twice(shop, lost)
    shop.bank.silent = True
    bell.rung.clear()
    for _ in range(3):
        await shop.advance(60)
        await work_in_call(shop.darkroom)
    assert sorted(row["status"] for row in await shop.rows("SELECT status FROM refunds")) == [
        "requested",
        "unknown",
    ]
    assert HELD_SECONDS not in bell.rung
    shop.bank.silent = False
    await shop.drain()
    back = "SELECT sum(settled_minor) FROM refunds WHERE payment_id = %s"
    assert await shop.value(back, payment_id) == 200


async def test_a_refund_that_waits_for_an_older_one_that_comes_later_rings_no_bell(
    shop: Shop, bell: _Bell
) -> None:
    async def later(_call: RefundCall) -> RefundAnswer:
        return RefundRefused("429", "not now", later=True)

    payment_id = await _sold_and_asked_twice(shop, later)
    shop.bank.on_refund = later
    for _ in range(4):  # the first one waits longer each time
        await shop.advance(60)
        await shop.step("refund")
    bell.rung.clear()
    for _ in range(3):
        await work_in_call(shop.darkroom)
    assert {row["status"] for row in await shop.rows("SELECT status FROM refunds")} == {"requested"}
    assert HELD_SECONDS not in bell.rung
    shop.bank.on_refund = None
    await shop.drain()
    back = "SELECT sum(settled_minor) FROM refunds WHERE payment_id = %s"
    assert await shop.value(back, payment_id) == 200


async def _unused_goes_back(shop: Shop) -> None:
    payment_id = await shop.ordered(await shop.customer())
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.step("notice")
    await pay_back(shop.darkroom, GoodwillRequest(payment_id, None, "kind", uuid4()))


async def _sold_and_asked_twice(
    shop: Shop, first: Callable[[RefundCall], Awaitable[RefundAnswer | None]]
) -> int:
    """A delivered set, and twice a ruble of it owed; the first call is answered so. Gives the payment."""
    payment_id = await shop.ordered(await shop.customer(), order_style="signature")
    shop.bank.pays(payment_id)
    await shop.notify(payment_id)
    await shop.drain()
    shop.bank.on_refund = first
    for _ in range(2):
        await pay_back(shop.darkroom, GoodwillRequest(payment_id, 100, "kind", uuid4()))
    await shop.step("refund")
    shop.bank.on_refund = None
    return payment_id
