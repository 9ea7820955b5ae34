"""The real outsides' stand-ins on a loop of their own, and a world whose processes are the production wiring.

A process that vanishes takes its event loop with it. The stand-ins of kie.ai, QStash and the bank therefore
live in another thread, on a loop that nobody stops: they finish what they were asked, whoever still listens.
What they send to us is kept in a mailbox and handed to the real doors by the story, again and again until a
process answers.
"""

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import uvloop
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from darkroom.adapters.qstash_doorbell import QStashDoorbell
from darkroom.adapters.storage_s3 import S3Place
from darkroom.config import IsolatedSettings
from darkroom.twin.bank import SandboxBank
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.loopback import loopback
from darkroom.twin.qstash import QStashTwin, qstash_twin
from darkroom.wiring import build_application, open_darkroom
from tests.crash.vanishing import Crash, World
from tests.scripted import ScriptedBank, ScriptedIntake, ScriptedProvider
from tests.shop import Shop

T = TypeVar("T")
ANSWER_SECONDS: Final = 20
"""A stand-in answers in milliseconds; more is a test that hangs."""
LOOK_SECONDS: Final = 0.002
RING_SECONDS: Final = 60
"""QStash's clock is moved past whatever a ring may wait for."""
BANK_SECRET: Final = "bank-secret"
CALLBACK_KEY: Final = "callback-key"


class OwnLoop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it over there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_SECONDS)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Letter:
    """A request that a stand-in sent to us."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Town:
    """The stand-ins and what they sent. Every method may be called from the story's thread.

    Attributes:
        variables: what a process of ours is started with.
    """

    loop: OwnLoop
    kie: KieTwin
    queue: QStashTwin
    bank: SandboxBank
    place: S3Place
    variables: dict[str, str]
    mailbox: list[Letter] = field(default_factory=list[Letter])

    def pays(self, payment_id: int) -> None:
        """The customer of this order pays at the bank, which tells us."""

        async def decide() -> None:
            for row in self.bank.payments():
                if row["order_id"] == payment_id:
                    self.bank.decide(row["id"], "paid")

        self.loop.do(decide())

    def paint(self) -> None:
        """Every task that kie.ai has is done, and called back about."""

        async def finish() -> None:
            for task_id in list(self.kie.tasks):
                await self.kie.finish(task_id)

        self.loop.do(finish())

    def take_mail(self) -> list[Letter]:
        """Everything that was sent by now, in order."""
        self.loop.do(self._until_all_is_sent())
        taken = self.mailbox[:]
        del self.mailbox[: len(taken)]
        return taken

    async def _until_all_is_sent(self) -> None:
        await self.queue.advance(RING_SECONDS)
        await self.kie.callbacks_settled()
        while self.bank.books.rows("SELECT id FROM events WHERE delivered = 0"):
            await asyncio.sleep(LOOK_SECONDS)


class OutsideWorld(World):
    """A world whose processes are joined as production joins them; only files are looked at by a script."""

    def __init__(self, dsn: str, server: str, folder: Path, town: Town) -> None:
        self.town = town
        self._doors: tuple[Shop, FastAPI] | None = None
        self._settings = IsolatedSettings.model_validate(
            {**town.variables, "DATABASE_URL": dsn, "DARKROOM_DATA_DIR": str(folder)}
        )
        super().__init__(dsn, server, folder, Crash())

    @asynccontextmanager
    async def open_shop(self) -> AsyncGenerator[Shop]:
        """See `World`."""
        async with open_darkroom(self._settings) as joined:
            darkroom = replace(joined, intake=ScriptedIntake())
            yield Shop(darkroom, darkroom.database, ScriptedProvider(), ScriptedBank())

    async def let_go(self, shop: Shop) -> None:
        """See `World`."""
        darkroom = shop.darkroom
        for part in (*darkroom.generation.values(), *darkroom.payments.values()):
            await part.close()
        if isinstance(darkroom.doorbell, QStashDoorbell):
            await darkroom.doorbell.close()

    def close(self) -> None:
        """See `World`. A connection that was just being begun leaves a coroutine that nobody awaits."""
        super().close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            gc.collect()

    async def hand_in(self, shop: Shop, letter: Letter) -> int:
        """A letter at the real door. Returns the answer's status."""
        if self._doors is None or self._doors[0] is not shop:
            application = build_application(shop.darkroom, self._settings, worker=None)
            self._doors = (shop, application)
        application = self._doors[1]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application)) as client:
            answer = await client.post(
                f"{self._settings.base_url}{letter.path}",
                content=letter.body,
                headers=letter.headers,
            )
        return answer.status_code


@contextmanager
def open_town(
    loop: OwnLoop, folder: Path, place: S3Place, *, signs_callbacks: bool = True
) -> Generator[Town]:
    """Start the stand-ins; end them with the block."""
    stack = AsyncExitStack()
    town = loop.do(_open(loop, stack, folder, place, signs_callbacks=signs_callbacks))
    try:
        yield town
    finally:
        loop.do(stack.aclose())


async def _open(
    loop: OwnLoop, stack: AsyncExitStack, folder: Path, place: S3Place, *, signs_callbacks: bool
) -> Town:
    mailbox: list[Letter] = []
    post = Starlette(routes=[Route("/{path:path}", _keeping(mailbox), methods=["POST"])])
    public_url = await stack.enter_async_context(loopback(post))
    habits = Habits(
        asks_to_finish=1,
        reads_references=True,
        hmac_key=CALLBACK_KEY if signs_callbacks else None,
    )
    kie = await stack.enter_async_context(kie_twin(habits))
    queue = await stack.enter_async_context(qstash_twin())
    bank = SandboxBank(secret=BANK_SECRET, file=folder / "bank.sqlite", public_url=public_url)
    await stack.enter_async_context(bank.running())
    bank_url = await stack.enter_async_context(loopback(bank.app))
    variables = {
        "DARKROOM_MODE": "demo",
        "DARKROOM_PUBLIC_URL": public_url,
        "DARKROOM_DATABASE_POOL_SIZE": "8",
        "DARKROOM_LINK_SECRET": "link-secret-of-a-test-that-is-long-enough",
        "DARKROOM_GENERATION_PROVIDER": "kie",
        "DARKROOM_ALLOW_PRIVATE_DOWNLOADS": "true",
        "KIE_API_KEY": habits.api_key,
        "KIE_BASE_URL": kie.base_url,
        "DARKROOM_STORAGE_URL": f"s3://{place.bucket}/{place.prefix}",
        "S3_ENDPOINT": str(place.endpoint),
        "S3_ACCESS_KEY_ID": place.access_key_id,
        "S3_SECRET_ACCESS_KEY": place.secret_access_key,
        "QSTASH_URL": queue.base_url,
        "QSTASH_TOKEN": queue.habits.token,
        "QSTASH_CURRENT_SIGNING_KEY": queue.habits.current_key,
        "QSTASH_NEXT_SIGNING_KEY": queue.habits.next_key,
        "DARKROOM_SANDBOX_URL": bank_url,
        "DARKROOM_SANDBOX_SECRET": BANK_SECRET,
    }
    if signs_callbacks:
        variables["KIE_WEBHOOK_HMAC_KEY"] = CALLBACK_KEY
    return Town(loop, kie, queue, bank, place, variables, mailbox)


def _keeping(mailbox: list[Letter]) -> Any:  # noqa: ANN401 - a Starlette endpoint
    async def keep(request: Request) -> Response:
        mailbox.append(Letter(request.url.path, dict(request.headers), await request.body()))
        if "/webhooks/payments/" in request.url.path:
            return PlainTextResponse("OK")
        return JSONResponse({"success": True})

    return keep
