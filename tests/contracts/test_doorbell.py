"""Doorbells: whoever waits is woken, nobody who rings is ever told off, and little is published."""

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.adapters.qstash_doorbell import (
    PAUSE_FIRST_SECONDS,
    SLOT_SECONDS,
    WINDOW_SECONDS,
    QStashDoorbell,
)
from darkroom.kit.outside import TransactionOpenError, transaction_marked
from darkroom.ports.doorbell import Doorbell
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_faults import Fault, Kind
from tests.contracts.conftest import NOBODY


@dataclass
class Clock:
    """Seconds that only a test moves."""

    seconds: float = 1000

    def __call__(self) -> float:
        return self.seconds


@dataclass
class House:
    """Our own doors: what was called, and with which body."""

    base_url: str = NOBODY
    bodies: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    async def take(self, request: Request) -> Response:
        """Keep it."""
        self.bodies.append((request.url.path, await request.body()))
        return Response(status_code=200)

    @property
    def jobs(self) -> list[object]:
        return [json.loads(body)["jobId"] for _, body in self.bodies]


@pytest.fixture
async def house() -> AsyncGenerator[House]:
    ours = House()
    async with loopback(
        Starlette(routes=[Route("/{path:path}", ours.take, methods=["POST"])])
    ) as url:
        ours.base_url = url
        yield ours


@pytest.fixture
async def queue() -> AsyncGenerator[QStashTwin]:
    async with qstash_twin() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def doorbell_to(
    queue: QStashTwin,
    house: House,
    clock: Clock,
    *,
    token: str | None = None,
    base_url: str | None = None,
    call_seconds: float = 4,
) -> AsyncGenerator[QStashDoorbell]:
    bell = QStashDoorbell(
        token=token or queue.habits.token,
        base_url=base_url or queue.base_url,
        public_url=house.base_url,
        retries=3,
        call_seconds=call_seconds,
        clock=clock,
        # A slot's beginning, as far on as the other clock.
        wall_clock=lambda: SLOT_SECONDS * 1000 + clock(),
    )
    try:
        yield bell
    finally:
        await bell.close()


@pytest.fixture
async def bell(queue: QStashTwin, house: House, clock: Clock) -> AsyncGenerator[QStashDoorbell]:
    async with doorbell_to(queue, house, clock) as made:
        yield made


@pytest.fixture(params=["local", "qstash"])
async def any_bell(request: pytest.FixtureRequest, bell: QStashDoorbell) -> Doorbell:
    return bell if request.param == "qstash" else LocalDoorbell()


def published(result: str) -> float:
    return REGISTRY.get_sample_value("darkroom_queue_publishes_total", {"result": result}) or 0.0


async def _wakes(bell: Doorbell, act: str) -> bool:
    waiting = asyncio.create_task(bell.wait(30))
    await asyncio.sleep(0)
    match act:
        case "ring":
            await bell.ring(7)
        case "wake":
            await bell.wake()
        case _:
            await bell.ring(after_seconds=60)
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    waiting.cancel()
    return bool(done)


@pytest.mark.parametrize(("act", "wakes"), [("ring", True), ("wake", True), ("later", False)])
async def test_who_waits_in_this_process_is_woken_now_and_not_by_a_ring_for_later(
    any_bell: Doorbell, act: str, *, wakes: bool
) -> None:
    assert await _wakes(any_bell, act) is wakes


async def test_who_waits_goes_on_by_itself(any_bell: Doorbell) -> None:
    async with asyncio.timeout(5):
        await any_bell.wait(0.01)


async def test_who_waits_is_woken_when_the_time_has_come(any_bell: Doorbell) -> None:
    """The first of several stands, a later one does not put it off, and a sooner one takes its place."""
    await any_bell.wake(after_seconds=60)
    await any_bell.wake(after_seconds=0.01)
    await any_bell.wake(after_seconds=60)
    async with asyncio.timeout(5):
        await any_bell.wait(60)
    # One whose time has come stands in nobody's way, also where the clock counts in milliseconds.
    for number in range(100):
        await any_bell.wake(after_seconds=0.001 + number / 100_000)
        async with asyncio.timeout(5):
            await any_bell.wait(60)


async def test_a_step_that_is_called_by_name_wakes_alone(any_bell: Doorbell) -> None:
    """Were all steps woken by each other, ten that have nothing to do would keep the one that has."""
    poll, collect = (asyncio.create_task(any_bell.wait(30, step)) for step in ("poll", "collect"))
    await asyncio.sleep(0)
    await any_bell.wake("collect", "finish")
    assert await collect is True
    assert not poll.done()
    await any_bell.wake()
    assert await poll is False, "called by nobody's name"


async def test_a_call_wakes_one_of_a_steps_lanes(any_bell: Doorbell) -> None:
    """Two looks at once for what one of them takes: the second would cost the first its processor."""
    lanes = [asyncio.create_task(any_bell.wait(30, "submit")) for _ in range(2)]
    await asyncio.sleep(0)
    await any_bell.ring(step="submit")
    done, waiting = await asyncio.wait(lanes, timeout=0.05)
    assert [lane.result() for lane in done] == [True]
    await any_bell.wake("submit")
    assert await waiting.pop() is True
    assert await any_bell.wait(0.01, "submit") is False, "no call was left over"


async def test_a_step_that_was_called_while_it_worked_looks_once_more(any_bell: Doorbell) -> None:
    """Else what came due in the middle of its round would wait for its next look, a second later."""
    await any_bell.wake("poll")
    async with asyncio.timeout(5):
        assert await any_bell.wait(30, "poll") is True
    assert await any_bell.wait(0.01, "poll") is False


async def test_a_ring_is_delivered_and_says_nothing_but_its_job(
    bell: QStashDoorbell, queue: QStashTwin, house: House
) -> None:
    """bugbook B15: pictures travelled in the queue's body until it was too large to be published."""
    await bell.ring(7)
    await bell.ring()
    await queue.settle()
    assert sorted(house.bodies) == [
        ("/api/jobs/process", b'{"jobId": 7}'),
        ("/api/jobs/process", b'{"jobId": null}'),
    ]
    orders = [message.order for message in queue.messages.values()]
    assert {order.failure_callback for order in orders} == {f"{house.base_url}/api/jobs/failed"}
    assert {(order.retries, order.timeout_seconds) for order in orders} == {(3, 60)}
    assert {(order.flow_key, order.parallelism) for order in orders} == {("darkroom", 10)}
    assert {order.label for order in orders} == {"darkroom"}


async def test_a_wake_is_told_to_nobody_outside(bell: QStashDoorbell, queue: QStashTwin) -> None:
    """A delivery of the queue wakes; rung on, it would come back for ever."""
    await bell.wake()
    assert queue.requests == 0


async def test_the_next_ring_of_a_job_is_not_swallowed_by_the_one_before(
    bell: QStashDoorbell, queue: QStashTwin, house: House, clock: Clock
) -> None:
    """bugbook B17: the id was made of the job, and ten minutes long every other message was the same one."""
    for _ in range(3):
        await bell.ring(7)
        await queue.settle()
        clock.seconds += WINDOW_SECONDS + 1
    assert house.jobs == [7, 7, 7]
    assert queue.counts["deduplicated"] == 0


async def test_an_answer_that_got_lost_is_not_a_second_message(
    bell: QStashDoorbell, queue: QStashTwin, house: House
) -> None:
    before = published("deduplicated")
    queue.lots.script("publish", Fault(Kind.KEEP_THEN_DROP))
    await bell.ring(7)
    await queue.settle()
    assert house.jobs == [7]
    assert (queue.counts["published"], queue.counts["deduplicated"]) == (1, 1)
    assert published("deduplicated") == before + 1


async def test_a_ring_for_later_comes_later(
    bell: QStashDoorbell, queue: QStashTwin, house: House
) -> None:
    await bell.ring(7, after_seconds=29.2)
    await queue.advance(29)
    assert house.jobs == []
    await queue.advance(2)
    assert house.jobs == [7]


async def test_a_burst_is_one_message_now_and_one_when_it_is_over(
    bell: QStashDoorbell, queue: QStashTwin, house: House, clock: Clock
) -> None:
    """A set's photos call back within seconds. The last of a window comes after all that it stands for."""
    for _ in range(100):
        await bell.ring()
        clock.seconds += 0.05
    await queue.settle()
    assert house.jobs == [None]
    await queue.advance(WINDOW_SECONDS + SLOT_SECONDS + 1)
    assert house.jobs == [None, None]
    # Other jobs are other rings, and a window that was covered does not cover the next.
    await bell.ring(8)
    clock.seconds += WINDOW_SECONDS
    await bell.ring()
    await queue.advance(WINDOW_SECONDS + SLOT_SECONDS + 1)
    assert house.jobs == [None, None, 8, None]


async def test_calls_without_a_memory_set_one_bell_together(
    queue: QStashTwin, house: House, clock: Clock
) -> None:
    """Where no process lives on, each call knows nothing of the others', and all look at the same rows."""
    for _ in range(5):
        async with doorbell_to(queue, house, clock) as fresh:
            await fresh.ring(after_seconds=7)
    assert queue.counts["published"] == 1
    await queue.advance(2 * SLOT_SECONDS - 1)
    assert house.jobs == []
    await queue.advance(2)
    assert house.jobs == [None]


async def test_a_bell_that_has_rung_swallows_no_ring_that_comes_after_it(
    queue: QStashTwin, house: House, clock: Clock
) -> None:
    """Each ring for later, at whatever moment of a slot, is followed by a delivery that is not before it."""
    for number in range(12):
        async with doorbell_to(queue, house, clock) as fresh:
            await fresh.ring(after_seconds=1)
        before = len(house.jobs)
        await queue.advance(1 + SLOT_SECONDS + 1)
        assert len(house.jobs) > before, number
        clock.seconds += 1 + SLOT_SECONDS + 1 + 0.7


async def test_a_later_ring_does_not_hide_one_for_now(
    bell: QStashDoorbell, queue: QStashTwin, house: House
) -> None:
    await bell.ring(7, after_seconds=600)
    await bell.ring(7)
    await queue.settle()
    assert house.jobs == [7]


async def test_rings_at_once_of_one_thing_are_one_message_and_its_echo(
    bell: QStashDoorbell, queue: QStashTwin, clock: Clock
) -> None:
    async def ring() -> None:
        clock.seconds += 0.001
        await bell.ring(7)

    await asyncio.gather(*(ring() for _ in range(50)))
    assert queue.counts["published"] == 2


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(Kind.ANSWER, 500)] * 2,
        [Fault(Kind.ANSWER, 503)] * 2,
        [Fault(Kind.ANSWER, 429)],
        [Fault(Kind.ANSWER, 400)],
        [Fault(Kind.DROP)] * 2,
        [Fault(Kind.GARBAGE)] * 2,
        [Fault(Kind.HUGE)] * 2,
        [Fault(Kind.HANG)] * 2,
    ],
)
async def test_a_queue_that_fails_costs_time_and_nothing_else(
    queue: QStashTwin, house: House, clock: Clock, faults: list[Fault]
) -> None:
    """The twin with one fault less is heard: what is refused is not repeated, all else is, once."""
    before = published("failed")
    # Only who hangs is to be given up soon: a busy machine may take a while for all else.
    limit = 1.5 if faults[0].kind is Kind.HANG else 20
    async with doorbell_to(queue, house, clock, call_seconds=limit) as bell, asyncio.timeout(60):
        queue.lots.script("publish", *faults)
        await bell.ring(7)
        assert published("failed") == before + 1
        assert queue.requests == len(faults)
        clock.seconds += PAUSE_FIRST_SECONDS + 1
        queue.lots.script("publish", *faults[1:])
        await bell.ring(8)
    assert published("failed") == before + 1


@pytest.mark.parametrize(("base_url", "token"), [(NOBODY, None), (None, "wrong")])
async def test_a_queue_that_is_not_there_costs_nothing_else_either(
    queue: QStashTwin, house: House, *, base_url: str | None, token: str | None
) -> None:
    async with doorbell_to(queue, house, Clock(), base_url=base_url, token=token) as bell:
        assert await _wakes(bell, "ring")
    assert queue.counts["published"] == 0


async def test_a_dead_queue_is_asked_less_and_less_and_spoken_of_once(
    bell: QStashDoorbell,
    queue: QStashTwin,
    house: House,
    clock: Clock,
    log_lines: list[MutableMapping[str, Any]],
) -> None:
    queue.lots.script("publish", *[Fault(Kind.ANSWER, 429)] * 4)
    asked: list[int] = []
    for seconds in (0, 9, 2, 19, 2, 39, 2):
        clock.seconds += seconds
        before = queue.requests
        for number in range(10):
            await bell.ring(number)
        asked.append(queue.requests - before)
    # After 10, 20 and 40 seconds of silence one ring asks, and those beside it do not.
    assert asked == [1, 0, 1, 0, 1, 0, 1]
    clock.seconds += 400
    await bell.ring(7)
    await bell.ring(8)
    await queue.settle()
    assert sorted(house.jobs, key=str) == [7, 8]
    said = [
        (line["log_level"], line["event"]) for line in log_lines if "queue takes" in line["event"]
    ]
    assert said == [
        ("error", "queue takes no messages, work is found by looking"),
        ("info", "queue takes messages again"),
    ]
    assert REGISTRY.get_sample_value("darkroom_queue_publish_failing") == 0
    assert not [line for line in log_lines if queue.habits.token in str(line)]


async def test_nobody_rings_from_inside_a_transaction(bell: QStashDoorbell) -> None:
    with transaction_marked(), pytest.raises(TransactionOpenError):
        await bell.ring(7)
