"""`darkroom torture`: sell for some minutes while everything dies, then count what is left of the promises."""

import asyncio
import logging
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from darkroom.db.embedded import EmbeddedPostgres
from darkroom.edges.serve import listen_on_free_port
from darkroom.limits import Limits
from darkroom.torture.attack import (
    BANK_BUSY_SHARE,
    BANK_SLOW_SHARE,
    BANK_UNTOLD_SHARE,
    FAULT_SECONDS_MAX,
    NETWORK_RATES,
    PROVIDER_CHAOS,
    PROVIDER_FAULT_RATE,
    SERVICE_RATES,
    Attack,
)
from darkroom.torture.customers import Customers
from darkroom.torture.design import Design, Surroundings
from darkroom.torture.fleet import Fleet
from darkroom.torture.plan import BadDay, Plan, make_plan
from darkroom.torture.recovery import Recovery
from darkroom.torture.view import Scene, show_faults, show_recovery, show_spending, show_verdict
from darkroom.twin.bank import SandboxBank
from darkroom.twin.bank_books import BankHabits
from darkroom.twin.faulty_network import FaultyNetwork
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.loopback import loopback
from darkroom.twin.network_faults import SeededFaults

LOOK_SECONDS: Final = 1
QUIET_LOOKS: Final = 3
"""So many looks in a row find nothing open: then nothing moves any more."""
DRAIN_SECONDS: Final = 300
"""After the last blow everything is calm. The longest wait there is then is for a lost answer's callback and
the payments of customers who never came back; what is not done by now is stuck, and the verdict says so."""
SHOW_SECONDS: Final = 0.25
GENERATION_SECONDS: Final = 1.0
"""How long the provider's stand-in paints: some calls are always open."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked for."""

    seed: int
    orders: int
    minutes: float
    workers: int
    bad_day: BadDay | None = None


@dataclass(slots=True)
class _Town:
    """Everything around the design."""

    places: Surroundings
    database: EmbeddedPostgres
    provider: KieTwin
    bank: SandboxBank
    networks: dict[str, FaultyNetwork]

    def calm(self) -> None:
        """Faults end. What the bank and the provider refuse for good they go on refusing."""
        self.provider.habits.fault_rate = 0
        self.bank.habits.busy_share = self.bank.habits.slow_share = 0
        for network in self.networks.values():
            network.calm()

    def faults(self) -> Counter[str]:
        found = Counter({f"provider: {kind}": n for kind, n in self.provider.struck.items()})
        for name, network in self.networks.items():
            found.update({f"{name}: {kind}": times for kind, times in network.struck.items()})
        return found


async def run_torture(wish: Wish, design: Design, console: Console) -> int:
    """Torture one design. Returns the exit code: 0 when nothing is lost, doubled or unexplained.

    Traffic goes to loopback only; every process it starts ends with it, and its folder goes too, unless the
    verdict is bad: then the logs stay, and where is said.
    """
    # Requests that the network broke off are this run's business, not news.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
    plan = make_plan(
        wish.seed,
        orders=wish.orders,
        minutes=wish.minutes,
        workers=wish.workers,
        bad_day=wish.bad_day,
    )
    folder = Path(tempfile.mkdtemp(prefix="darkroom-torture-"))
    console.print(
        f"[bold]{design.name}[/bold]: seed {plan.seed}, {len(plan.orders)} orders, {wish.minutes:g} minutes, "
        f"{plan.workers} workers, {len(plan.blows)} deaths planned"
    )
    clean: bool | None = None
    try:
        clean = await _torture(folder, plan, design, console)
    finally:
        if clean is False:
            console.print(f"logs of the processes: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if clean else 1


async def _torture(folder: Path, plan: Plan, design: Design, console: Console) -> bool:
    scene = Scene(design.name, plan.seed, plan.seconds, len(plan.orders))
    async with _town(folder, plan) as town:
        avatars = await design.prepare(town.places, plan)
        customers = Customers(plan, design, town.places, town.bank, avatars)
        recovery = Recovery(design, town.places.calm_dsn, lease_seconds=Limits().lease_seconds)
        fleet = Fleet(
            design,
            town.places,
            workers=plan.workers,
            seed=plan.seed,
            is_calm=plan.bad_day.is_calm,
        )
        attack = Attack(plan, fleet, town.database, recovery)
        stage = _Stage(town, design, customers, fleet, attack)
        try:
            async with fleet.running():
                with Live(console=console, get_renderable=scene.draw, transient=True):
                    await stage.sell_under_attack(scene)
                await recovery.settle()
            tokens = [task.token for task in town.provider.tasks.values()]
            verdict = await design.judge(town.places, customers.sold(), tokens)
        finally:
            await customers.close()
    if attack.standing.open_work:
        verdict.lost.append(f"{attack.standing.open_work} rows still open: stuck")
    faults = stage.faults()
    show_faults(console, faults)
    show_recovery(console, recovery.after_kill, recovery.after_restart, Limits().recovery_seconds)
    show_spending(console, tasks=len(tokens), photos=verdict.photos)
    show_verdict(console, verdict, orders=len(plan.orders), faults=faults.total())
    return verdict.clean


@dataclass(slots=True)
class _Stage:
    """Everybody who acts in one run."""

    town: _Town
    design: Design
    customers: Customers
    fleet: Fleet
    attack: Attack

    async def sell_under_attack(self, scene: Scene) -> None:
        """Sell while the blows fall; then peace, until nothing is open or the time is up."""
        scene.begin("under attack", scene.seconds)
        showing = asyncio.create_task(self._show(scene))
        banking = asyncio.create_task(self._finish_refunds())
        watching = asyncio.create_task(self.attack.watch(self.design, LOOK_SECONDS))
        selling = asyncio.create_task(self.customers.buy_everything())
        try:
            await self.attack.strike_all()
            self.town.calm()
            scene.begin("calm: draining", DRAIN_SECONDS)
            async with asyncio.timeout(DRAIN_SECONDS):
                await selling
                self.customers.leave()
                await self._until_quiet()
        except TimeoutError:
            pass  # what is open now is stuck: the verdict counts it
        finally:
            for task in (showing, banking, watching, selling):
                task.cancel()
            await asyncio.gather(showing, banking, watching, selling, return_exceptions=True)

    async def _finish_refunds(self) -> None:
        """What the bank accepted without doing it is done a little later, as SBP does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.town.bank.finish_refunds()

    async def _until_quiet(self) -> None:
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            quiet = quiet + 1 if self.attack.standing.open_work == 0 else 0

    async def _show(self, scene: Scene) -> None:
        while True:
            scene.ordered = sum(sale.done for sale in self.customers.sales.values())
            scene.standing = self.attack.standing
            scene.workers = self.fleet.alive("worker")
            scene.faults = self.faults()
            await asyncio.sleep(SHOW_SECONDS)

    def faults(self) -> Counter[str]:
        """Everything that went wrong so far, by what it was."""
        found = self.town.faults()
        found["killed: database"] = self.attack.struck["database killed"]
        found["killed: worker"] = self.fleet.deaths["worker"]
        found["killed: server"] = self.fleet.deaths["server"]
        repeated = self.customers.repeated
        found.update({f"said again: {kind}": times for kind, times in repeated.items()})
        return +found


@asynccontextmanager
async def _town(folder: Path, plan: Plan) -> AsyncGenerator[_Town]:
    """Database, provider, bank, and a network that fails in front of each of them and of our server."""
    database = EmbeddedPostgres(folder / "postgres")
    async with AsyncExitStack() as stack:
        calm_dsn = await asyncio.to_thread(database.start)
        stack.callback(database.stop)
        provider = await stack.enter_async_context(kie_twin(_provider_habits(plan)))
        bank_secret = secrets.token_hex(16)
        bank = SandboxBank(
            secret=bank_secret,
            file=folder / "bank.sqlite",
            public_url="http://127.0.0.1/bank",
            habits=_bank_habits(plan),
        )
        await stack.enter_async_context(bank.running())
        bank_url = await stack.enter_async_context(loopback(bank.app))
        server = listen_on_free_port()
        server_port = server.getsockname()[1]
        server.close()
        networks = {
            "database network": FaultyNetwork.to_postgres(calm_dsn),
            "provider network": FaultyNetwork.to_http(provider.base_url),
            "bank network": FaultyNetwork.to_http(bank_url),
            "customers' network": FaultyNetwork.to_http(f"http://127.0.0.1:{server_port}"),
        }
        for number, (name, network) in enumerate(networks.items()):
            await stack.enter_async_context(network)
            rates = NETWORK_RATES if name == "database network" else SERVICE_RATES
            if not plan.bad_day.is_calm:
                network.faults = SeededFaults(
                    plan.seed * 10 + number, rates, seconds_max=FAULT_SECONDS_MAX
                )
        provider.base_url = networks["provider network"].url
        places = Surroundings(
            folder=folder,
            dsn=networks["database network"].dsn,
            calm_dsn=calm_dsn,
            server_port=server_port,
            server_url=networks["customers' network"].url,
            provider_url=networks["provider network"].url,
            provider_key=provider.habits.api_key,
            bank_url=networks["bank network"].url,
            bank_secret=bank_secret,
            queue_key=f"sig_{secrets.token_hex(14)}",
        )
        yield _Town(places, database, provider, bank, networks)


def _provider_habits(plan: Plan) -> Habits:
    return Habits(
        creates_limit=None,
        seconds_to_finish=GENERATION_SECONDS,
        credits_left=10**9,
        fault_rate=0 if plan.bad_day.is_calm else PROVIDER_FAULT_RATE,
        failed_share=plan.bad_day.photos_failed_share,
        seed=plan.seed,
        chaos=PROVIDER_CHAOS,
    )


def _bank_habits(plan: Plan) -> BankHabits:
    return BankHabits(
        seed=plan.seed,
        silent_share=plan.bad_day.refunds_silent_share,
        refused_share=plan.bad_day.refunds_refused_share,
        busy_share=BANK_BUSY_SHARE,
        slow_share=BANK_SLOW_SHARE,
        untold_share=BANK_UNTOLD_SHARE,
    )
