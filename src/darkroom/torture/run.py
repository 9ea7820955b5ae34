"""`darkroom torture`: sell for some minutes while everything dies, then count what is left of the promises."""

import asyncio
import hashlib
import logging
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from darkroom.limits import Limits
from darkroom.torture.attack import Attack
from darkroom.torture.customers import Customers
from darkroom.torture.design import Design, Made
from darkroom.torture.fleet import Fleet
from darkroom.torture.plan import BadDay, Plan, make_plan
from darkroom.torture.recovery import Recovery
from darkroom.torture.town import Town, open_town
from darkroom.torture.view import (
    Scene,
    show_faults,
    show_recovery,
    show_rented,
    show_spending,
    show_verdict,
)
from darkroom.twin.kie_tasks import TwinTask

LOOK_SECONDS: Final = 1
QUIET_LOOKS: Final = 3
"""So many looks in a row find nothing open: then nothing moves any more."""
DRAIN_SECONDS: Final = 300
"""After the last blow everything is calm. The longest wait there is then is for a lost answer's callback and
the payments of customers who never came back; what is not done by now is stuck, and the verdict says so."""
SHOW_SECONDS: Final = 0.25
OPEN_SECONDS: Final = 60
"""A server is there after three seconds on an idle machine."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked for. `is_full`: also with a rented store and a rented queue."""

    seed: int
    orders: int
    minutes: float
    workers: int
    bad_day: BadDay | None = None
    is_full: bool = False


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
        f"{plan.workers} workers, {len(plan.blows)} blows planned"
        f"{', with a rented store and queue' if wish.is_full else ''}"
    )
    clean: bool | None = None
    try:
        clean = await _torture(folder, plan, design, console, is_full=wish.is_full)
    finally:
        if clean is False:
            console.print(f"logs of the processes: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if clean else 1


async def _torture(
    folder: Path, plan: Plan, design: Design, console: Console, *, is_full: bool
) -> bool:
    scene = Scene(design.name, plan.seed, plan.seconds, len(plan.orders))
    async with open_town(folder, plan, is_full=is_full) as town:
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
                if is_full:
                    await _until_it_listens(town.places.server_port)
                with Live(console=console, get_renderable=scene.draw, transient=True):
                    await stage.sell_under_attack(scene)
                await recovery.settle()
            made = [made_of(task) for task in town.provider.tasks.values()]
            verdict = await design.judge(town.places, customers.sold(), made)
        finally:
            await customers.close()
    if attack.standing.open_work:
        verdict.lost.append(f"{attack.standing.open_work} rows still open: stuck")
    faults = stage.faults()
    show_faults(console, faults)
    show_recovery(console, recovery.after_kill, recovery.after_restart, Limits().recovery_seconds)
    if town.queue is not None and town.store is not None:
        show_rented(console, queue=town.queue.counts, store=town.store.seen)
    show_spending(console, tasks=len(made), photos=verdict.photos)
    show_verdict(console, verdict, orders=len(plan.orders), faults=faults.total())
    return verdict.clean


def made_of(task: TwinTask) -> Made:
    """A task of the stand-in as its judge wants it."""
    ended_well = task.state == "success"
    return Made(
        token=task.token,
        prompt=str(task.order["input"]["prompt"]),
        links=tuple(task.input_links),
        sha256=hashlib.sha256(task.picture()).hexdigest() if ended_well else None,
    )


async def _until_it_listens(port: int) -> None:
    """A day of seconds begins when the shop is open: a busy machine needs as long to start a process."""
    async with asyncio.timeout(OPEN_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(SHOW_SECONDS)
            else:
                writer.close()
                return


@dataclass(slots=True)
class _Stage:
    """Everybody who acts in one run."""

    town: Town
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
        found["frozen: worker"] = self.attack.struck["worker frozen"]
        found["killed: database"] = self.attack.struck["database killed"]
        found["killed: worker"] = self.fleet.deaths["worker"]
        found["killed: server"] = self.fleet.deaths["server"]
        repeated = self.customers.repeated
        found.update({f"said again: {kind}": times for kind, times in repeated.items()})
        return +found
