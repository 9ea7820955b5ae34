"""The model of the older design: it works in peace, and each known flaw loses what it is known to lose."""

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from bench.previous_design import DESIGN
from bench.previous_design.database import Settings
from bench.previous_design.outside import PROCESS_PATH, RefundDoor, open_books
from bench.previous_design.server import PreviousServer
from bench.previous_design.worker import PreviousWorker, partial_refund_minor

from darkroom.db.database import Database
from darkroom.kit.checkpoint import checkpoints_handled_by
from darkroom.torture.design import Sold, Surroundings, Verdict
from darkroom.torture.plan import make_plan
from darkroom.torture.run import made_of
from darkroom.twin.bank import SandboxBank
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Fault, Habits, Kind
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import sign_delivery

PLAN: Final = make_plan(1, orders=1, minutes=1, workers=1)
CUSTOMER: Final = PLAN.customers[0]
SOON_SECONDS: Final = 15
STARTER_MINOR: Final = 49_900


@dataclass
class Town:
    """The outsides, and where a design finds them. The server is a process, or this one's."""

    places: Surroundings
    kie: KieTwin
    bank: SandboxBank
    avatar_id: int
    http: httpx.AsyncClient

    async def press(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(path, json={"telegramUserId": CUSTOMER, **body})
        content: dict[str, Any] = answer.json()
        return content

    async def paid(self) -> int:
        """A starter, ordered and paid; the bank's notice has arrived."""
        order = (await self.press("/api/payments", {"tierId": "starter"}))["data"]
        assert order["photoCount"] == 7
        bank_payment_id = str(order["checkoutUrl"]).rpartition("/")[2]
        self.bank.decide(bank_payment_id, "paid")
        # Where the server is this process, nobody listens at its address.
        event_id = self.bank.event_of(bank_payment_id)
        assert event_id is not None
        url, headers, content = self.bank.notice(event_id)
        answer = await self.http.post(httpx.URL(url).path, headers=headers, content=content)
        assert answer.text == "OK"
        return int(order["paymentId"])

    async def generate(self, payment_id: int) -> int:
        wish = {"avatarId": self.avatar_id, "styleId": "signature", "paymentId": payment_id}
        return int((await self.press("/api/generate", wish))["data"]["jobId"])

    async def value(self, query: Any) -> Any:  # noqa: ANN401 - one column of any type
        async with await psycopg.AsyncConnection.connect(self.places.calm_dsn) as connection:
            row = await (await connection.execute(query)).fetchone()
            return row[0] if row else None

    async def judge(self, payment_id: int, *jobs: int) -> Verdict:
        """The verdict on this one order."""
        sale = Sold(
            payment_id,
            photos=7,
            paid_minor=sum(int(row["amount_minor"]) for row in self.bank.payments()),
            bank_payments=len(self.bank.payments()),
            job_ids=frozenset(jobs),
        )
        made = [made_of(task) for task in self.kie.tasks.values()]
        return await DESIGN.judge(self.places, [sale], made)


@pytest.fixture
async def town(empty_database: Database, tmp_path: Path) -> AsyncGenerator[Town]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        kie = await enter(kie_twin(Habits(asks_to_finish=1, creates_limit=None)))
        bank = SandboxBank(secret="shared", file=tmp_path / "bank.sqlite", public_url="http://bank")
        await enter(bank.running())
        places = Surroundings(
            folder=tmp_path / "shop",
            dsn=empty_database.dsn,
            calm_dsn=empty_database.dsn,
            server_port=port,
            server_url=f"http://127.0.0.1:{port}",
            provider_url=kie.base_url,
            provider_key="twin-key",
            bank_url=await enter(loopback(bank.app)),
            bank_secret="shared",
            queue_key="sig_the_queue_signs_with_this_key",
        )
        avatars = await DESIGN.prepare(places, PLAN)
        http = await enter(httpx.AsyncClient(base_url=places.server_url, trust_env=False))
        yield Town(places, kie, bank, avatars[CUSTOMER], http)


@dataclass
class Inside:
    """Server and worker in this process, moved by hand. `town.http` leads to this server."""

    town: Town
    server: PreviousServer
    worker: PreviousWorker

    async def deliver(self, message_id: str, body: bytes) -> httpx.Response:
        url = f"{self.town.places.server_url}{PROCESS_PATH}"
        return await self.town.http.post(
            PROCESS_PATH,
            content=body,
            headers={
                "Upstash-Message-Id": message_id,
                "Upstash-Signature": sign_delivery(body, url=url, key=self.town.places.queue_key),
            },
        )

    async def deliver_all(self) -> None:
        while messages := self.server.queue.due():
            for message_id, body in messages:
                assert (await self.deliver(message_id, body)).json()["success"]


@pytest.fixture
async def inside(town: Town) -> AsyncGenerator[Inside]:
    settings = replace(Settings.of(town.places, life="1"), stuck_seconds=0)
    server, worker = PreviousServer(settings), PreviousWorker(settings)
    transport = httpx.ASGITransport(app=server.app)
    async with httpx.AsyncClient(transport=transport, base_url=town.places.server_url) as http:
        yield Inside(replace(town, http=http), server, worker)
    await worker.close()
    await server.close()


@asynccontextmanager
async def running(town: Town, role: str) -> AsyncGenerator[None]:
    """A real process of the design."""
    process = await asyncio.create_subprocess_exec(
        *DESIGN.command(town.places, role, life=f"1/{role}"),
        env={**os.environ, **DESIGN.environment(town.places)},
        cwd=town.places.folder,
    )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_SECONDS):
        while not await true():
            await asyncio.sleep(0.05)


def both_at(*names: str) -> Callable[[str], Awaitable[None]]:
    """The first two who pass one of these checkpoints wait there for each other."""
    meetings = {name: asyncio.Barrier(2) for name in names}
    visits = dict.fromkeys(names, 0)

    async def meet(name: str) -> None:
        if name in visits and visits[name] < 2:
            visits[name] += 1
            async with asyncio.timeout(SOON_SECONDS):
                await meetings[name].wait()

    return meet


@pytest.mark.slow
async def test_in_peace_an_order_becomes_seven_photos(town: Town) -> None:
    """No straw man: real processes, real HTTP, and nothing to complain about."""

    async def is_up() -> bool:
        with suppress(httpx.HTTPError):
            return (await town.http.get("/")).status_code == 404
        return False

    async def is_quiet() -> bool:
        async with await psycopg.AsyncConnection.connect(town.places.calm_dsn) as connection:
            standing = await DESIGN.standing(connection)
            assert await DESIGN.held(connection) == []
            assert await DESIGN.newest_move(connection) > 0
        return standing.jobs_ended == 1 and standing.open_work == 0

    town.places.folder.mkdir(exist_ok=True)
    async with running(town, "server"), running(town, "worker"):
        await until(is_up)
        payment_id = await town.paid()
        job_id = await town.generate(payment_id)
        await until(is_quiet)
    assert await town.value("SELECT status FROM generation_jobs") == "completed"
    assert await town.value("SELECT completed_photos FROM generation_jobs") == 7
    assert town.kie.tasks_created == 7
    verdict = await town.judge(payment_id, job_id)
    assert verdict == Verdict(photos=7)
    assert verdict.clean


async def test_two_presses_at_once_make_two_jobs(inside: Inside) -> None:
    """bugbook A1: the flag is set long after it was looked at."""
    town = inside.town
    payment_id = await town.paid()
    with checkpoints_handled_by(both_at("previous.payment_checked")):
        jobs = await asyncio.gather(*(town.generate(payment_id) for _ in range(2)))
    refusal = await town.press("/api/generate", {"avatarId": town.avatar_id, "styleId": "creative"})
    assert refusal["error"]["code"] == "PAYMENT_CONSUMED"
    verdict = await town.judge(payment_id, *jobs)
    assert any(f"jobs {sorted(jobs)}" in complaint for complaint in verdict.doubled)


async def test_a_death_after_the_payment_is_consumed_loses_the_set(inside: Inside) -> None:
    """bugbook A2: two statements, no transaction, and no cron that looks at payments."""
    town = inside.town

    async def die(name: str) -> None:
        if name == "previous.payment_consumed":
            raise ConnectionError

    payment_id = await town.paid()
    wish = {"avatarId": town.avatar_id, "styleId": "signature", "paymentId": payment_id}
    with checkpoints_handled_by(die):
        answer = await town.press("/api/generate", wish)
    assert answer["error"]["code"] == "INTERNAL_ERROR"
    await inside.worker.give_up_stuck()
    verdict = await town.judge(payment_id)
    assert len(verdict.lost) == 7
    assert len(verdict.unexplained) == 1


async def test_a_photo_that_cannot_be_inserted_is_lost_in_a_completed_task(inside: Inside) -> None:
    """bugbook C1: the insert's error is logged, and the task is completed all the same."""
    town = inside.town
    async with await psycopg.AsyncConnection.connect(
        town.places.calm_dsn, autocommit=True
    ) as connection:
        await connection.execute("ALTER TABLE generated_photos ADD CHECK (prompt_index <> 3)")
    payment_id = await town.paid()
    job_id = await town.generate(payment_id)
    await inside.deliver_all()
    await inside.worker.poll()
    assert await town.value("SELECT status FROM generation_jobs") == "completed"
    assert await town.value("SELECT count(*) FROM kie_tasks WHERE status = 'completed'") == 7
    verdict = await town.judge(payment_id, job_id)
    assert verdict.photos == 6
    assert len(verdict.lost) == 1
    assert "no photo, and its task is completed" in verdict.lost[0]


async def test_a_picture_that_cannot_be_fetched_stays_at_the_provider(inside: Inside) -> None:
    """bugbook C15: its address is kept as the photo, and dies."""
    town = inside.town
    payment_id = await town.paid()
    await town.generate(payment_id)
    await inside.deliver_all()
    town.kie.script("result", Fault(Kind.ANSWER, 503))
    await inside.worker.poll()
    verdict = await town.judge(payment_id)
    assert verdict.photos == 6
    assert ["only at the provider's address" in complaint for complaint in verdict.lost] == [True]


async def test_a_message_redelivered_at_the_same_time_doubles_tasks(inside: Inside) -> None:
    """bugbook B2: looked up first, recorded last."""
    town = inside.town
    payment_id = await town.paid()
    await town.generate(payment_id)
    ((message_id, body),) = inside.server.queue.due()
    looks = ("previous.message_looked_up", "previous.job_looked_up", "previous.task_looked_up")
    with checkpoints_handled_by(both_at(*looks)):
        answers = await asyncio.gather(*(inside.deliver(message_id, body) for _ in range(2)))
    assert [answer.json() for answer in answers] == [{"success": True}] * 2
    again = await inside.deliver(message_id, body)
    assert again.json()["duplicate"]
    verdict = await town.judge(payment_id)
    assert town.kie.tasks_created > 5
    assert any("another task for photo 0" in complaint for complaint in verdict.doubled)


async def test_a_task_made_before_its_row_is_nobodys(inside: Inside) -> None:
    """bugbook B6, bugbook B4: the provider is paid, then we die; and the retry finds its own mark."""
    town = inside.town

    async def die(name: str) -> None:
        if name == "previous.task_created":
            raise ConnectionError

    payment_id = await town.paid()
    await town.generate(payment_id)
    ((message_id, body),) = inside.server.queue.due()
    with checkpoints_handled_by(die):
        assert (await inside.deliver(message_id, body)).status_code == 500
    assert (await inside.deliver(message_id, body)).json()["message"] == "already processing"
    assert town.kie.tasks_created == 1
    # Only the cron for stuck jobs ends this one, with the whole price.
    await inside.worker.give_up_stuck()
    verdict = await town.judge(payment_id)
    assert verdict.paid_back == 7
    assert not verdict.lost
    assert ["no row knows it" in complaint for complaint in verdict.unexplained] == [True]


async def test_a_finished_set_that_was_not_closed_is_paid_back(inside: Inside) -> None:
    """bugbook C6, bugbook C9, bugbook C10: no pending task, no closing; then the whole price goes back."""
    town = inside.town

    async def die(name: str) -> None:
        if name == "previous.job_counted":
            raise ConnectionError

    payment_id = await town.paid()
    await town.generate(payment_id)
    await inside.deliver_all()
    with checkpoints_handled_by(die), suppress(ConnectionError):
        await inside.worker.poll()
    await inside.worker.poll()
    assert await town.value("SELECT status FROM generation_jobs") == "processing"
    await inside.worker.give_up_stuck()
    verdict = await town.judge(payment_id)
    assert verdict.photos == verdict.paid_back == 7
    assert ["a photo and its money" in complaint for complaint in verdict.doubled] == [True] * 7


async def test_a_photo_that_failed_is_paid_back_in_part(inside: Inside) -> None:
    """What worked: its share in whole rubles, and nothing to complain about."""
    town = inside.town
    town.kie.script("create", Fault(Kind.ANSWER, 500))
    payment_id = await town.paid()
    await town.generate(payment_id)
    await inside.deliver_all()
    await inside.worker.poll()
    assert await town.value("SELECT status FROM generation_jobs") == "partial"
    books = open_books(town.places.folder)
    part = partial_refund_minor(STARTER_MINOR, failed=1, total=7)
    assert RefundDoor(books).paid_back() == {payment_id: part}
    books.close()
    verdict = await town.judge(payment_id)
    assert (verdict.photos, verdict.paid_back) == (6, 1)
    assert verdict.clean
