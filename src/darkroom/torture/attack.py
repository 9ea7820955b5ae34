"""The blows of a plan, one after the other, and the database's deaths and returns."""

import asyncio
import time
from collections import Counter
from typing import Final

import psycopg

from darkroom.db.embedded import EmbeddedPostgres
from darkroom.torture.design import Design, Standing
from darkroom.torture.fleet import Fleet
from darkroom.torture.plan import Blow, Plan
from darkroom.torture.recovery import Recovery
from darkroom.twin.kie_faults import CHAOS, Door, Fault
from darkroom.twin.kie_faults import Kind as ProviderKind
from darkroom.twin.network_faults import Kind
from darkroom.twin.store_faults import StoreFault

MAINTENANCE: Final = 455

NETWORK_RATES: Final = {
    Kind.CUT_BEFORE_COMMIT: 0.002,
    Kind.CUT_AFTER_COMMIT: 0.002,
    Kind.CUT_REQUEST: 0.0005,
    Kind.CUT_RESPONSE: 0.0005,
    Kind.HALF_CLOSE_CLIENT: 0.0002,
    Kind.HALF_CLOSE_SERVER: 0.0002,
    Kind.DELAY: 0.002,
    Kind.STALL: 0.0002,
}
"""Between us and the database: of about 60 statements a photo, every tenth photo meets one."""
SERVICE_RATES: Final = {
    Kind.CUT_REQUEST: 0.01,
    Kind.CUT_RESPONSE: 0.01,
    Kind.TRUNCATE: 0.005,
    Kind.HALF_CLOSE_CLIENT: 0.002,
    Kind.DELAY: 0.02,
    Kind.STALL: 0.002,
}
"""Between us and a service, and between customers and us."""
STORE_RATES: Final = {
    StoreFault.UNHEARD_503: 0.02,
    StoreFault.UNHEARD_CUT: 0.02,
    StoreFault.SLOW_DOWN: 0.02,
    StoreFault.SLOW: 0.01,
    StoreFault.SHORT_BODY: 0.01,
    StoreFault.PAGE_404: 0.01,
}
"""Between the store and whoever asks it, us or a provider that reads: every twelfth request meets one."""
STORE_SLOW_SECONDS: Final = 1.5
"""A round of twenty photos makes a hundred requests: nearly every round meets a slow one, and waits for it."""
QUEUE_FAULT_RATE: Final = 0.15
"""Of publishes and deliveries at QStash's stand-in; what it does then is drawn from its own list."""
QUEUE_TIME_SCALE: Final = 5
"""It repeats after 12 s, 2 min, 30 min, and comes 30 s late: five times as fast, for a day of minutes."""
FAULT_SECONDS_MAX: Final = 5
PROVIDER_CHAOS: Final[dict[Door, tuple[Fault, ...]]] = {
    **CHAOS,
    "callback": (*CHAOS["callback"], Fault(ProviderKind.LATE)),
    # "Under maintenance" parks a whole provider for two minutes, rightly: nothing would happen in a short run.
    "create": tuple(fault for fault in CHAOS["create"] if fault.code != MAINTENANCE),
}
BANK_BUSY_SHARE: Final = 0.05
BANK_SLOW_SHARE: Final = 0.1
BANK_UNTOLD_SHARE: Final = 0.5
"""Of refunds: "not now", accepted and done only later, told of by no notice. Beside what a bad day asks for."""
PROVIDER_FAULT_RATE: Final = 0.04
"""Of requests at the provider's stand-in; what it does then is drawn from `PROVIDER_CHAOS`."""


class Attack:
    """Carries a plan's blows out.

    Attributes:
        struck: how often each kind of blow fell.
        standing: how far the work was at the last look.
    """

    def __init__(
        self, plan: Plan, fleet: Fleet, database: EmbeddedPostgres, recovery: Recovery
    ) -> None:
        self._plan = plan
        self._fleet = fleet
        self._database = database
        self._recovery = recovery
        self.struck: Counter[str] = Counter()
        self.standing = Standing(0, 0, 1)

    async def strike_all(self) -> None:
        """Every blow at its moment."""
        began = time.monotonic()
        for blow in self._plan.blows:
            await asyncio.sleep(max(0, began + blow.at_seconds - time.monotonic()))
            await self._strike(blow)
        await asyncio.sleep(max(0, began + self._plan.seconds - time.monotonic()))

    async def watch(self, design: Design, every_seconds: float) -> None:
        """Keep `standing` up to date, until cancelled."""
        while True:
            try:
                async with self._recovery.connected() as connection:
                    self.standing = await design.standing(connection)
            except psycopg.Error:
                pass  # the database is away: that is the point of all this
            await asyncio.sleep(every_seconds)

    async def _strike(self, blow: Blow) -> None:
        if blow.kind == "database":
            await self._kill_database(blow.down_seconds)
        elif blow.kind == "freeze":
            # Not counted among the deaths: a row in its transaction is free when the server ends that.
            self.struck["worker frozen"] += self._fleet.freeze(blow.target, blow.down_seconds)
        elif self._fleet.kill(blow.kind, blow.target):
            self.struck[f"{blow.kind} killed"] += 1
            if blow.kind == "worker":
                await self._recovery.killed()

    async def _kill_database(self, down_seconds: float) -> None:
        self._recovery.database_died()
        await asyncio.to_thread(self._database.crash)
        self.struck["database killed"] += 1
        await asyncio.sleep(down_seconds)
        await asyncio.to_thread(self._database.start)
        self._recovery.database_is_back(open_work=self.standing.open_work > 0)
