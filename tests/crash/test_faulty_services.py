"""The network to each outside service fails in every way, and so does the customers' to us."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from darkroom.adapters.download import Downloader
from darkroom.adapters.generation.kie import KieProvider
from darkroom.adapters.payments import sandbox
from darkroom.adapters.payments.sandbox import SandboxPayments
from darkroom.db.database import Database
from darkroom.flow.ask_payments import ask_silent_payments
from darkroom.twin.bank import SandboxBank
from darkroom.twin.faulty_network import FaultyNetwork
from darkroom.twin.kie import KieTwin, kie_twin
from darkroom.twin.kie_faults import Habits
from darkroom.twin.loopback import loopback
from darkroom.twin.network_faults import COMMIT_KINDS, Fault, Kind, Passing
from darkroom.twin.wires import Moment
from tests.crash.sale import Strike, judge, newcomer, order, until
from tests.edges.serving import application_of
from tests.shop import Shop, open_shop

KINDS: Final = [kind for kind in Kind if kind not in COMMIT_KINDS]
CALL_SECONDS: Final = 0.5
"""A call to a stand-in takes milliseconds; what hangs is given up after this."""
SECRET: Final = "shared"


class OneEach:
    """Strikes once at the first request of every sort."""

    def __init__(self, kind: Kind, *lines: str) -> None:
        seconds = 0.05 if kind is Kind.DELAY else None
        self._strikes = [Strike(kind, Moment.REQUEST, text=line, seconds=seconds) for line in lines]

    def __call__(self, passing: Passing) -> Fault | None:
        """See `Faults`."""
        return next((fault for strike in self._strikes if (fault := strike(passing))), None)


@dataclass
class Door:
    """Our own server, with an application that comes later, and what it has answered."""

    app: ASGIApp | None = None
    served: Counter[str] = field(default_factory=Counter[str])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, and count what was served to its end."""
        assert self.app is not None
        await self.app(scope, receive, send)
        self.served[scope["path"]] += 1


@dataclass
class Town:
    """A shop and its outsides, with a network of its own to each."""

    shop: Shop
    kie: KieTwin
    bank: SandboxBank
    to_kie: FaultyNetwork
    to_bank: FaultyNetwork
    to_us: FaultyNetwork
    door: Door


@pytest.fixture
async def town(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Town]:
    """Real adapters and real protocols everywhere; nothing fails until a network is told to."""
    monkeypatch.setattr(sandbox, "CALL_SECONDS", CALL_SECONDS)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        door = Door()
        to_us = await enter(FaultyNetwork.to_http(await enter(loopback(door))))
        kie = await enter(kie_twin(Habits(asks_to_finish=1, creates_limit=None)))
        to_kie = await enter(FaultyNetwork.to_http(kie.base_url))
        kie.base_url = to_kie.url
        bank = SandboxBank(secret=SECRET, file=tmp_path / "bank.sqlite", public_url="http://bank")
        await enter(bank.running())
        to_bank = await enter(FaultyNetwork.to_http(await enter(loopback(bank.app))))
        provider = KieProvider(
            base_url=to_kie.url,
            api_key="twin-key",
            model="nano-banana-pro",
            callback_base_url=to_us.url,
            reference_link=lambda key: f"https://photos.example/{key}",
            downloader=Downloader(
                allow_private=True, hosts_allowed=None, timeout_seconds=CALL_SECONDS
            ),
            call_seconds=CALL_SECONDS,
        )
        stack.push_async_callback(provider.close)
        payments = SandboxPayments(base_url=to_bank.url, secret=SECRET)
        stack.push_async_callback(payments.close)
        shop = await enter(open_shop(database, tmp_path, provider=provider))
        shop.darkroom = replace(
            shop.darkroom,
            payments={"bank": shop.bank, payments.name: payments},
            base_url=to_us.url,
        )
        door.app = application_of(shop)
        yield Town(shop, kie, bank, to_kie, to_bank, to_us, door)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_way_to_the_provider(town: Town, kind: Kind) -> None:
    """bugbook B6, bugbook B8, bugbook C1: a creation, a question and a download, each struck once."""
    shop = town.shop
    customer = await newcomer(shop)
    payment_id = await shop.paid(customer)
    lines = ("POST /api/v1/jobs/createTask", "GET /api/v1/jobs/recordInfo", "GET /results/")
    town.to_kie.faults = OneEach(kind, *lines)
    await shop.start(customer)
    await shop.drain()
    assert town.to_kie.struck == {kind.value: 3}
    town.to_kie.calm()
    await town.kie.callbacks_settled()
    await shop.drain()
    await judge(shop, payment_id, spare=0)
    # One answer to a creation got lost, and with it perhaps one task: nothing else was bought twice.
    assert 7 <= town.kie.tasks_created <= 8
    assert await shop.value("SELECT count(*) FROM task_attempts") <= 8


@pytest.mark.parametrize("kind", KINDS)
async def test_the_way_to_the_bank_and_back(town: Town, kind: Kind) -> None:
    """bugbook A27, bugbook E1, bugbook E2: the order, the question and the bank's notice, each struck once."""
    shop = town.shop
    shop_hears = OneEach(kind, "POST /api/webhooks/payments/sandbox")
    town.to_bank.faults = OneEach(kind, "POST /v1/payments", "GET /v1/")
    customer = await newcomer(shop)
    payment_id = await order(shop, customer, provider="sandbox")
    (known,) = town.bank.payments()
    await shop.advance(31)
    assert await ask_silent_payments(shop.darkroom) == 1
    assert town.to_bank.struck == {kind.value: 2}
    town.to_us.faults = shop_hears
    town.bank.decide(known["id"], "paid")
    await until(shop, lambda: town.to_us.struck[kind.value] == 1)
    await shop.drain()
    town.to_us.calm()
    town.to_bank.calm()
    await town.kie.callbacks_settled()
    await shop.drain()
    await judge(shop, payment_id, spare=0)
    assert town.kie.tasks_created == 7
    assert [payment["status"] for payment in town.bank.payments()] == ["paid"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_customer_who_heard_no_answer_asks_again_and_gets_the_same_set(
    town: Town, kind: Kind
) -> None:
    """bugbook A1, bugbook A13: the same Idempotency-Key, after each way not to hear."""
    shop = town.shop
    customer = await shop.customer(123)
    payment_id = await shop.paid(customer)
    town.to_us.faults = OneEach(kind, "POST /api/generate")
    body = {"telegramUserId": 123, "avatarId": customer.avatar_id, "styleId": "signature"}
    answers: list[httpx.Response] = []
    tries = 0
    async with httpx.AsyncClient(base_url=town.to_us.url, timeout=CALL_SECONDS) as browser:
        while not answers:
            tries += 1
            try:
                answers.append(
                    await browser.post(
                        "/api/generate", json=body, headers={"Idempotency-Key": "one click"}
                    )
                )
            except httpx.HTTPError:
                assert tries == 1
    assert town.to_us.struck == {kind.value: 1}
    assert tries == (1 if kind is Kind.DELAY else 2)
    town.to_us.calm()
    if kind is Kind.STALL:
        # The first click arrives now, when its customer has the answer to the second.
        await until(shop, lambda: town.door.served["/api/generate"] == 2)
    assert answers[0].status_code == 200, answers[0].text
    job_id = await shop.value("SELECT id FROM generation_jobs")
    assert answers[0].json()["data"]["jobId"] == job_id
    await shop.drain()
    await town.kie.callbacks_settled()
    await shop.drain()
    await judge(shop, payment_id, spare=0)
    assert town.kie.tasks_created == 7
