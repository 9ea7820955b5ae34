"""Promise 5: whatever is killed or silent, work resumes within the lease, with no person and no restart."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from darkroom.core.answers import CreatedThere, write_created
from darkroom.core.attempts import begin_calls
from darkroom.core.audit import run_audit
from darkroom.core.leases import renew_leases
from darkroom.core.tasks import TaskClaim, claim_queued
from darkroom.db.database import Database
from darkroom.edges.worker import Worker
from darkroom.flow import tell_watchers
from darkroom.flow.darkroom import request_of
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.poll_tasks import poll_due_tasks
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.kit.checkpoint import checkpoint, checkpoints_handled_by
from darkroom.limits import Limits
from darkroom.ports.generation import (
    FailedThere,
    GenerationRequest,
    ProviderUnavailableError,
    Ready,
    Working,
)
from darkroom.ports.storage import StorageUnavailableError
from tests.shop import Shop, open_shop


async def test_with_every_doorbell_off_an_order_still_finishes(shop: Shop) -> None:
    """No notice, no callback, no queue, nobody's browser: only rounds of the slow poll (bugbook A14)."""
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    shop.bank.pays(payment_id)
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


JOBS_COMPLETED = "SELECT count(*) FROM generation_jobs WHERE status = 'completed'"


class _DeafDoorbell:
    """Nobody hears it: neither a worker of this process nor one elsewhere."""

    async def ring(
        self, job_id: int | None = None, *, step: str = "", after_seconds: float = 0
    ) -> None:
        del job_id, step, after_seconds

    async def wake(self, *steps: str, after_seconds: float = 0) -> None:
        """Nobody wakes."""

    async def wait(self, timeout_seconds: float, step: str = "") -> bool:
        del step
        await asyncio.sleep(min(timeout_seconds, 0.01))
        return False


async def test_a_worker_that_hears_no_bell_finishes_every_order(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker itself, in real time: no notice, callback, queue or cron, no NOTIFY and no LISTEN either."""

    async def unheard(_tx: object, _job_ids: object) -> None:
        return None

    monkeypatch.setattr(tell_watchers, "ring_watchers", unheard)
    limits = Limits(payment_ask_first_seconds=0, poll_first_seconds=0, poll_cap_seconds=0.05)
    database = Database(dsn, prepare_statements=False)
    await database.open()
    async with open_shop(database, tmp_path, limits=limits) as shop:
        shop.darkroom = replace(shop.darkroom, doorbell=_DeafDoorbell())
        for _ in range(3):
            customer = await shop.customer()
            shop.bank.pays(await shop.ordered(customer, order_style="signature"))
        await shop.paid(await shop.customer(), order_style="creative")
        async with asyncio.timeout(60), Worker(shop.darkroom).running():
            while await shop.value(JOBS_COMPLETED) < 4:
                await asyncio.sleep(0.05)
        assert await shop.value("SELECT count(*) FROM generated_photos") == 28
        assert (await run_audit(database)).clean
    await database.close()


async def test_a_payment_nobody_answers_for_never_expires(shop: Shop) -> None:
    """bugbook E2, bugbook E22: an error of the bank expired paid payments."""
    customer = await shop.customer()
    await shop.ordered(customer)
    shop.bank.silent = True
    for _ in range(30):
        await shop.round()
        await shop.advance(3600)
    assert await shop.value("SELECT status FROM payments") == "pending"
    shop.bank.silent = False
    await shop.advance(3600)
    await shop.round()
    assert await shop.value("SELECT status FROM payments") == "expired"


async def test_money_after_expiry_is_still_money_and_starts_its_order(shop: Shop) -> None:
    customer = await shop.customer()
    payment_id = await shop.ordered(customer, order_style="signature")
    await shop.advance(90_000)
    await shop.round()
    assert await shop.value("SELECT status FROM payments") == "expired"
    await shop.notify(payment_id)
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_an_order_opened_while_the_bank_was_silent_is_found_by_the_same_request(
    shop: Shop,
) -> None:
    """bugbook E1, bugbook A27: a crash after the bank's Init lost the payment; a double click paid twice."""
    customer = await shop.customer()

    def request() -> OrderRequest:
        return OrderRequest(customer.user_id, "starter", "bank", None, None, "click", uuid4())

    shop.bank.silent = True
    with pytest.raises(RequestRefusedError, match="PAYMENT_PROVIDER_UNAVAILABLE"):
        await order_photos(shop.darkroom, request())
    shop.bank.silent = False
    again = await asyncio.gather(*(order_photos(shop.darkroom, request()) for _ in range(5)))
    assert len({payment.id for payment in again}) == 1
    assert set(shop.bank.keys) == {f"{again[0].id}-1"}


async def test_all_outside_calls_cut_in_the_middle_and_the_photos_come_later(shop: Shop) -> None:
    """Manual acceptance script 4; bugbook C1: 15 tasks completed, 0 photos."""
    down = False

    async def ask(_request: GenerationRequest) -> Working | Ready | FailedThere | None:
        if down:
            raise ProviderUnavailableError("down")
        return None

    async def fetch(request: GenerationRequest) -> bytes | None:
        if down or request.prompt_index % 2:
            raise ProviderUnavailableError("down")
        return None

    shop.provider.on_ask = ask
    shop.provider.on_fetch = fetch
    _, job = await shop.sold()
    for _ in range(3):
        await shop.round()
    assert 0 < (await shop.job(job.id))["completed_photos"] < 7
    down = True
    for _ in range(20):
        await shop.round()
        await shop.advance(5)
    down = False
    shop.provider.on_fetch = None
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7
    assert await shop.value("SELECT count(*) FROM generated_photos") == 7


async def test_a_silent_store_loses_nothing_and_buys_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bugbook C15, bugbook C16: an upload error was swallowed; the retry made an orphan under a new key."""
    put_once = shop.darkroom.store.put_once
    failing = 10

    async def sometimes(_store: object, key: str, data: bytes, content_type: str) -> None:
        nonlocal failing
        failing -= 1
        if failing > 0 and failing % 2:
            await put_once(key, data, content_type)  # stored, and the answer lost
        if failing > 0:
            raise StorageUnavailableError("no answer")
        await put_once(key, data, content_type)

    _, job = await shop.sold()
    monkeypatch.setattr(type(shop.darkroom.store), "put_once", sometimes)
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_database_error_on_the_photo_row_buys_no_new_generation(shop: Shop) -> None:
    """bugbook C1, bugbook C19: the error path neither failed nor alarmed; here it waits with the bytes safe."""
    _, job = await shop.sold()
    async with shop.database.connection() as tx:
        await tx.execute(
            "ALTER TABLE generated_photos ADD CONSTRAINT broken CHECK (FALSE) NOT VALID"
        )
    for _ in range(10):
        await shop.round()
        await shop.advance(61)
    assert set(await shop.statuses()) == {"storing"}
    assert await shop.value("SELECT min(attempts) FROM kie_tasks") >= 3
    async with shop.database.connection() as tx:
        await tx.execute("ALTER TABLE generated_photos DROP CONSTRAINT broken")
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 7


async def test_a_task_its_provider_forgets_gets_another_attempt(shop: Shop) -> None:
    """bugbook C7, bugbook C8: tasks polled for ever."""
    forgotten: set[int] = set()

    async def ask(request: GenerationRequest) -> Working | None:
        number = await shop.value(
            "SELECT max(number) FROM task_attempts WHERE task_id = %s", request.task_id
        )
        forgotten.add(request.task_id)
        return Working() if number == 1 else None

    shop.provider.on_ask = ask
    _, job = await shop.sold()
    await shop.drain(stride_seconds=1)
    assert len(forgotten) == 7
    assert (await shop.job(job.id))["status"] == "completed"
    assert len(shop.provider.created) == 14


async def test_an_adapter_that_breaks_is_an_unknown_answer(shop: Shop) -> None:
    broken = True

    async def create(_request: GenerationRequest) -> None:
        if broken:
            raise RuntimeError("bug in an adapter")

    shop.provider.on_create = create
    _, job = await shop.sold()
    await submit_due_tasks(shop.darkroom)
    assert set(await shop.statuses()) == {"unknown"}
    broken = False
    await shop.drain()
    assert (await shop.job(job.id))["status"] == "completed"


async def test_one_bad_row_stops_only_itself(shop: Shop) -> None:
    """bugbook C20: one exception blocked every later job."""

    async def ask(request: GenerationRequest) -> None:
        if request.prompt_index == 0:
            raise RuntimeError("bug in an adapter")

    shop.provider.on_ask = ask
    _, job = await shop.sold()
    await shop.drain()
    assert (await shop.job(job.id))["completed_photos"] == 6


async def test_a_worker_that_lost_its_lease_is_stopped_and_its_answer_is_kept(shop: Shop) -> None:
    """What was answered is a fact; only the move is fenced."""
    await shop.sold()
    entered = asyncio.Event()
    cancelled = False

    async def slow(request: GenerationRequest) -> None:
        nonlocal cancelled
        if request.prompt_index == 0:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

    shop.provider.on_create = slow
    submitting = asyncio.create_task(submit_due_tasks(shop.darkroom))
    await entered.wait()
    async with shop.database.connection() as tx:
        await tx.execute("UPDATE kie_tasks SET claim = claim + 1 WHERE prompt_index = 0")
    await shop.darkroom.leases.renew()
    assert await submitting == 7
    assert cancelled
    shop.provider.on_create = None
    await shop.drain()


async def test_a_late_answer_is_written_by_a_worker_that_lost_its_lease(shop: Shop) -> None:
    await shop.sold()
    async with shop.database.connection() as tx:
        tasks = await claim_queued(tx, provider="scripted", limit=1, lease_seconds=10)
        assert await begin_calls(tx, tasks)
    await shop.advance(11)
    await shop.round()
    assert (await shop.statuses())[0] == "unknown"
    made = shop.provider.make(_request_of(tasks[0]))
    async with shop.database.transaction() as tx:
        moved = await write_created(tx, [CreatedThere(tasks[0], made.provider_task_id, 0)])
    assert moved == set()
    await shop.drain()
    # The answer was kept as a fact: no second task was bought for this photo.
    assert len(shop.provider.created) == 7


def _request_of(task: object) -> GenerationRequest:
    assert isinstance(task, TaskClaim)
    return request_of(task, ())


async def test_leases_of_a_live_worker_are_renewed_in_one_statement(shop: Shop) -> None:
    """A photo that takes longer than a lease is still worked on once."""
    await shop.sold()
    asked: list[int] = []
    entered = asyncio.Event()
    let_go = asyncio.Event()

    async def slow(request: GenerationRequest) -> None:
        asked.append(request.task_id)
        entered.set()
        await let_go.wait()

    await submit_due_tasks(shop.darkroom)
    shop.provider.on_ask = slow
    polling = asyncio.create_task(poll_due_tasks(shop.darkroom))
    await entered.wait()
    for _ in range(3):
        await shop.advance(8)
        await shop.darkroom.leases.renew()
        assert await poll_due_tasks(shop.darkroom) == 0
    let_go.set()
    await polling
    assert len(asked) == len(set(asked)) == 7


async def test_twin_without_renewal_the_same_rows_are_worked_on_twice(shop: Shop) -> None:
    """The guard removed: nobody renews, and a second worker takes the rows of a live one."""
    await shop.sold()
    await submit_due_tasks(shop.darkroom)
    asked: list[int] = []
    entered = asyncio.Event()
    let_go = asyncio.Event()

    async def slow(request: GenerationRequest) -> None:
        asked.append(request.task_id)
        entered.set()
        if len(asked) <= 7:
            await let_go.wait()

    shop.provider.on_ask = slow
    polling = asyncio.create_task(poll_due_tasks(shop.darkroom))
    await entered.wait()
    await shop.advance(11)
    assert await poll_due_tasks(shop.darkroom) == 7, "the twin must fail"
    let_go.set()
    await polling
    assert len(asked) == 14
    shop.provider.on_ask = None
    await shop.drain()


async def test_a_renewal_says_which_leases_are_lost(shop: Shop) -> None:
    await shop.sold()
    async with shop.database.connection() as tx:
        tasks = await claim_queued(tx, provider="scripted", limit=2, lease_seconds=10)
        held = {("task", task.id, task.claim) for task in tasks}
        await tx.execute("UPDATE kie_tasks SET claim = claim + 1 WHERE id = %s", [tasks[0].id])
        renewal = await renew_leases(tx, [("task", i, c) for _, i, c in held], lease_seconds=10)
    assert renewal.ours == renewal.prolonged == {("task", tasks[1].id, tasks[1].claim)}


Step = Callable[[Shop], Awaitable[None]]


async def test_a_checkpoint_handler_is_gone_after_its_block() -> None:
    seen: list[str] = []

    async def note(name: str) -> None:
        seen.append(name)

    with checkpoints_handled_by(note):
        await checkpoint("a")
    await checkpoint("b")
    assert seen == ["a"]


async def test_a_job_whose_queue_was_never_told_is_made_all_the_same(shop: Shop) -> None:
    """bugbook A4: a crash between the job and its message left a job that nobody ever queued."""
    customer = await shop.customer()
    await shop.paid(customer)

    class DiesError(Exception):
        pass

    async def die(name: str) -> None:
        if name == "start.after_commit":
            raise DiesError

    with checkpoints_handled_by(die), pytest.raises(DiesError):
        await shop.start(customer)
    await shop.drain()
    assert await shop.value("SELECT status FROM generation_jobs") == "completed"


async def test_what_the_first_batch_left_needs_no_message_of_its_own(shop: Shop) -> None:
    """bugbook B5, bugbook B16: the next chunk was a message that got lost, or that forgot whose set it was."""
    shop.darkroom = replace(shop.darkroom, chat_enabled=True)
    customer, job = await shop.sold(tier="premium")
    assert await submit_due_tasks(shop.darkroom) == 20
    # Nothing is said to anybody about the other three: their rows are the work.
    assert list(await shop.statuses()).count("queued") == 3
    await shop.drain()
    assert (await shop.job(job.id))["completed_photos"] == 23
    receivers = await shop.rows(
        "SELECT user_id, chat_id, count(*) AS photos FROM telegram_message_queue GROUP BY 1, 2"
    )
    assert receivers == [
        {"user_id": customer.user_id, "chat_id": customer.telegram_user_id, "photos": 23}
    ]
