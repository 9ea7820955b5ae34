"""Everything around a design: database, provider, bank, perhaps a store and a queue, and networks that fail."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from darkroom.db.embedded import EmbeddedPostgres
from darkroom.edges.serve import listen_on_free_port
from darkroom.torture.attack import (
    BANK_BUSY_SHARE,
    BANK_SLOW_SHARE,
    BANK_UNTOLD_SHARE,
    FAULT_SECONDS_MAX,
    NETWORK_RATES,
    PROVIDER_CHAOS,
    PROVIDER_FAULT_RATE,
    QUEUE_FAULT_RATE,
    QUEUE_TIME_SCALE,
    SERVICE_RATES,
    STORE_RATES,
    STORE_SLOW_SECONDS,
)
from darkroom.torture.design import Rented, Surroundings
from darkroom.torture.plan import Plan
from darkroom.twin.bank import SandboxBank
from darkroom.twin.bank_books import BankHabits
from darkroom.twin.faulty_network import FaultyNetwork
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.loopback import loopback
from darkroom.twin.network_faults import SeededFaults
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.twin.qstash_faults import Habits as QueueHabits
from darkroom.twin.seaweed import seaweed
from darkroom.twin.store_faults import SeededStoreFaults, StoreProxy, no_faults, store_proxy

GENERATION_SECONDS: Final = 1.0
"""How long the provider's stand-in paints: some calls are always open."""
QUEUE_NETWORK: Final = "queue network"


@dataclass(slots=True)
class _Hired:
    """The rented parts themselves."""

    queue: QStashTwin
    store: StoreProxy
    rented: Rented


@dataclass(slots=True)
class Town:
    """Everything around the design, running."""

    places: Surroundings
    database: EmbeddedPostgres
    provider: KieTwin
    bank: SandboxBank
    networks: dict[str, FaultyNetwork]
    queue: QStashTwin | None = None
    store: StoreProxy | None = None

    def calm(self) -> None:
        """Faults end. What the bank and the provider refuse for good they go on refusing."""
        self.provider.habits.fault_rate = 0
        self.bank.habits.busy_share = self.bank.habits.slow_share = 0
        for network in self.networks.values():
            network.calm()
        if self.queue is not None:
            self.queue.habits.fault_rate = 0
        if self.store is not None:
            self.store.faults = no_faults
            self.store.go_on()

    def faults(self) -> Counter[str]:
        """Everything that went wrong out here so far, as `place: kind`."""
        found = Counter({f"provider: {kind}": n for kind, n in self.provider.struck.items()})
        for name, network in self.networks.items():
            found.update({f"{name}: {kind}": times for kind, times in network.struck.items()})
        if self.queue is not None:
            struck = self.queue.lots.struck
            found.update({f"queue: {kind}": times for kind, times in struck.items()})
        if self.store is not None:
            found.update({f"store: {kind}": times for kind, times in self.store.struck.items()})
        return found


@asynccontextmanager
async def open_town(folder: Path, plan: Plan, *, is_full: bool) -> AsyncGenerator[Town]:
    """Database, provider, bank, and a network that fails in front of each of them and of our server.

    With `is_full` also an S3 store behind a proxy that fails, and QStash's stand-in behind a network that does.
    All of it ends with the block.
    """
    database = EmbeddedPostgres(folder / "postgres")
    async with AsyncExitStack() as stack:
        calm_dsn = await asyncio.to_thread(database.start)
        stack.callback(database.stop)
        hired = await _hire(stack, folder, plan) if is_full else None
        callback_key = None if hired is None else hired.rented.callback_key
        provider = await stack.enter_async_context(kie_twin(_provider_habits(plan, callback_key)))
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
        if hired is not None:
            networks[QUEUE_NETWORK] = FaultyNetwork.to_http(hired.queue.base_url)
        await _begin_to_fail(stack, networks, plan)
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
        if hired is None:
            yield Town(places, database, provider, bank, networks)
            return
        places = replace(
            places,
            queue_key=hired.queue.habits.current_key,
            rented=replace(hired.rented, queue_url=networks[QUEUE_NETWORK].url),
        )
        yield Town(places, database, provider, bank, networks, hired.queue, hired.store)


async def _begin_to_fail(
    stack: AsyncExitStack, networks: dict[str, FaultyNetwork], plan: Plan
) -> None:
    for number, (name, network) in enumerate(networks.items()):
        await stack.enter_async_context(network)
        rates = NETWORK_RATES if name == "database network" else SERVICE_RATES
        if not plan.bad_day.is_calm:
            network.faults = SeededFaults(
                plan.seed * 10 + number, rates, seconds_max=FAULT_SECONDS_MAX
            )


async def _hire(stack: AsyncExitStack, folder: Path, plan: Plan) -> _Hired:
    """The object store and the queue. Only the queue's network is still missing."""
    server = await stack.enter_async_context(seaweed(folder / "store"))
    store = await stack.enter_async_context(store_proxy(server.endpoint))
    store.slow_seconds = STORE_SLOW_SECONDS
    if not plan.bad_day.is_calm:
        store.faults = SeededStoreFaults(plan.seed, STORE_RATES)
    habits = QueueHabits(
        token=f"token-{secrets.token_hex(14)}",
        current_key=f"sig_{secrets.token_hex(14)}",
        next_key=f"sig_{secrets.token_hex(14)}",
        time_scale=QUEUE_TIME_SCALE,
        fault_rate=0 if plan.bad_day.is_calm else QUEUE_FAULT_RATE,
        seed=plan.seed,
    )
    queue = await stack.enter_async_context(qstash_twin(habits))
    rented = Rented(
        store_endpoint=store.endpoint,
        calm_store_endpoint=server.endpoint,
        bucket=server.bucket,
        store_key_id=server.access_key_id,
        store_secret=server.secret_access_key,
        queue_url=queue.base_url,
        queue_token=habits.token,
        next_queue_key=habits.next_key,
        callback_key=f"key-{secrets.token_hex(14)}",
    )
    return _Hired(queue, store, rented)


def _provider_habits(plan: Plan, callback_key: str | None) -> Habits:
    return Habits(
        # Clients see errors as statuses, and as 200 with a code in the body: half of the days each.
        errors_in_body=plan.seed % 2 == 0,
        creates_limit=None,
        seconds_to_finish=GENERATION_SECONDS,
        credits_left=10**9,
        fault_rate=0 if plan.bad_day.is_calm else PROVIDER_FAULT_RATE,
        failed_share=plan.bad_day.photos_failed_share,
        seed=plan.seed,
        chaos=PROVIDER_CHAOS,
        # Where a store gives real links, they are read; and whoever has a key signs.
        reads_references=callback_key is not None,
        hmac_key=callback_key,
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
