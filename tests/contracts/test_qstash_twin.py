"""The stand-in of QStash: the vendor's own client works with it, and the vendor's receiver believes it."""

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import pytest
from qstash import AsyncQStash, Receiver
from qstash.errors import (
    DailyMessageLimitExceededError,
    QStashError,
    RateLimitExceededError,
    SignatureError,
)
from qstash.message import PublishResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.adapters.qstash_receiver import QStashReceiver
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_cron import Cron
from darkroom.twin.qstash_faults import CHAOS, FINE, Fault, Habits, Kind


@dataclass
class Came:
    """One delivery as it came in."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["upstash-message-id"]


@dataclass
class Inbox:
    """Our side: keeps what came and answers what it is told to."""

    base_url: str = ""
    came: list[Came] = field(default_factory=list[Came])
    answers: list[Response] = field(default_factory=list[Response])

    @property
    def door(self) -> str:
        """An address whose every letter is signed, the last slash, too."""
        return f"{self.base_url}/door"

    async def take(self, request: Request) -> Response:
        """Keep it."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.came.append(
            Came(
                request.method,
                f"{self.base_url}{path}",
                dict(request.headers),
                await request.body(),
            )
        )
        return self.answers.pop(0) if self.answers else Response(status_code=200)


@pytest.fixture
async def inbox() -> AsyncGenerator[Inbox]:
    keeper = Inbox()
    methods = ["GET", "POST", "PUT"]
    route = Route("/{path:path}", keeper.take, methods=methods)
    async with loopback(Starlette(routes=[route])) as base_url:
        keeper.base_url = base_url
        yield keeper


@pytest.fixture
async def twin() -> AsyncGenerator[QStashTwin]:
    async with qstash_twin() as running:
        yield running


@asynccontextmanager
async def sdk_of(twin: QStashTwin, token: str | None = None) -> AsyncGenerator[AsyncQStash]:
    """The vendor's own client, closed in the end: it has no way of its own."""
    sdk = AsyncQStash(token or twin.habits.token, base_url=twin.base_url, retry=False)
    try:
        yield sdk
    finally:
        await sdk.http._client.aclose()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@pytest.fixture
async def client(twin: QStashTwin) -> AsyncGenerator[AsyncQStash]:
    async with sdk_of(twin) as sdk:
        yield sdk


Verify = Callable[[Came], None]


@pytest.fixture
def verify(twin: QStashTwin) -> Verify:
    def check(came: Came) -> None:
        receiver = Receiver(twin.habits.current_key, twin.habits.next_key)
        receiver.verify(
            signature=came.headers["upstash-signature"], body=came.body.decode(), url=came.url
        )

    return check


async def published(client: AsyncQStash, url: str, **options: object) -> PublishResponse:
    answer = await client.message.publish_json(url=url, body={"jobId": 7}, **options)  # type: ignore[arg-type]
    assert isinstance(answer, PublishResponse)
    return answer


async def test_what_is_published_is_delivered_signed_and_to_the_byte(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, verify: Verify
) -> None:
    """The destination stands in the path as it is, with its query; forwarded headers lose their prefix."""
    answer = await published(client, f"{inbox.base_url}/a/b?x=1&y=2", headers={"X-Mine": "yes"})
    await twin.settle()
    (came,) = inbox.came
    assert (came.method, came.body) == ("POST", b'{"jobId": 7}')
    assert came.url == f"{inbox.base_url}/a/b?x=1&y=2"
    assert came.message_id == answer.message_id
    assert came.headers["content-type"] == "application/json"
    assert (came.headers["x-mine"], came.headers["upstash-retried"]) == ("yes", "0")
    assert came.headers["user-agent"] == "Upstash-QStash"
    verify(came)
    with pytest.raises(QStashError, match="404"):
        await client.message.get(answer.message_id)


async def test_an_id_is_taken_once_in_ten_minutes(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    first = await published(client, inbox.door, deduplication_id="one")
    again = await published(client, inbox.door, deduplication_id="one")
    other = await published(client, inbox.door, deduplication_id="two")
    assert (again.message_id, again.deduplicated) == (first.message_id, True)
    assert (first.deduplicated, other.deduplicated) == (False, False)
    await twin.advance(601)
    assert not (await published(client, inbox.door, deduplication_id="one")).deduplicated
    await twin.settle()
    assert len(inbox.came) == 3
    assert twin.counts["deduplicated"] == 1


async def test_the_same_content_is_taken_once_where_that_is_asked_for(
    client: AsyncQStash, inbox: Inbox
) -> None:
    """The SDK spells the boolean `True`."""
    options = {"content_based_deduplication": True}
    assert not (await published(client, inbox.door, **options)).deduplicated
    assert (await published(client, inbox.door, **options)).deduplicated
    assert not (await published(client, f"{inbox.base_url}/else", **options)).deduplicated


async def test_a_batch_is_delivered_one_by_one(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    answers = await client.message.batch_json(
        [
            {"url": inbox.base_url, "body": {"jobId": 1}},
            {"url": inbox.base_url, "body": {"jobId": 2}, "delay": "1m"},
        ]
    )
    assert len(answers) == 2
    await twin.settle()
    assert [json.loads(came.body)["jobId"] for came in inbox.came] == [1]
    await twin.advance(61)
    assert [json.loads(came.body)["jobId"] for came in inbox.came] == [1, 2]


async def test_what_is_to_come_later_is_shown_and_can_be_called_off(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    later = await published(client, inbox.door, delay="1d10h30m", retries=5)
    never = await published(client, inbox.door, not_before=int(time.time()) + 60)
    shown = await client.message.get(later.message_id)
    assert (shown.url, shown.max_retries, shown.body) == (inbox.door, 5, '{"jobId": 7}')
    await client.message.cancel(never.message_id)
    with pytest.raises(QStashError, match="404"):
        await client.message.get(never.message_id)
    await twin.advance(86_400 + 10 * 3600 + 29 * 60)
    assert inbox.came == []
    await twin.advance(61)
    assert [came.message_id for came in inbox.came] == [later.message_id]


async def test_all_but_2xx_is_repeated_with_the_same_id_and_a_fresh_signature(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, verify: Verify
) -> None:
    inbox.answers = [Response(status_code=status) for status in (302, 404, 500, 204)]
    await published(client, inbox.door, retries=3)
    await twin.settle()
    for number, seconds in enumerate((11, 147, 1806), start=1):
        await twin.advance(seconds)
        assert len(inbox.came) == number
        await twin.advance(2)
        assert len(inbox.came) == number + 1
    assert len({came.message_id for came in inbox.came}) == 1
    assert len({came.headers["upstash-signature"] for came in inbox.came}) == 4
    assert [came.headers["upstash-retried"] for came in inbox.came] == ["0", "1", "2", "3"]
    for came in inbox.came:
        verify(came)
    assert (twin.counts["retried"], twin.counts["delivered"]) == (3, 1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("Retry-After", "40"), ("X-RateLimit-Reset", "40s"), ("X-RateLimit-Reset-Tokens", "0m40s")],
)
async def test_the_receiver_may_ask_for_another_pause(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, header: str, seconds: str
) -> None:
    inbox.answers = [Response(status_code=503, headers={header: seconds})]
    await published(client, inbox.door)
    await twin.advance(39)
    assert len(inbox.came) == 1
    await twin.advance(2)
    assert len(inbox.came) == 2


async def test_what_is_given_up_goes_to_the_dead_letters_and_is_told_once(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, verify: Verify
) -> None:
    """The original is inside: base64 in `sourceBody`. A retry from there is a new message."""
    inbox.answers = [Response(b"no", status_code=500)] * 2
    answer = await published(
        client, f"{inbox.base_url}/p", retries=1, failure_callback=f"{inbox.base_url}/failed"
    )
    await twin.advance(20)
    told_came = inbox.came[-1]
    assert [came.url for came in inbox.came] == [
        f"{inbox.base_url}/{path}" for path in ("p", "p", "failed")
    ]
    verify(told_came)
    told = json.loads(told_came.body)
    assert told_came.message_id != answer.message_id == told["sourceMessageId"]
    assert (told["status"], told["retried"], told["maxRetries"]) == (500, 1, 1)
    assert b64decode(told["sourceBody"]) == b'{"jobId": 7}'
    assert b64decode(told["body"]) == b"no"
    (dead,) = (await client.dlq.list()).messages
    assert (dead.dlq_id, dead.message_id) == (told["dlqId"], answer.message_id)
    assert (dead.response_status, dead.response_body) == (500, "no")
    assert (await client.dlq.get(dead.dlq_id)).body == '{"jobId": 7}'
    revived = await client.http.request(path=f"/v2/dlq/retry/{dead.dlq_id}", method="POST")
    assert revived["messageId"] != answer.message_id
    await twin.settle()
    assert inbox.came[-1].message_id == revived["messageId"]
    assert (await client.dlq.list()).messages == []
    with pytest.raises(QStashError, match="404"):
        await client.dlq.delete(dead.dlq_id)


async def test_489_with_its_header_ends_the_retries_at_once(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    final = {"Upstash-NonRetryable-Error": "true"}
    inbox.answers = [Response(status_code=489), Response(status_code=489, headers=final)]
    await published(client, inbox.door, retries=5)
    await twin.advance(86_400)
    assert (len(inbox.came), twin.counts["dlq"]) == (2, 1)
    assert (
        await client.dlq.delete_many([one.dlq_id for one in (await client.dlq.list()).messages])
    ) == 1


async def test_a_schedule_fires_by_the_clock_and_its_id_overwrites_it(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, verify: Verify
) -> None:
    wish = {"destination": f"{inbox.base_url}/round", "schedule_id": "mine", "method": "GET"}
    assert await client.schedule.create(cron="0 0 * * *", **wish) == "mine"  # type: ignore[arg-type]
    assert await client.schedule.create(cron="*/5 * * * *", retries=0, **wish) == "mine"  # type: ignore[arg-type]
    (schedule,) = await client.schedule.list()
    assert (schedule.cron, schedule.retries, schedule.paused) == ("*/5 * * * *", 0, False)
    await twin.advance(901)
    assert len(inbox.came) == 3
    assert {came.headers["upstash-schedule-id"] for came in inbox.came} == {"mine"}
    assert {(came.method, came.body) for came in inbox.came} == {("GET", b"")}
    assert len({came.message_id for came in inbox.came}) == 3
    verify(inbox.came[0])
    await client.schedule.pause("mine")
    assert (await client.schedule.get("mine")).paused
    await twin.advance(900)
    await client.schedule.resume("mine")
    await twin.advance(300)
    assert len(inbox.came) == 4
    await client.schedule.delete("mine")
    with pytest.raises(QStashError, match="404"):
        await client.schedule.delete("mine")
    with pytest.raises(QStashError, match="400"):
        await client.schedule.create(destination=inbox.base_url, cron="every day")


async def test_a_plan_has_so_many_schedules(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    twin.habits.schedules_max = 1
    await client.schedule.create(destination=inbox.base_url, cron="0 0 * * *")
    with pytest.raises(QStashError, match="412"):
        await client.schedule.create(destination=inbox.base_url, cron="0 0 * * *")


@pytest.mark.parametrize(
    ("cron", "after", "first"),
    [
        ("* * * * *", "2026-03-01T10:00:30", "2026-03-01T10:01:00"),
        ("15,45 8-10/2 * * *", "2026-03-01T08:45:00", "2026-03-01T10:15:00"),
        ("0 0 29 2 *", "2026-03-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 12 1 * 1", "2026-03-03T00:00:00", "2026-03-09T12:00:00"),
        ("CRON_TZ=Europe/Moscow 0 3 * * *", "2026-03-01T01:00:00", "2026-03-02T00:00:00"),
        ("0 0 * * 7", "2026-03-02T00:00:00", "2026-03-08T00:00:00"),
    ],
)
def test_a_cron_expression_means_what_it_always_meant(cron: str, after: str, first: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp()
    found = Cron.parse(cron).next_after(moment)
    assert datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%dT%H:%M:%S") == first


@pytest.mark.parametrize("cron", ["", "* * * *", "60 * * * *", "*/0 * * * *", "x * * * *"])
def test_a_cron_expression_that_means_nothing_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Cron.parse(cron)


async def test_strangers_and_strange_wishes_are_refused(
    twin: QStashTwin, client: AsyncQStash
) -> None:
    async with sdk_of(twin, "wrong") as stranger:
        with pytest.raises(QStashError, match="401"):
            await published(stranger, "http://localhost/")
    for url in ("https://shop.example/x", "a-group", "ftp://127.0.0.1/x"):
        with pytest.raises(QStashError, match="400"):
            await published(client, url)
    with pytest.raises(QStashError, match="invalid duration"):
        await published(client, "http://127.0.0.1:9/", delay="soon")
    assert twin.counts["published"] == 0


async def test_limits_of_a_burst_and_of_a_day_are_told_apart(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    twin.lots.script("publish", Fault(Kind.ANSWER, 429))
    with pytest.raises(RateLimitExceededError):
        await published(client, inbox.door)
    twin.habits.messages_daily = 0
    with pytest.raises(DailyMessageLimitExceededError):
        await published(client, inbox.door)


async def test_a_lost_answer_leaves_the_message_there(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    twin.lots.script("publish", Fault(Kind.KEEP_THEN_DROP), Fault(Kind.DROP))
    for _ in range(2):
        with pytest.raises(httpx.HTTPError):
            await published(client, inbox.door, deduplication_id="one")
    assert (await published(client, inbox.door, deduplication_id="one")).deduplicated
    await twin.settle()
    assert len(inbox.came) == 1


async def test_keys_are_shown_and_rotated(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox, verify: Verify
) -> None:
    before = await client.signing_key.get()
    after = await client.signing_key.rotate()
    assert (after.current, after.next != before.next) == (before.next, True)
    await published(client, inbox.door)
    await twin.settle()
    verify(inbox.came[0])
    ours = QStashReceiver(current_key=before.current, next_key=before.next)
    came = inbox.came[0]
    signature = came.headers["upstash-signature"]
    assert ours.is_genuine(signature=signature, body=came.body, url=came.url)


@pytest.mark.parametrize(
    ("kind", "genuine"),
    [
        (Kind.NONE, [True]),
        (Kind.TWICE, [True, True]),
        (Kind.AT_ONCE, [True, True]),
        (Kind.NEXT_KEY, [True]),
        (Kind.EXPIRED, [False]),
        (Kind.WRONG_SUB, [False]),
        (Kind.CORRUPT, [False]),
        (Kind.STRANGER, [False]),
    ],
)
async def test_each_fault_of_a_delivery_is_what_it_says(
    twin: QStashTwin, inbox: Inbox, verify: Verify, *, kind: Kind, genuine: list[bool]
) -> None:
    twin.lots.script("delivery", Fault(kind))
    async with sdk_of(twin) as client:
        await published(client, f"{inbox.base_url}/x")
    await twin.settle()
    found: list[bool] = []
    for came in inbox.came:
        found.append(False)
        with suppress(SignatureError):
            verify(came)
            found[-1] = True
    assert found == genuine
    assert len({came.message_id for came in inbox.came}) == 1


async def test_late_messages_are_overtaken_and_lost_ones_come_again(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    twin.lots.script("delivery", Fault(Kind.LATE), Fault(Kind.LOST), FINE)
    ids: list[str] = []
    for _ in range(3):
        ids.append((await published(client, inbox.door)).message_id)
        await twin.settle()
    assert [came.message_id for came in inbox.came] == ids[2:]
    await twin.advance(31)
    assert sorted(came.message_id for came in inbox.came) == sorted(ids)


async def test_a_key_of_flow_control_bounds_what_is_under_way(
    twin: QStashTwin, client: AsyncQStash, inbox: Inbox
) -> None:
    for _ in range(5):
        await published(client, inbox.door, flow_control={"key": "k", "parallelism": 2})
    await twin.settle()
    assert len(inbox.came) == 5


async def test_the_same_seed_draws_the_same_faults(inbox: Inbox) -> None:
    struck: list[dict[str, int]] = []
    for _ in range(2):
        async with (
            qstash_twin(Habits(fault_rate=0.5, seed=11)) as twin,
            sdk_of(twin) as client,
        ):
            for _ in range(20):
                with suppress(QStashError, httpx.HTTPError, json.JSONDecodeError):
                    await published(client, inbox.door, retries=0)
                    await twin.settle()
            kinds = [name for name in twin.lots.struck if name.startswith("publish")]
            struck.append({name: twin.lots.struck[name] for name in kinds})
    assert struck[0] == struck[1]
    assert 5 < sum(struck[0].values()) < 15
    assert {door: bool(lots) for door, lots in CHAOS.items()} == {"publish": True, "delivery": True}


async def test_a_fast_clock_delivers_retries_of_hours_in_real_seconds(inbox: Inbox) -> None:
    inbox.answers = [Response(status_code=500)] * 3
    async with qstash_twin(Habits(time_scale=10_000)) as twin, sdk_of(twin) as client:
        await published(client, inbox.door)
        for _ in range(600):
            if twin.counts["delivered"]:
                break
            await asyncio.sleep(0.02)
    assert len(inbox.came) == 4
