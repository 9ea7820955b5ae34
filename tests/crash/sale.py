"""One sale over a network that fails: ordered, paid, made. Whoever gets no answer asks again."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

from darkroom.core.audit import run_audit
from darkroom.core.people import create_avatar, ensure_user
from darkroom.db.database import Connection, Database, DatabaseUnavailableError, RowBusyError
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.errors import RequestRefusedError
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.limits import Limits
from darkroom.ports.generation import GenerationProvider
from darkroom.twin.faulty_network import FaultyNetwork
from darkroom.twin.network_faults import Fault, Kind, Passing
from darkroom.twin.wires import Moment
from tests.scripted import picture_of
from tests.shop import Customer, Shop, open_shop

T = TypeVar("T")
ASKED_AGAIN_MAX: Final = 10
SOON_SECONDS: Final = 20
"""What waits for a running worker gives up after this: two leases as they are in production."""
HASTY: Final = Limits(
    lease_seconds=1.5,
    renew_seconds=0.4,
    # Longer than a group's answers can be held up by three silent connections in a row.
    unknown_grace_seconds=5,
    retry_base_seconds=0.05,
    payment_ask_first_seconds=1,
)
"""Everything a worker waits for, short: no clock is moved under a running one."""


class Strike:
    """Strikes once: at the `at`-th moment of its sort whose text begins with `text`."""

    def __init__(
        self,
        kind: Kind,
        moment: Moment,
        *,
        at: int = 1,
        text: str = "",
        seconds: float | None = None,
    ) -> None:
        self.done = False
        self._fault = Fault(kind, seconds)
        self._moment = moment
        self._text = text
        self._left = at

    def __call__(self, passing: Passing) -> Fault | None:
        """See `Faults`."""
        ours = passing.moment is self._moment and passing.text.strip().startswith(self._text)
        if self.done or not ours:
            return None
        self._left -= 1
        self.done = self._left == 0
        return self._fault if self.done else None


class HastyDatabase(Database):
    """Gives a use of a connection up after `use_seconds`, and counts the uses that were lost."""

    use_seconds: float = 5
    lost: int = 0

    @asynccontextmanager
    async def connection(self, *, timeout_seconds: float = 60) -> AsyncGenerator[Connection]:
        """See `Database`."""
        limit = min(timeout_seconds, self.use_seconds)
        try:
            async with super().connection(timeout_seconds=limit) as connection:
                yield connection
        except DatabaseUnavailableError:
            self.lost += 1
            raise


@dataclass
class Street:
    """A shop whose way to its database is `network`. The hands of the test have a way of their own."""

    network: FaultyNetwork
    shop: Shop
    over_network: HastyDatabase


@asynccontextmanager
async def street(
    dsn: str,
    folder: Path,
    *,
    limits: Limits | None = None,
    provider: GenerationProvider | None = None,
) -> AsyncGenerator[Street]:
    """Open it. Nothing fails until the network is told to."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(FaultyNetwork.to_postgres(dsn))
        direct, over_network = Database(dsn), HastyDatabase(network.dsn, pool_size=10)
        for database in (direct, over_network):
            await database.open()
            stack.push_async_callback(database.close)
        shop = await stack.enter_async_context(
            open_shop(over_network, folder, limits=limits, provider=provider)
        )
        shop.database = direct
        yield Street(network, shop, over_network)


async def insist(work: Callable[[], Awaitable[T]]) -> T:
    """Do it as the outside does: again, when there was no answer or "not now"."""
    for _ in range(ASKED_AGAIN_MAX):
        try:
            return await work()
        except (DatabaseUnavailableError, RowBusyError):
            continue
        except RequestRefusedError as refusal:
            if refusal.status < 500:
                raise
    raise AssertionError("no answer, however often it was asked")


async def newcomer(shop: Shop) -> Customer:
    """A customer whose selfie came over the network."""
    shop._next_telegram += 1  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    async with shop.database.connection() as tx:
        user_id = await ensure_user(tx, shop._next_telegram)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
    selfie = picture_of(-avatar_id)
    await insist(lambda: add_selfie(shop.darkroom, avatar_id=avatar_id, data=selfie))
    return Customer(user_id, avatar_id, user_id)


async def order(shop: Shop, customer: Customer, *, provider: str = "bank") -> int:
    """An order whose button is pressed until there is an answer; the payment's id."""
    wish = OrderRequest(
        user_id=customer.user_id,
        tier_id="starter",
        provider=provider,
        avatar_id=customer.avatar_id,
        style_id="signature",
        idempotency_key=f"order-{customer.user_id}",
        request_id=uuid4(),
    )

    async def press() -> int:
        # Every press is a request of its own; what makes them one is the key.
        return (await order_photos(shop.darkroom, replace(wish, request_id=uuid4()))).id

    return await insist(press)


async def pay(shop: Shop, payment_id: int) -> None:
    """The customer pays; the bank says so until it hears OK."""
    shop.bank.pays(payment_id)
    assert await insist(lambda: shop.notify(payment_id, event=f"event-{payment_id}")) == "OK"


async def sell(shop: Shop) -> int:
    """A whole sale, by rounds that are run again when the database was not there; the payment's id."""
    payment_id = await order(shop, await newcomer(shop))
    await pay(shop, payment_id)
    await insist(shop.drain)
    return payment_id


async def until(shop: Shop, true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a running worker."""
    async with asyncio.timeout(SOON_SECONDS):
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            await shop.darkroom.doorbell.wait(0.02)


async def is_completed(shop: Shop, payment_id: int) -> bool:
    """Whether this payment's job is."""
    status = await shop.value(
        "SELECT status FROM generation_jobs WHERE payment_id = %s", payment_id
    )
    return status == "completed"


async def judge(shop: Shop, payment_id: int, *, spare: int) -> None:
    """One job for this payment, exactly its photos, and no more tasks than answers got lost."""
    jobs = await shop.rows(
        "SELECT id, status, completed_photos FROM generation_jobs WHERE payment_id = %s", payment_id
    )
    assert [(job["status"], job["completed_photos"]) for job in jobs] == [("completed", 7)]
    tasks = await shop.rows("SELECT id FROM kie_tasks WHERE job_id = %s", jobs[0]["id"])
    photos = await shop.rows(
        "SELECT task_id FROM generated_photos WHERE job_id = %s", jobs[0]["id"]
    )
    ours = {task["id"] for task in tasks}
    assert len(photos) == 7
    assert {photo["task_id"] for photo in photos} == ours
    made = [request for request in shop.provider.created.values() if request.task_id in ours]
    assert len(made) <= 7 + spare
    orders = await shop.value(
        "SELECT count(*) FROM payments p JOIN payments mine USING (user_id) WHERE mine.id = %s",
        payment_id,
    )
    assert orders == 1, "ordered once, two payments"
    report = await run_audit(shop.database)
    assert report.clean, report.findings
