"""What can be tortured: a design of the same shop, with the same doors, and its own idea of the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import psycopg

from darkroom.torture.plan import Plan

CALM_LIFE: Final = "calm"
"""The life of a process that has no accident of its own."""


@dataclass(frozen=True, slots=True)
class Rented:
    """What a whole shop rents beside the provider and the bank: an object store and a queue.

    Attributes:
        store_endpoint: of the S3 store, through a proxy that fails.
        calm_store_endpoint: the same store without faults, for preparing and judging.
        queue_url, queue_token: QStash's stand-in, where rings are published.
        next_queue_key: what queue messages are signed with right after a rotation.
        callback_key: what the provider signs its callbacks with.
    """

    store_endpoint: str
    calm_store_endpoint: str
    bucket: str
    store_key_id: str
    store_secret: str
    queue_url: str
    queue_token: str
    next_queue_key: str
    callback_key: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a design finds everything. All addresses but calm ones lead through a network that fails.

    Attributes:
        folder: for its files; outlives its processes.
        dsn: the database's, for its processes.
        calm_dsn: the same database without faults, for preparing and judging.
        server_port: where its server listens on 127.0.0.1.
        server_url: how customers, the bank and the provider reach its server.
        provider_url, provider_key: kie.ai's stand-in.
        bank_url, bank_secret: the sandbox bank.
        queue_key: what queue messages are signed with.
        rented: a store and a queue; None: photos are kept in `folder`, and nobody rings but the customers.
    """

    folder: Path
    dsn: str
    calm_dsn: str
    server_port: int
    server_url: str
    provider_url: str
    provider_key: str
    bank_url: str
    bank_secret: str
    queue_key: str
    rented: Rented | None = None


@dataclass(frozen=True, slots=True)
class Sold:
    """What the outside knows of one order at the end.

    Attributes:
        payment_id: ours, as the server told the customer; None when no answer ever came.
        photos: how many it was sold as.
        price_minor: what it was sold for; None: nobody said.
        paid_minor: what the bank took for it, over all of its payments.
        bank_payments: how often the customer was made to pay.
        job_ids: every job that any answer named for this order.
        payment_ids: every payment that any answer named for it.
        returned_minor: what the bank gave back of it, by its own books.
        refuses_refunds: whether the bank will never give anything of it back.
    """

    payment_id: int | None
    photos: int
    paid_minor: int
    bank_payments: int
    job_ids: frozenset[int]
    payment_ids: frozenset[int] = frozenset()
    returned_minor: int = 0
    refuses_refunds: bool = False
    price_minor: int | None = None


@dataclass(slots=True)
class Verdict:
    """What is left of the promises. Each complaint is one photo, payment, task or row, in words.

    Attributes:
        returned_minor: money that is back at its customers, by the bank's books.
        with_a_person: refunds that the bank refused for good: owed, and on a person's list.
        lines_reconciled: lines of the bank's own list that were held against ours.
    """

    photos: int = 0
    paid_back: int = 0
    returned_minor: int = 0
    with_a_person: int = 0
    lines_reconciled: int = 0
    lost: list[str] = field(default_factory=list[str])
    doubled: list[str] = field(default_factory=list[str])
    unexplained: list[str] = field(default_factory=list[str])

    @property
    def clean(self) -> bool:
        """Nothing lost, doubled or unexplained."""
        return not (self.lost or self.doubled or self.unexplained)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the work is.

    Attributes:
        open_work: rows that something still has to happen to; 0 when all is quiet.
    """

    photos: int
    jobs_ended: int
    open_work: int


@dataclass(frozen=True, slots=True)
class Held:
    """A row that a process holds by a lease: `mark` changes when it moves on.

    Attributes:
        lease_left_seconds: until the lease ends, if nobody renews it.
    """

    kind: str
    row_id: int
    mark: str
    lease_left_seconds: float


@dataclass(frozen=True, slots=True)
class Made:
    """A task in the provider's own list.

    Attributes:
        token: the last part of the address that it was to call back.
        prompt: what it was asked for.
        links: where it was to read the selfies.
        sha256: of the picture that it made; None: it made none.
    """

    token: str
    prompt: str
    links: tuple[str, ...]
    sha256: str | None


class Design(Protocol):
    """A design of the shop, with the doors of DESIGN 2: payments, generate, jobs/process.

    It also takes the bank's notices and the provider's callbacks, at addresses that it tells them.

    Attributes:
        name: what it is called.
        starts_by_notice: whether the bank's notice alone starts a set that was ordered with the payment.
        rents: whether it knows how to use a rented store and queue.
    """

    name: str
    starts_by_notice: bool
    rents: bool

    async def prepare(self, places: Surroundings, plan: Plan) -> dict[int, int]:
        """Schema and customers, in peace. Returns each customer's avatar id by Telegram id."""
        ...

    def command(self, places: Surroundings, role: str, *, life: str) -> Sequence[str]:
        """The command line of a new "server" or "worker". `life` is what its own accidents are drawn from."""
        ...

    def environment(self, places: Surroundings) -> Mapping[str, str]:
        """What its processes find in their environment beside that of this one."""
        ...

    async def standing(self, connection: psycopg.AsyncConnection[Any]) -> Standing:
        """How far the work is, read directly."""
        ...

    async def held(self, connection: psycopg.AsyncConnection[Any]) -> list[Held]:
        """Every row that a process holds now; none where a design knows no leases."""
        ...

    async def newest_move(self, connection: psycopg.AsyncConnection[Any]) -> int:
        """A number that grows whenever anything moves on."""
        ...

    async def judge(
        self, places: Surroundings, sold: Sequence[Sold], made: Sequence[Made]
    ) -> Verdict:
        """The verdict at the end, over the database, the stored bytes, and what the outside knows."""
        ...
