"""The network to the database fails in every way: no order is lost, none is doubled, nothing is restarted."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

import pytest

from darkroom.core.catalog import Eligibility
from darkroom.core.jobs import StartedJob
from darkroom.core.tasks import claim_pending
from darkroom.db.database import (
    Connection,
    Database,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    RowBusyError,
)
from darkroom.edges.worker import Worker
from darkroom.flow import start_generation as start_flow
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.start_generation import start_generation
from darkroom.flow.submit_tasks import submit_due_tasks
from darkroom.flow.take_notices import take_due_notices
from darkroom.twin.network_faults import COMMIT_KINDS, Fault, Kind, Passing, SeededFaults
from darkroom.twin.wires import Moment
from tests.crash.sale import (
    HASTY,
    Street,
    Strike,
    insist,
    is_completed,
    judge,
    newcomer,
    order,
    pay,
    sell,
    street,
    until,
)

T = TypeVar("T")
SILENT: Final = frozenset({Kind.STALL, Kind.HALF_CLOSE_SERVER})
"""Nobody says that anything is wrong: only a time limit ends the waiting."""
COMMITS_AT_LEAST: Final = 45
"""Of a sale of seven photos: three each, a few rounds, the order, the notice, the end."""


async def _lose_the_answer_to(town: Street, work: Callable[[], Awaitable[T]]) -> T:
    """Do it while the first COMMIT's answer gets lost."""
    town.network.faults = Strike(Kind.CUT_AFTER_COMMIT, Moment.COMMIT, text="COMMIT")
    return await work()


@pytest.mark.parametrize("kind", [Kind.CUT_BEFORE_COMMIT, Kind.CUT_AFTER_COMMIT])
@pytest.mark.parametrize("part", range(2))
async def test_cut_at_every_commit_of_a_sale(
    dsn: str, tmp_path: Path, kind: Kind, part: int
) -> None:
    """bugbook A2, bugbook B6, bugbook C1: whatever the server heard of a COMMIT, and we of its answer.

    Sales follow one another until there is one whose last commit comes before the strike.
    """
    async with street(dsn, tmp_path) as town:
        number, done = part + 1, True
        while done:
            strike = Strike(kind, Moment.COMMIT, at=number)
            town.network.faults = strike
            town.network.struck.clear()
            payment_id = await sell(town.shop)
            town.network.calm()
            assert town.network.struck[kind.value] == strike.done
            await judge(town.shop, payment_id, spare=1)
            number, done = number + 2, strike.done
        assert number > COMMITS_AT_LEAST


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_running_worker_survives_it(dsn: str, tmp_path: Path, kind: Kind) -> None:
    """bugbook B6, bugbook C1: up to three strikes into a sale under way; nobody restarts the worker."""
    # Photos' own moves, a few statements a sale: the house has updates of its own, which no sale waits for.
    at_move = (Moment.REQUEST, "WITH told", 1)
    moment, text, at = (Moment.COMMIT, "COMMIT", 3) if kind in COMMIT_KINDS else at_move
    seconds = 0.05 if kind is Kind.DELAY else None
    async with street(dsn, tmp_path, limits=HASTY) as town:
        shop, network, database = town.shop, town.network, town.over_network
        database.use_seconds = 0.5 if kind in SILENT else 5
        payment_id = await order(shop, await newcomer(shop))
        async with Worker(shop.darkroom).running():
            for number in range(1, 4):
                lost = database.lost
                network.faults = Strike(kind, moment, at=at, text=text, seconds=seconds)
                if number == 1:
                    await pay(shop, payment_id)

                async def struck_or_over(number: int = number) -> bool:
                    struck = network.struck[kind.value] == number
                    return struck or await is_completed(shop, payment_id)

                await until(shop, struck_or_over)
                if network.struck[kind.value] < number:
                    break  # the sale was over before it could be struck again
                if kind is not Kind.DELAY:
                    await until(shop, lambda lost=lost: database.lost > lost)
                network.calm()
            await until(shop, lambda: is_completed(shop, payment_id))
        assert 1 <= network.struck[kind.value] <= 3
        await judge(shop, payment_id, spare=3)


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_is_survived_by_a_running_worker(dsn: str, tmp_path: Path, seed: int) -> None:
    """Every kind at once, drawn from a seed; when it is over, everything drains by itself."""
    rates = dict.fromkeys(Kind, 0.01) | dict.fromkeys(COMMIT_KINDS, 0.05)
    async with street(dsn, tmp_path, limits=HASTY) as town:
        shop, network = town.shop, town.network
        town.over_network.use_seconds = 0.5
        network.faults = SeededFaults(seed, rates, seconds_max=0.2)
        async with Worker(shop.darkroom).running():
            customers = [await newcomer(shop) for _ in range(2)]
            payments = [await order(shop, customer) for customer in customers]
            for payment_id in payments:
                await pay(shop, payment_id)
            await until(shop, lambda: network.struck.total() >= 12)
            network.calm()
            for payment_id in payments:
                await until(shop, lambda payment_id=payment_id: is_completed(shop, payment_id))
        for payment_id in payments:
            await judge(shop, payment_id, spare=network.struck.total())


async def test_no_use_of_a_connection_is_longer_than_its_limit(dsn: str, tmp_path: Path) -> None:
    """The database hangs, its sockets open. psycopg alone took ten seconds more to ask it to stop."""
    async with street(dsn, tmp_path) as town:
        database = town.over_network
        await database.ping()
        town.network.stall_all()
        for use in (database.connection, database.transaction):
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailableError):
                async with use(timeout_seconds=0.2) as tx:
                    await tx.execute("SELECT 1")
            assert time.monotonic() - began < 1
        town.network.calm()
        async with asyncio.timeout(1):
            await database.ping()


async def test_one_connection_that_hangs_costs_no_lease(dsn: str, tmp_path: Path) -> None:
    """A renewal that hung held up all renewals for longer than a lease: every work was cancelled."""
    async with street(dsn, tmp_path) as town:
        shop = town.shop
        await shop.sold()
        await submit_due_tasks(shop.darkroom)
        async with shop.database.connection() as tx:
            task = (await claim_pending(tx, limit=1, lease_seconds=3))[0]
        renewals, third = 0, asyncio.Event()

        def first_renewal_stalls(passing: Passing) -> Fault | None:
            nonlocal renewals
            if not passing.text.startswith("WITH held"):
                return None
            renewals += 1
            if renewals == 3:
                third.set()
            return Fault(Kind.STALL) if renewals == 1 else None

        town.network.faults = first_renewal_stalls
        keeper = LeaseKeeper(town.over_network, lease_seconds=3, renew_seconds=0.2)
        try:
            async with asyncio.timeout(10), keeper.holding(("task", task.id, task.claim)):
                await third.wait()
        finally:
            await keeper.close()
        assert town.network.struck == {Kind.STALL.value: 1}


async def test_a_commit_that_arrives_after_its_customer_gave_up(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bugbook A2: what was sent before the network stood still arrives when nobody waits for it any more."""
    monkeypatch.setattr(start_flow, "READ_BACK_LOCK_MS", 100)
    async with street(dsn, tmp_path) as town:
        shop, network = town.shop, town.network
        town.over_network.use_seconds = 0.4
        customer = await newcomer(shop)
        await shop.paid(customer)
        network.faults = Strike(Kind.STALL, Moment.COMMIT, text="COMMIT")
        with pytest.raises((RowBusyError, DatabaseUnavailableError)):
            await start_generation(shop.darkroom, shop.request(customer, key="once"))
        assert await shop.value("SELECT count(*) FROM generation_jobs") == 0
        network.calm()
        job = await insist(
            lambda: start_generation(shop.darkroom, shop.request(customer, key="once"))
        )
        assert network.struck == {Kind.STALL.value: 1}
        assert await shop.value("SELECT count(*) FROM generation_jobs") == 1
        await shop.drain()
        assert (await shop.job(job.id))["status"] == "completed"


async def test_a_repeat_that_overtakes_its_own_commit_gets_its_job(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try's commit landed between two looks of the second: it was told PAYMENT_CONSUMED."""
    async with street(dsn, tmp_path) as town:
        shop = town.shop
        customer = await newcomer(shop)
        await shop.paid(customer)
        wish = shop.request(customer, key="once")
        look = start_flow.check_eligibility
        jobs: list[StartedJob] = []

        async def first_try_lands(tx: Connection, **asked: Any) -> Eligibility:  # noqa: ANN401 - passed on
            monkeypatch.setattr(start_flow, "check_eligibility", look)
            jobs.append(await start_generation(shop.darkroom, wish))
            return await look(tx, **asked)

        monkeypatch.setattr(start_flow, "check_eligibility", first_try_lands)
        again = await start_generation(shop.darkroom, replace(wish, request_id=uuid4()))
        assert [job.id for job in jobs] == [again.id]


async def test_a_server_that_keeps_a_dead_customers_locks(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never told that we are gone: "come back later" is the truth, "already used" would not be."""
    monkeypatch.setattr(start_flow, "READ_BACK_LOCK_MS", 100)
    async with street(dsn, tmp_path) as town:
        shop, network = town.shop, town.network
        customer = await newcomer(shop)
        await shop.paid(customer)
        network.faults = Strike(
            Kind.HALF_CLOSE_CLIENT, Moment.REQUEST, text="INSERT INTO idempotency_keys"
        )
        wish = shop.request(customer, key="once")
        with pytest.raises(RowBusyError):
            await start_generation(shop.darkroom, wish)
        network.calm()
        await insist(lambda: start_generation(shop.darkroom, wish))
        assert network.struck == {Kind.HALF_CLOSE_CLIENT.value: 1}
        assert await shop.value("SELECT count(*) FROM generation_jobs") == 1


async def test_the_answer_to_a_commit_is_read_back(dsn: str, tmp_path: Path) -> None:
    """bugbook A2, bugbook A27: the order and the start, each committed and never told so."""
    async with street(dsn, tmp_path) as town:
        shop = town.shop
        customer = await newcomer(shop)
        payment_id = await _lose_the_answer_to(town, lambda: shop.ordered(customer))
        await pay(shop, payment_id)
        await take_due_notices(shop.darkroom)
        await _lose_the_answer_to(town, lambda: shop.start(customer))
        assert town.network.struck == {Kind.CUT_AFTER_COMMIT.value: 2}
        assert await town.shop.value("SELECT count(*) FROM payments") == 1
        assert await town.shop.value("SELECT count(*) FROM generation_jobs") == 1


async def test_twin_without_reading_back_an_order_is_made_twice_or_not_at_all(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard removed: the database refuses the second payment, and the winner is told that it lost."""
    settle = Database.settle

    async def never(_tx: Connection) -> None:
        return None

    async def blindly(
        database: Database, work: Callable[[Connection], Awaitable[T]], **_guard: object
    ) -> T:
        return await settle(database, work, read_back=never)

    async with street(dsn, tmp_path) as town:
        shop = town.shop
        customer = await newcomer(shop)
        await shop.paid(customer)
        monkeypatch.setattr(Database, "settle", blindly)
        with pytest.raises(DatabaseRefusedError, match="UniqueViolation"):
            await _lose_the_answer_to(town, lambda: shop.ordered(customer))
        with pytest.raises(RequestRefusedError, match="PAYMENT_CONSUMED"):
            await _lose_the_answer_to(town, lambda: shop.start(customer))
