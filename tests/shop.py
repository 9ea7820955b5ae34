"""A whole Darkroom for one test: its rows, its outsides, its time, and a way to let it run."""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

from psycopg.rows import dict_row
from psycopg.sql import SQL, Literal

from darkroom.adapters.doorbell import LocalDoorbell
from darkroom.adapters.mail_folder import FolderMailer
from darkroom.adapters.pictures import read_picture
from darkroom.adapters.storage import open_storage
from darkroom.adapters.thumbnails import develop, make_thumbnail
from darkroom.core.jobs import StartedJob
from darkroom.core.people import create_avatar, ensure_user
from darkroom.db.database import Database
from darkroom.flow.add_selfie import add_selfie
from darkroom.flow.darkroom import Darkroom
from darkroom.flow.leases import LeaseKeeper
from darkroom.flow.order_photos import OrderRequest, order_photos
from darkroom.flow.photo_links import PhotoLinks
from darkroom.flow.receive import receive_payment_notice
from darkroom.flow.signed_tokens import SignedTokens
from darkroom.flow.start_generation import GenerateRequest, start_generation
from darkroom.flow.steps import HOUSE_STEPS, WORK_STEPS, Step
from darkroom.flow.store_watch import StoreIs, StoreWatch
from darkroom.limits import Limits
from darkroom.ports.generation import GenerationProvider
from darkroom.ports.intake import Intake
from darkroom.ports.mail import Mailer
from tests.scripted import ScriptedBank, ScriptedIntake, ScriptedProvider, picture_of

ROUNDS_MAX = 400
"""A drain that needs more rounds than this is stuck."""

NEXT_DUE = """
SELECT extract(epoch FROM min(at) - darkroom_now())::FLOAT8 FROM (
    SELECT greatest(due_at, coalesce(lease_until, due_at)) AS at FROM kie_tasks
    WHERE status IN ('unknown', 'pending', 'storing')
    UNION ALL SELECT greatest(t.due_at, b.paused_until) FROM kie_tasks t
    LEFT JOIN provider_budgets b ON b.provider = t.provider WHERE t.status = 'queued'
    UNION ALL SELECT lease_until FROM kie_tasks WHERE status = 'submitting'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM generation_jobs
    WHERE status IN ('pending', 'processing')
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM inbox
    WHERE processed_at IS NULL
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM payments
    WHERE status = 'pending'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM refunds
    WHERE status IN ('requested', 'unknown')
    UNION ALL SELECT lease_until FROM refunds WHERE status = 'sending'
    UNION ALL SELECT greatest(due_at, coalesce(lease_until, due_at)) FROM mail_outbox
    WHERE status = 'pending'
) waiting
"""


@dataclass
class Customer:
    """A user with an avatar and a selfie."""

    user_id: int
    avatar_id: int
    telegram_user_id: int


@dataclass
class Shop:
    """The program and the hands of a test on it."""

    darkroom: Darkroom
    database: Database
    provider: ScriptedProvider
    bank: ScriptedBank
    audit_at_end: bool = True
    offset_seconds: float = 0
    _next_telegram: int = field(default=1000)

    async def customer(self, telegram_user_id: int | None = None) -> Customer:
        """Somebody new, ready to buy."""
        if telegram_user_id is None:
            self._next_telegram += 1
            telegram_user_id = self._next_telegram
        async with self.database.connection() as tx:
            user_id = await ensure_user(tx, telegram_user_id)
            avatar_id = await create_avatar(tx, user_id=user_id, name="Me")
        await add_selfie(self.darkroom, avatar_id=avatar_id, data=picture_of(-avatar_id))
        return Customer(user_id, avatar_id, telegram_user_id)

    async def paid(
        self,
        customer: Customer,
        *,
        tier: str = "starter",
        order_style: str | None = None,
        receipt_email: str | None = None,
    ) -> int:
        """A payment of this customer that succeeded, as the bank's notice leaves it."""
        payment_id = await self.ordered(
            customer, tier=tier, order_style=order_style, receipt_email=receipt_email
        )
        async with self.database.connection() as tx:
            await tx.execute(
                "UPDATE payments SET status = 'succeeded', succeeded_at = darkroom_now() WHERE id = %s",
                [payment_id],
            )
        return payment_id

    async def ordered(
        self,
        customer: Customer,
        *,
        tier: str = "starter",
        order_style: str | None = None,
        receipt_email: str | None = None,
    ) -> int:
        """A pending payment that the bank knows of."""
        payment = await order_photos(
            self.darkroom,
            OrderRequest(
                user_id=customer.user_id,
                tier_id=tier,
                provider="bank",
                avatar_id=None if order_style is None else customer.avatar_id,
                style_id=order_style,
                idempotency_key=None,
                request_id=uuid4(),
                receipt_email=receipt_email,
            ),
        )
        return payment.id

    def request(
        self,
        customer: Customer,
        *,
        payment_id: int | None = None,
        style: str = "signature",
        key: str | None = None,
    ) -> GenerateRequest:
        """A customer's wish for a set."""
        return GenerateRequest(
            user_id=customer.user_id,
            avatar_id=customer.avatar_id,
            style_id=style,
            payment_id=payment_id,
            idempotency_key=key,
            request_id=uuid4(),
        )

    async def start(
        self, customer: Customer, *, payment_id: int | None = None, style: str = "signature"
    ) -> StartedJob:
        """Start a set."""
        return await start_generation(
            self.darkroom, self.request(customer, payment_id=payment_id, style=style)
        )

    async def sold(self, *, tier: str = "starter") -> tuple[Customer, StartedJob]:
        """A new customer whose paid set has just been started."""
        customer = await self.customer()
        await self.paid(customer, tier=tier)
        return customer, await self.start(customer)

    async def notify(self, payment_id: int, state: str = "paid", event: str = "event-1") -> str:
        """The bank's signed notice arrives."""
        return await receive_payment_notice(
            self.darkroom,
            provider_name="bank",
            headers={"signed": "yes"},
            body=f"{payment_id} {state} {event}".encode(),
        )

    async def advance(self, seconds: float) -> None:
        """Move the database's clock."""
        self.offset_seconds += seconds
        statement = SQL(
            "CREATE OR REPLACE FUNCTION darkroom_now() RETURNS TIMESTAMPTZ "
            "LANGUAGE sql VOLATILE PARALLEL SAFE "
            "AS $$ SELECT clock_timestamp() + make_interval(secs => {}) $$"
        ).format(Literal(self.offset_seconds))
        async with self.database.connection() as tx:
            await tx.execute(statement)

    async def round(self) -> int:
        """One round of every step, in order. Returns how many rows were worked on."""
        return await self._run((*WORK_STEPS, *HOUSE_STEPS))

    async def _run(self, steps: Sequence[Step]) -> int:
        return sum([await step.run(self.darkroom) for step in steps])

    async def step(self, name: str) -> None:
        """One step, until it finds nothing more."""
        run = next(step.run for step in (*WORK_STEPS, *HOUSE_STEPS) if step.name == name)
        while await run(self.darkroom):
            pass

    async def drain(self, *, stride_seconds: float = 0.001) -> None:
        """Let everything run to its end, moving the clock just past whatever is due next.

        A longer stride takes many rows, whose times have drifted apart, in fewer rounds.
        """
        for _ in range(ROUNDS_MAX):
            # The house waits until the work is done: it has seven steps, and nearly always nothing to do.
            if await self._run(WORK_STEPS) or await self._run(HOUSE_STEPS):
                continue
            wait_seconds = await self.value(NEXT_DUE)
            if wait_seconds is None:
                return
            # At least a little: a window of the provider's budget slides without any row being due.
            await self.advance(max(wait_seconds, 0.5 if wait_seconds < 0 else 0) + stride_seconds)
        raise AssertionError(
            f"stuck: {await self.rows('SELECT id, status, last_error FROM kie_tasks')}"
        )

    async def value(self, query: LiteralString, *params: object) -> Any:  # noqa: ANN401 - a column of any type
        """One value."""
        return await self.database.fetch_value(query, params)

    async def rows(self, query: LiteralString, *params: object) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        async with self.database.connection() as tx, tx.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, params)
            return await cursor.fetchall()

    async def statuses(self) -> Sequence[str]:
        """The statuses of all tasks, by id."""
        return [
            row["status"] for row in await self.rows("SELECT status FROM kie_tasks ORDER BY id")
        ]

    async def job(self, job_id: int) -> dict[str, Any]:
        """A job's row."""
        return (await self.rows("SELECT * FROM generation_jobs WHERE id = %s", job_id))[0]


def store_folder(folder: Path) -> Path:
    """Where a shop of this process keeps its objects. Another process that works with it is told the place."""
    return folder / f"objects-{os.getpid()}"


@asynccontextmanager
async def open_shop(
    database: Database,
    folder: Path,
    *,
    limits: Limits | None = None,
    provider: GenerationProvider | None = None,
    intake: Intake | None = None,
    bank: ScriptedBank | None = None,
    chat_enabled: bool = False,
    mailer: Mailer | None = None,
) -> AsyncGenerator[Shop]:
    """Join a Darkroom over scripted outsides; `provider` takes the scripted one's place.

    Letters go into a folder beside the objects, `outbox`, as in demo mode.
    """
    scripted = provider if isinstance(provider, ScriptedProvider) else ScriptedProvider()
    bank = bank or ScriptedBank()
    limits = limits or Limits()
    chosen: GenerationProvider = provider or scripted
    leases = LeaseKeeper(
        database, lease_seconds=limits.lease_seconds, renew_seconds=limits.renew_seconds
    )
    # As after a start that has recognized it; no test waits for a mark that it does not ask about.
    store_watch = StoreWatch()
    store_watch.learn(StoreIs.OURS)
    darkroom = Darkroom(
        database=database,
        store=open_storage(None, store_folder(folder)),
        generation={chosen.name: chosen},
        new_tasks_go_to=chosen.name,
        payments={"bank": bank},
        doorbell=LocalDoorbell(),
        leases=leases,
        intake=intake or ScriptedIntake(),
        read_picture=read_picture,
        make_thumbnail=make_thumbnail,
        develop=develop,
        develop_apart=develop,
        tokens=SignedTokens(secret="link-secret", previous=None),
        links=PhotoLinks(secret="link-secret", previous=None, minutes=15),
        limits=limits,
        max_generation_attempts=3,
        selfie_days=30,
        chat_enabled=chat_enabled,
        base_url="http://127.0.0.1:8000",
        mailer=mailer or FolderMailer(folder / "outbox", sender="Shop <shop@darkroom.test>"),
        store_watch=store_watch,
    )
    try:
        yield Shop(darkroom, database, scripted, bank)
    finally:
        await leases.close()
