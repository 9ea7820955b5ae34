"""A set watched while it is made: over real connections, on a real database that goes away and comes back."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from darkroom.config import IsolatedSettings
from darkroom.core.jobs import JobView, StartedJob
from darkroom.core.photos import PhotoView
from darkroom.core.progress import (
    DURATIONS,
    MEASURED_PHOTOS,
    OpenTask,
    Progress,
    read_progress,
    seconds_left,
)
from darkroom.db.database import Connection, Database
from darkroom.edges.serve import listen_on_free_port, make_server
from darkroom.flow.collect_photos import collect_due_photos
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.finish_jobs import finish_due_jobs
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.tell_watchers import tell_watchers
from darkroom.flow.watch_jobs import JobWatch, Seen, changes_since, parse_seen
from darkroom.limits import Limits
from darkroom.ports.generation import Again, FailedThere, GenerationRequest, Working
from darkroom.twin.loopback import loopback
from tests.edges.serving import application_of
from tests.shop import Customer, Shop, open_shop

QUICK = Limits(look_seconds=0.05, look_pause_seconds=0, heartbeat_seconds=0.1)
"""Looking often instead of sleeping: what arrives here by looking arrives in production within 2 s."""
SECONDS = 10


@dataclass
class Event:
    """One event as a browser sees it."""

    kind: str
    id: str
    data: dict[str, Any]


@dataclass
class Page:
    """A page with an EventSource."""

    answer: httpx.Response
    heartbeats: int = 0
    retry: int | None = None
    _lines: list[str] = field(default_factory=list[str])

    async def read(self) -> AsyncGenerator[Event]:
        """The events until the server ends the answer."""
        kind = event_id = ""
        data: list[str] = []
        async for line in self.answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line == "" and data:
                yield Event(kind, event_id, json.loads("\n".join(data)))
                data = []
            elif name == "":
                self.heartbeats += 1
            elif name == "retry":
                self.retry = int(value)
            elif name == "event":
                kind = value
            elif name == "id":
                event_id = value
            elif name == "data":
                data.append(value)


@dataclass
class Theatre:
    """A shop with a server in front of it, and pages that watch."""

    shop: Shop
    app: FastAPI
    address: str
    stack: AsyncExitStack

    @property
    def watch(self) -> JobWatch:
        watch: JobWatch = self.app.state.job_watch
        return watch

    async def ask(self, customer: Customer, job_id: int, last: str | None = None) -> httpx.Response:
        """Open a stream; closed at the end of the test at the latest."""
        client = await self.stack.enter_async_context(
            httpx.AsyncClient(base_url=self.address, timeout=SECONDS)
        )
        headers = {} if last is None else {"Last-Event-ID": last}
        stream = client.stream(
            "GET",
            f"/api/jobs/{job_id}/events",
            params={"telegramUserId": customer.telegram_user_id},
            headers=headers,
        )
        return await self.stack.enter_async_context(stream)

    async def page(self, customer: Customer, job: StartedJob, last: str | None = None) -> Page:
        answer = await self.ask(customer, job.id, last)
        assert answer.status_code == 200
        return Page(answer)

    async def code(self, customer: Customer, job: StartedJob) -> str:
        answer = await self.ask(customer, job.id)
        await answer.aread()
        return answer.json()["error"]["code"]


@asynccontextmanager
async def _opened(shop: Shop) -> AsyncGenerator[Theatre]:
    app = application_of(shop)
    async with loopback(app) as address, AsyncExitStack() as stack:
        async with asyncio.timeout(60):
            yield Theatre(shop, app, address, stack)
            await stack.aclose()
            await app.state.job_watch.stop()


@pytest.fixture
async def theatre(database: Database, tmp_path: Path) -> AsyncGenerator[Theatre]:
    async with open_shop(database, tmp_path, limits=QUICK) as shop, _opened(shop) as theatre:
        yield theatre


async def _one_photo_a_round(shop: Shop) -> None:
    """The provider finishes one photo at each question."""
    ready: set[int] = set()

    async def slowly(request: GenerationRequest) -> Working | None:
        if request.prompt_index in ready:
            return None
        if request.prompt_index == len(ready):
            ready.add(request.prompt_index)
        return Working()

    shop.provider.on_ask = slowly


async def test_all_that_is_there_then_each_change_then_the_end(theatre: Theatre) -> None:
    """bugbook C13, bugbook C24: counted by its own photos, one event each, in order."""
    shop = theatre.shop
    customer, job = await shop.sold()
    other, _ = await shop.sold()
    page = await theatre.page(customer, job)
    assert page.answer.headers["content-type"].startswith("text/event-stream")
    assert page.answer.headers["cache-control"] == "no-store"
    assert page.answer.headers["x-accel-buffering"] == "no"
    events = page.read()
    first = await anext(events)
    path = f"/api/jobs/{job.id}"
    async with httpx.AsyncClient(base_url=theatre.address) as client:
        params = {"telegramUserId": customer.telegram_user_id}
        view = (await client.get(path, params=params)).json()["data"]
    assert (first.kind, first.data) == ("job", view)
    assert view["photos"] == []
    assert view["secondsLeft"] is None, "nothing was measured yet"
    await _one_photo_a_round(shop)
    await shop.drain()
    rest = [event async for event in events]
    photos = [event for event in rest if event.kind == "photo"]
    assert [event.data["photo"]["photoId"] for event in photos] == await _photo_ids(shop, job)
    for event in photos:
        async with httpx.AsyncClient(base_url=theatre.address) as client:
            small = await client.get(event.data["photo"]["thumbnailUrl"])
            assert small.headers["content-type"] == "image/webp"
    last = rest[-1]
    assert (last.kind, last.data["status"], len(last.data["photos"])) == ("end", "completed", 7)
    assert (last.data["completedPhotos"], last.data["secondsLeft"]) == (7, 0)
    assert [event.kind for event in rest].count("end") == 1
    assert len({event.id for event in (first, *rest)}) == len(rest) + 1
    assert page.retry == 2000
    assert other.user_id != customer.user_id
    assert all(event.data["jobId"] == job.id for event in rest)


async def _photo_ids(shop: Shop, job: StartedJob) -> list[int]:
    rows = await shop.rows("SELECT id FROM generated_photos WHERE job_id = %s ORDER BY id", job.id)
    return [row["id"] for row in rows]


async def test_partial_is_an_end(theatre: Theatre) -> None:
    """bugbook C22: the page asked for ever, because it did not know `partial`."""

    async def fail_two(request: GenerationRequest) -> FailedThere | None:
        return FailedThere("NO", "no", Again.NEVER) if request.prompt_index < 2 else None

    theatre.shop.provider.on_ask = fail_two
    customer, job = await theatre.shop.sold()
    page = await theatre.page(customer, job)
    await theatre.shop.drain()
    last = [event async for event in page.read()][-1]
    assert (last.kind, last.data["status"]) == ("end", "partial")
    assert (last.data["completedPhotos"], last.data["failedPhotos"]) == (5, 2)
    assert last.data["refundingMinor"] + last.data["refundedMinor"] > 0
    # Whoever comes back knowing that is told not to come again; whoever knows less is told the rest.
    assert (await theatre.ask(customer, job.id, last.id)).status_code == 204
    again = await theatre.page(customer, job)
    assert [event.kind async for event in again.read()] == ["job", "end"]


@pytest.mark.parametrize("seen_events", range(9))
async def test_coming_back_after_any_event_loses_nothing(
    theatre: Theatre, seen_events: int
) -> None:
    """The page goes away after the n-th event and comes back with its id: no photo twice, none missed."""
    shop = theatre.shop
    customer, job = await shop.sold()
    page = await theatre.page(customer, job)
    events = page.read()
    seen = [await anext(events)]
    assert seen[0].kind == "job"
    await shop.drain()
    for _ in range(seen_events):
        seen.append(await anext(events))
        if seen[-1].kind == "end":
            break
    await page.answer.aclose()
    back = await theatre.ask(customer, job.id, seen[-1].id)
    later = [event async for event in Page(back).read()]
    if seen[-1].kind == "end":
        assert back.status_code == 204
    else:
        assert later[-1].kind == "end"
    told = [event.data["photo"]["photoId"] for event in (*seen, *later) if event.kind == "photo"]
    assert told == await _photo_ids(shop, job)


def _progress(photos: int, *, failed: int = 0, status: str = "processing") -> Progress:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    job = JobView(
        id=1,
        avatar_id=1,
        style_id="s",
        payment_id=1,
        status=status,
        total_photos=7,
        completed_photos=photos,
        failed_photos=failed,
        created_at=now,
        deadline_at=now,
        finished_at=None,
        refunded_minor=0,
        refunding_minor=0,
        currency="RUB",
    )
    rest: dict[str, Any] = dict.fromkeys(PhotoView.__dataclass_fields__)
    fields: list[dict[str, Any]] = [{**rest, "id": number} for number in range(1, photos + 1)]
    views = tuple(PhotoView(**columns) for columns in fields)
    return Progress(job, views, None)


def test_every_cut_between_any_two_states_is_made_up_for() -> None:
    """Each pair of what was seen and what is there, cut after each event: the rest follows, once."""
    states = [
        *(_progress(photos, failed=failed) for photos in range(4) for failed in range(3)),
        _progress(3, failed=2, status="partial"),
        _progress(0, failed=2, status="failed"),
    ]
    for before in states:
        told = list(changes_since(None, before))
        for after in states:
            if len(after.photos) < len(before.photos):
                continue
            whole = list(changes_since(told[0].seen, after))
            for cut in range(len(whole) + 1):
                seen = whole[cut - 1].seen if cut else told[0].seen
                # Through the text of an id, as a browser sends it.
                parsed = parse_seen(str(seen))
                assert parsed == seen
                rest = list(changes_since(parsed, after))
                photos = [change.photo.id for change in (*whole[:cut], *rest) if change.photo]
                assert photos == [photo.id for photo in after.photos[len(before.photos) :]]
                if after.ended:
                    assert [change.kind for change in (*whole[:cut], *rest)].count("end") == 1
                assert not list(changes_since(rest[-1].seen if rest else parsed, after))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        "1",
        "1.2.3",
        "1.2.3.",
        "1.2.3.done.4",
        "-1.0.0.pending",
        "\u0661.0.0.pending",
        "9" * 19 + ".0.0.pending",
        "1.2.3.pending\n",
        "1.2.3.PENDING",
    ],
)
def test_an_id_that_is_not_ours_begins_anew(text: str | None) -> None:
    assert parse_seen(text) is None


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_page_from_another_process_is_never_told_older_news(
    shop: Shop,
    guarded: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look reads, and is slow to tell; meanwhile a page comes that has seen more. And the twin."""
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(tx: Connection, job_ids: Sequence[int]) -> dict[int, Progress]:
        found = await read_progress(tx, job_ids)
        entered.set()
        await gate.wait()
        return found

    monkeypatch.setattr("darkroom.flow.watch_jobs.read_progress", slow)
    customer, job = await shop.sold()
    async with open_watch(shop) as watch:
        here = await watch.watch(user_id=customer.user_id, job_id=job.id, seen=None)
        await entered.wait()
        await submit_due_tasks(shop.darkroom)
        await poll_due_tasks(shop.darkroom)
        await collect_due_photos(shop.darkroom)
        seen = Seen((await _photo_ids(shop, job))[-1], 7, 0, "processing")
        there = await watch.watch(user_id=customer.user_id, job_id=job.id, seen=seen)
        assert here is not None
        assert there is not None
        if not guarded:
            monkeypatch.setattr(there, "_first_look", 0)
        told = asyncio.ensure_future(anext(aiter(there)))
        await asyncio.sleep(0)
        await finish_due_jobs(shop.darkroom)
        gate.set()
        change = await told
        assert change is not None
        completed = change.progress.job.completed_photos
        assert (change.kind, completed) == (("end", 7) if guarded else ("status", 0))
        await here.aclose()
        await there.aclose()


async def test_two_tabs_are_one_question_to_the_database(theatre: Theatre) -> None:
    shop = theatre.shop
    customer, job = await shop.sold()
    pages = [await theatre.page(customer, job) for _ in range(3)]
    readers = [page.read() for page in pages]
    firsts = [await anext(reader) for reader in readers]
    assert {event.kind for event in firsts} == {"job"}
    await shop.drain()
    ends = [[event async for event in reader] for reader in readers]
    shown = [
        [event.data["photo"]["photoId"] for event in end if event.kind == "photo"] for end in ends
    ]
    assert shown == [await _photo_ids(shop, job)] * 3
    assert {end[-1].kind for end in ends} == {"end"}


async def test_a_ring_wakes_the_look_and_without_it_looking_is_enough(
    database: Database, tmp_path: Path
) -> None:
    """The same story with rings and no looking by itself, and with looking and no rings."""
    hours = Limits(look_seconds=3600, look_pause_seconds=0)
    async with open_shop(database, tmp_path, limits=hours) as shop, _opened(shop) as theatre:
        customer, job = await shop.sold()
        page = await theatre.page(customer, job)
        events = page.read()
        assert (await anext(events)).kind == "job"
        await _listening(shop)
        await shop.drain()
        assert [event async for event in events][-1].kind == "end"


class _Hours:
    """A clock on which an hour goes by between two looks at it."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 3600
        return self._now


async def test_a_lone_ring_is_answered_at_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause is between two looks: after a quiet hour none of it is left, and a customer waits for none."""
    monkeypatch.setattr("darkroom.flow.watch_jobs.time", _Hours())
    limits = Limits(look_seconds=3600, look_pause_seconds=600, stream_seconds=10**9)
    async with open_shop(database, tmp_path, limits=limits) as shop, _opened(shop) as theatre:
        customer, job = await shop.sold()
        events = (await theatre.page(customer, job)).read()
        assert (await anext(events)).kind == "job"
        await _listening(shop)
        await shop.drain()
        assert [event async for event in events][-1].kind == "end"


async def _listening(shop: Shop) -> None:
    while not await shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND query = 'LISTEN \"darkroom_jobs\"'"
    ):
        await asyncio.sleep(0.01)


async def test_behind_a_pooler_nobody_listens_and_everything_arrives(
    dsn: str, tmp_path: Path
) -> None:
    database = Database(dsn, prepare_statements=False)
    await database.open()
    async with open_shop(database, tmp_path, limits=QUICK) as shop, _opened(shop) as theatre:
        customer, job = await shop.sold()
        events = (await theatre.page(customer, job)).read()
        assert (await anext(events)).kind == "job"
        await shop.drain()
        assert [event async for event in events][-1].kind == "end"
        assert not await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE 'LISTEN%%'"
        )
    await database.close()


async def test_watching_holds_no_connection(dsn: str, tmp_path: Path) -> None:
    """Twelve pages on a pool of two: both are free while nothing happens, and one listener serves all."""
    database = Database(dsn, pool_size=2)
    await database.open()
    limits = Limits(look_seconds=3600, look_pause_seconds=0, heartbeat_seconds=0.05)
    async with open_shop(database, tmp_path, limits=limits) as shop, _opened(shop) as theatre:
        pages: list[Page] = []
        for _ in range(4):
            customer, job = await shop.sold()
            pages += [await theatre.page(customer, job) for _ in range(3)]
        readers = [page.read() for page in pages]
        assert {(await anext(reader)).kind for reader in readers} == {"job"}
        await _listening(shop)
        async with database.connection() as one, database.connection() as two:
            for tx in (one, two):
                await tx.execute("SELECT 1")
            await asyncio.sleep(0.05)
        listeners = await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND query LIKE 'LISTEN%%'"
        )
        everybody = await shop.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'darkroom'"
        )
        assert listeners == 1
        assert everybody <= 3
        for reader in readers:
            await reader.aclose()
    await database.close()


async def test_heartbeats_while_nothing_happens(theatre: Theatre) -> None:
    customer, job = await theatre.shop.sold()
    page = await theatre.page(customer, job)
    events = page.read()
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    while page.heartbeats < 2:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting


async def test_every_connection_killed_and_the_stream_goes_on(
    theatre: Theatre, server: str
) -> None:
    """The database goes away under a stream, listener and all, and comes back: nothing is missed."""
    shop = theatre.shop
    customer, job = await shop.sold()
    page = await theatre.page(customer, job)
    events = page.read()
    assert (await anext(events)).kind == "job"
    name = await shop.value("SELECT current_database()")
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS FALSE'.encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        waiting = asyncio.ensure_future(anext(events))
        beats = page.heartbeats
        while page.heartbeats < beats + 2:
            await asyncio.sleep(0.01)
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS TRUE'.encode())
    await _back(shop)
    await shop.drain()
    rest = [await waiting, *[event async for event in events]]
    told = [event.data["photo"]["photoId"] for event in rest if event.kind == "photo"]
    assert told == await _photo_ids(shop, job)
    assert rest[-1].kind == "end"


async def _back(shop: Shop) -> None:
    while True:
        try:
            await shop.value("SELECT 1")
        except Exception:  # noqa: BLE001 - whatever a database says that is coming back
            await asyncio.sleep(0.02)
        else:
            return


async def test_nobody_elses_and_nothing(theatre: Theatre) -> None:
    """bugbook G18: a job's id is not a permission."""
    customer, job = await theatre.shop.sold()
    stranger = await theatre.shop.customer()
    assert await theatre.code(stranger, job) == "JOB_NOT_FOUND"
    assert await theatre.code(customer, replace(job, id=10**15)) == "JOB_NOT_FOUND"
    async with httpx.AsyncClient(base_url=theatre.address) as client:
        assert (await client.get(f"/api/jobs/{job.id}/events")).status_code == 401


async def test_no_more_than_five_pages_of_one_user(theatre: Theatre) -> None:
    customer, job = await theatre.shop.sold()
    neighbour, theirs = await theatre.shop.sold()
    answers = await asyncio.gather(*(theatre.ask(customer, job.id) for _ in range(9)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 4
    refused = next(answer for answer in answers if answer.status_code == 429)
    await refused.aread()
    assert refused.json()["error"]["code"] == "TOO_MANY_STREAMS"
    assert (await theatre.ask(neighbour, theirs.id)).status_code == 200
    # A page that is closed gives its place back.
    await next(answer for answer in answers if answer.status_code == 200).aclose()
    while (await theatre.ask(customer, job.id)).status_code != 200:
        await asyncio.sleep(0.02)


async def test_without_the_count_all_nine_get_in(theatre: Theatre) -> None:
    """The twin of the test above."""
    watch = JobWatch(
        replace(theatre.shop.darkroom, limits=QUICK.model_copy(update={"streams_per_user": 10**9}))
    )
    customer, job = await theatre.shop.sold()
    opened = await asyncio.gather(
        *(watch.watch(user_id=customer.user_id, job_id=job.id, seen=None) for _ in range(9))
    )
    assert all(opened)
    for stream in opened:
        assert stream is not None
        await stream.aclose()
        await stream.aclose()
    await watch.stop()


async def test_a_full_process_says_come_back(theatre: Theatre) -> None:
    watch = JobWatch(
        replace(theatre.shop.darkroom, limits=QUICK.model_copy(update={"streams_per_process": 1}))
    )
    customer, job = await theatre.shop.sold()
    first = await watch.watch(user_id=customer.user_id, job_id=job.id, seen=None)
    assert first is not None
    with pytest.raises(RequestRefusedError) as refusal:
        await watch.watch(user_id=customer.user_id, job_id=job.id, seen=None)
    assert (refusal.value.status, refusal.value.code) == (503, "TOO_MANY_STREAMS")
    await first.aclose()
    await watch.stop()
    with pytest.raises(RequestRefusedError):
        await watch.watch(user_id=customer.user_id, job_id=job.id, seen=None)


async def test_when_the_last_page_leaves_nothing_runs(theatre: Theatre) -> None:
    customer, job = await theatre.shop.sold()
    page = await theatre.page(customer, job)
    # Kept: a generator that nobody holds is closed at once, and the page with it.
    events = page.read()
    await anext(events)
    await _listening(theatre.shop)
    await page.answer.aclose()
    while await theatre.shop.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND query LIKE 'LISTEN%%'"
    ):
        await asyncio.sleep(0.02)
    # And the next one finds everything again.
    again = (await theatre.page(customer, job)).read()
    assert (await anext(again)).kind == "job"


async def test_a_stream_ends_after_its_time_and_the_page_comes_back(
    database: Database, tmp_path: Path
) -> None:
    """An ended session lives on no longer than one stream."""
    limits = QUICK.model_copy(update={"stream_seconds": 0.2})
    async with open_shop(database, tmp_path, limits=limits) as shop, _opened(shop) as theatre:
        customer, job = await shop.sold()
        page = await theatre.page(customer, job)
        kinds = [event async for event in page.read()]
        assert [event.kind for event in kinds] == ["job"]
        await shop.drain()
        rest = [event async for event in (await theatre.page(customer, job, kinds[0].id)).read()]
        assert [event.kind for event in rest] == ["photo"] * 7 + ["end"]


async def test_a_server_that_stops_ends_its_streams_at_once(
    database: Database, tmp_path: Path
) -> None:
    """With the server of `darkroom serve`: uvicorn alone would wait for the pages to leave."""
    async with open_shop(database, tmp_path) as shop:
        app = application_of(shop)
        listening = listen_on_free_port()
        port = listening.getsockname()[1]
        settings = IsolatedSettings.model_validate(
            {"DARKROOM_MODE": "demo", "DARKROOM_DATA_DIR": tmp_path, "DARKROOM_PORT": port}
        )
        server = make_server(app, settings)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with AsyncExitStack() as stack:
            theatre = Theatre(shop, app, f"http://127.0.0.1:{port}", stack)
            customer, job = await shop.sold()
            while not server.started:
                await asyncio.sleep(0.01)
            page = await theatre.page(customer, job)
            events = page.read()
            assert (await anext(events)).kind == "job"
            began = time.monotonic()
            server.should_exit = True
            assert [event.kind async for event in events] == []
            await stack.aclose()
            await serving
            assert time.monotonic() - began < 2
        listening.close()


async def test_a_ring_that_finds_no_database_is_lost_quietly(shop: Shop) -> None:
    await shop.database.close()
    await tell_watchers(shop.darkroom, [1])
    shop.audit_at_end = False


async def test_time_left_is_measured(shop: Shop) -> None:
    """Five photos of one provider say how long its next one takes; nobody else's do."""
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    await shop.advance(10)
    await poll_due_tasks(shop.darkroom)
    await collect_due_photos(shop.darkroom)
    await finish_due_jobs(shop.darkroom)
    _, waiting = await shop.sold()
    async with open_watch(shop) as watch:
        stream = await watch.watch(
            user_id=await shop.value(
                "SELECT user_id FROM generation_jobs WHERE id = %s", waiting.id
            ),
            job_id=waiting.id,
            seen=None,
        )
        assert stream is not None
        first = await anext(aiter(stream))
        assert first is not None
        assert 10 <= (first.progress.seconds_left or 0) <= 12
        await stream.aclose()
    del job


@asynccontextmanager
async def open_watch(shop: Shop) -> AsyncGenerator[JobWatch]:
    watch = JobWatch(shop.darkroom)
    yield watch
    await watch.stop()


@pytest.mark.parametrize(
    ("age", "measured", "left"),
    [
        (0, [], None),
        (0, [9] * 4, None),
        (0, [10] * 5, 10),
        (4, [10] * 5, 6),
        # Longer than anything measured: nobody knows, nobody says.
        (11, [10] * 5, None),
        (0, [1, 2, 3, 4, 5, 6, 7, 8], 7),
        # It has waited six already: only those that took longer say something.
        (6.5, [1, 2, 3, 4, 5, 6, 7, 8], 2),
    ],
)
def test_time_left(age: float, measured: list[float], left: int | None) -> None:
    assert seconds_left([OpenTask(1, "studio", age)], {"studio": measured}) == left
    assert seconds_left([OpenTask(1, "other", age)], {"studio": measured}) is None
    assert seconds_left([], {"studio": measured}) == 0
    assert Seen(1, 2, 3, "pending") == parse_seen("1.2.3.pending")


async def test_durations_are_read_from_the_newest_end_of_an_index(shop: Shop) -> None:
    """bugbook H19: lists without a limit. This one reads 200 rows of any number."""
    await shop.sold()
    await shop.drain()
    async with shop.database.transaction() as tx:
        await tx.execute("SET LOCAL enable_seqscan = off")
        await tx.execute("SET LOCAL enable_sort = off")
        plan = await (await tx.execute("EXPLAIN " + DURATIONS, [MEASURED_PHOTOS])).fetchall()
    text = "\n".join(row[0] for row in plan)
    assert "Index Scan Backward using generated_photos_pkey" in text
    assert "Seq Scan" not in text
