"""The primary of a three-node cluster dies under load: what was acknowledged is there, and nobody is restarted.

The load is the whole shop as `make torture` sets it up, in peace: customers who pay at the sandbox bank and
start sets over HTTP, real server and worker processes, kie.ai's stand-in. Beside it witnesses commit all the
time, so that the outage is known to some milliseconds. The verdict is torture's own, over rows, books, bytes.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo
from rich.progress import Progress, TaskID

from bench.cluster import Cluster, Node
from darkroom.db.database import Database, DatabaseUnavailableError
from darkroom.edges.serve import listen_on_free_port
from darkroom.torture.customers import Customers
from darkroom.torture.design import Surroundings, Verdict
from darkroom.torture.fleet import Fleet
from darkroom.torture.ours import Ours
from darkroom.torture.plan import BadDay, Plan, make_plan
from darkroom.torture.run import made_of
from darkroom.twin.bank import SandboxBank
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.loopback import loopback

SHOP: Final = "darkroom"
WITNESSES: Final = "witnesses"
WITNESS_COUNT: Final = 4
WITNESS_PAUSE_SECONDS: Final = 0.02
"""Four of them make up to 200 commits a second: enough to know the moment, and little load."""
CALM_SECONDS: Final = 10
"""Of load before the first death and between two: work of every kind is under way."""
BACK_SECONDS: Final = 90
"""The longest wait for a new primary: three times what Patroni takes."""
DRAIN_SECONDS: Final = 300
LOOK_SECONDS: Final = 0.25
AFTERGLOW_SECONDS: Final = 10
"""On a busy machine an answer is read that much later than it was sent; no failover is as quick."""
GENERATION_SECONDS: Final = 0.5


class How(Enum):
    """What happens to the primary.

    KILLED: SIGKILL to Patroni, the server and each of its processes, as a machine that loses its power.
    FROZEN: SIGSTOP to the same: connections stay open and say nothing; it goes on when another is primary.
    """

    KILLED = "killed"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class Gap:
    """How long one kind of work stood still around a death, in seconds; None: there was no more of it."""

    commits: float | None
    answers: float | None
    photos: float | None


@dataclass(slots=True)
class Failover:
    """What a run saw.

    Attributes:
        acknowledged: commits that somebody was told of, by kind.
        lost: those of them that are not there now.
        workers_before, workers_after: process ids.
        rejoin_seconds: from the restart of each killed node until the cluster was whole again.
    """

    gaps: list[Gap] = field(default_factory=list[Gap])
    acknowledged: dict[str, int] = field(default_factory=dict[str, int])
    lost: dict[str, int] = field(default_factory=dict[str, int])
    workers_before: list[int] = field(default_factory=list[int])
    workers_after: list[int] = field(default_factory=list[int])
    restarts: int = 0
    rejoin_seconds: list[float] = field(default_factory=list[float])
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def held(self) -> bool:
        """Nothing lost, nothing unexplained, nobody restarted."""
        return (
            not any(self.lost.values())
            and self.verdict.clean
            and self.restarts == 0
            and self.workers_before == self.workers_after
        )


class _Answered(Customers):
    """Customers who note when the shop said yes.

    Attributes:
        at: the moments.
    """

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - those of the customers
        super().__init__(*args, **named)
        self.at: list[float] = []

    async def _post(
        self, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> dict[str, Any]:
        content = await super()._post(path, body, headers)
        if content.get("success"):
            self.at.append(time.time())
        return content


class _Witnesses:
    """Commit numbers through the product's own pool, and remember which commits were acknowledged.

    Attributes:
        told: each acknowledged number, and when.
    """

    def __init__(self, dsn: str) -> None:
        self._database = Database(dsn, pool_size=WITNESS_COUNT)
        self._next = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.told: dict[int, float] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        await self._database.open()
        async with self._database.connection() as one:
            await one.execute("CREATE TABLE commits (number BIGINT PRIMARY KEY)")
        self._tasks = [asyncio.create_task(self._commit()) for _ in range(WITNESS_COUNT)]
        try:
            yield
        finally:
            await self.end()
            await self._database.close()

    async def end(self) -> None:
        """No more of them: what was told is now what it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _commit(self) -> None:
        while True:
            self._next += 1
            number = self._next
            with suppress(DatabaseUnavailableError):
                async with self._database.transaction() as tx:
                    await tx.execute("INSERT INTO commits (number) VALUES (%s)", [number])
                self.told[number] = time.time()
            await asyncio.sleep(WITNESS_PAUSE_SECONDS)


@dataclass(slots=True)
class _Scene:
    """Everybody in one run."""

    cluster: Cluster
    places: Surroundings
    design: Ours
    fleet: Fleet
    customers: _Answered
    provider: KieTwin
    witnesses: _Witnesses
    progress: Progress
    photos_bar: TaskID
    orders_bar: TaskID
    open_work: int = 1

    async def watch(self) -> None:
        """Show how far the work is, by the database's word."""
        while True:
            with suppress(psycopg.Error):
                async with await psycopg.AsyncConnection.connect(
                    self.places.dsn, autocommit=True, connect_timeout=2
                ) as one:
                    standing = await self.design.standing(one)
                self.open_work = standing.open_work
                self.progress.update(self.photos_bar, completed=standing.photos)
            done = sum(sale.done for sale in self.customers.sales.values())
            self.progress.update(self.orders_bar, completed=done)
            await asyncio.sleep(LOOK_SECONDS)


async def measure_failover(
    cluster: Cluster,
    progress: Progress,
    *,
    orders: int,
    seconds: float,
    deaths: int,
    how: How,
    workers: int = 2,
) -> Failover:
    """Sell `orders` within about `seconds`, strike the primary `deaths` times, let all work end, and count.

    Raises:
        TimeoutError: no new primary, or work that does not end.
    """
    plan = make_plan(
        1, orders=orders, minutes=seconds / 60, workers=workers,
        bad_day=BadDay(photos_failed_share=0, refunds_refused_share=0, is_calm=True),
    )  # fmt: skip
    result = Failover()
    async with AsyncExitStack() as stack:
        scene = await _open_scene(stack, cluster, plan, progress)
        result.workers_before = scene.fleet.pids("worker")
        selling = asyncio.create_task(scene.customers.buy_everything())
        watching = asyncio.create_task(scene.watch())
        try:
            died_at = [await _strike(scene, result, how) for _ in range(deaths)]
            async with asyncio.timeout(DRAIN_SECONDS):
                await selling
                scene.customers.leave()
                await _until_quiet(scene)
        finally:
            for task in (selling, watching):
                task.cancel()
            await asyncio.gather(selling, watching, return_exceptions=True)
        result.workers_after = scene.fleet.pids("worker")
        result.restarts = sum(scene.fleet.deaths.values())
        await scene.witnesses.end()
        await asyncio.to_thread(_count, scene, result, died_at)
        made = [made_of(task) for task in scene.provider.tasks.values()]
        result.verdict = await scene.design.judge(scene.places, scene.customers.sold(), made)
    return result


async def _open_scene(
    stack: AsyncExitStack, cluster: Cluster, plan: Plan, progress: Progress
) -> _Scene:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
    _make_databases(cluster.dsn)
    provider = await stack.enter_async_context(
        kie_twin(
            Habits(creates_limit=None, seconds_to_finish=GENERATION_SECONDS, credits_left=10**9)
        )
    )
    secret = secrets.token_hex(16)
    bank = SandboxBank(
        secret=secret, file=folder / "bank.sqlite", public_url="http://127.0.0.1/bank"
    )
    await stack.enter_async_context(bank.running())
    bank_url = await stack.enter_async_context(loopback(bank.app))
    listening = listen_on_free_port()
    port = int(listening.getsockname()[1])
    listening.close()
    dsn = make_conninfo(cluster.dsn, dbname=SHOP)
    places = Surroundings(
        folder=folder, dsn=dsn, calm_dsn=dsn, server_port=port,
        server_url=f"http://127.0.0.1:{port}", provider_url=provider.base_url,
        provider_key=provider.habits.api_key, bank_url=bank_url, bank_secret=secret,
        queue_key=f"sig_{secrets.token_hex(14)}",
    )  # fmt: skip
    design = Ours()
    avatars = await design.prepare(places, plan)
    customers = _Answered(plan, design, places, bank, avatars)
    stack.push_async_callback(customers.close)
    fleet = Fleet(design, places, workers=plan.workers, seed=plan.seed, is_calm=True)
    await stack.enter_async_context(fleet.running())
    await _until_it_listens(port)
    witnesses = _Witnesses(make_conninfo(cluster.dsn, dbname=WITNESSES))
    await stack.enter_async_context(witnesses.running())
    return _Scene(
        cluster, places, design, fleet, customers, provider, witnesses, progress,
        photos_bar=progress.add_task("photos", total=None),
        orders_bar=progress.add_task("orders", total=len(plan.orders)),
    )  # fmt: skip


def _make_databases(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {SHOP}")
        admin.execute(f"CREATE DATABASE {WITNESSES}")


async def _until_it_listens(port: int) -> None:
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                writer.close()
                return


async def _strike(scene: _Scene, result: Failover, how: How) -> float:
    """Load for a while, then the primary's death, a new primary, and the dead node back as a standby."""
    await asyncio.sleep(CALM_SECONDS)
    primary: Node | None = await asyncio.to_thread(scene.cluster.primary)
    if primary is None:
        raise TimeoutError("no primary to kill")
    died_at = time.time()
    frozen: list[int] = []
    if how is How.FROZEN:
        frozen = await asyncio.to_thread(scene.cluster.freeze, primary)
    else:
        await asyncio.to_thread(scene.cluster.kill, primary)
    async with asyncio.timeout(BACK_SECONDS):
        while max(scene.witnesses.told.values()) <= died_at + AFTERGLOW_SECONDS:  # noqa: ASYNC110 - a real server is asked again
            await asyncio.sleep(LOOK_SECONDS)
    began = time.monotonic()
    if how is How.FROZEN:
        scene.cluster.thaw(frozen)
    else:
        await asyncio.to_thread(scene.cluster.start, primary)
    await asyncio.to_thread(scene.cluster.wait_until_whole)
    result.rejoin_seconds.append(time.monotonic() - began)
    return died_at


async def _until_quiet(scene: _Scene) -> None:
    quiet = 0
    while quiet < 3:  # noqa: PLR2004 - looks in a row
        await asyncio.sleep(1)
        quiet = quiet + 1 if scene.open_work == 0 else 0


def _count(scene: _Scene, result: Failover, died_at: list[float]) -> None:
    """Each acknowledged commit, looked for on the primary of now; and the gaps."""
    sales = scene.customers.sales.values()
    payments = {one for sale in sales for one in sale.payment_ids}
    jobs = {one for sale in sales for one in sale.job_ids}
    with psycopg.connect(scene.places.dsn, autocommit=True) as one:
        found = {
            "payments": _numbers(one, "SELECT id FROM payments"),
            "sets": _numbers(one, "SELECT id FROM generation_jobs"),
        }
        photos = [
            float(row[0])
            for row in one.execute(
                "SELECT extract(epoch FROM created_at)::FLOAT8 FROM generated_photos ORDER BY 1"
            ).fetchall()
        ]
    with psycopg.connect(make_conninfo(scene.cluster.dsn, dbname=WITNESSES)) as one:
        found["witnesses"] = _numbers(one, "SELECT number FROM commits")
    told = {"payments": payments, "sets": jobs, "witnesses": set(scene.witnesses.told)}
    result.acknowledged = {kind: len(ids) for kind, ids in told.items()}
    result.lost = {kind: len(ids - found[kind]) for kind, ids in told.items()}
    commits = sorted(scene.witnesses.told.values())
    answers = sorted(scene.customers.at)
    result.gaps = [
        Gap(_gap(commits, moment), _gap(answers, moment), _gap(photos, moment))
        for moment in died_at
    ]


def _numbers(one: psycopg.Connection[Any], query: Any) -> set[int]:  # noqa: ANN401 - three constants above
    return {int(row[0]) for row in one.execute(query).fetchall()}


def _gap(moments: list[float], died_at: float) -> float | None:
    """From the last before the death to the first after it; what was on its way when it died is before.

    The longest pause that begins within AFTERGLOW_SECONDS of the death: some answers were on their way.
    """
    pauses = [
        (after - before)
        for before, after in pairwise(moments)
        if after > died_at and before < died_at + AFTERGLOW_SECONDS
    ]
    return max(pauses, default=None)
